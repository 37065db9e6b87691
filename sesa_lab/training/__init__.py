"""Training: credit within a group, the loss, and the loop that joins all rooms."""
