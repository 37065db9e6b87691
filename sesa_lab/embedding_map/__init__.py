"""A map of what a run wrote: its solutions or its sketches as points, near where their embeddings are, over training steps.

``data`` reads a fixed sample, embeds and projects it; ``figures`` draws it; ``panel`` lists what is selected, ``link``
leads an inspector through it. Reads runs.
"""

from sesa_lab.embedding_map.data import Places, Points, clusters, place, read
from sesa_lab.embedding_map.panel import EmbeddingMap

__all__ = ["EmbeddingMap", "Places", "Points", "clusters", "place", "read"]
