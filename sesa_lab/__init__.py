"""A workbench for sequential sampling (SESA, arXiv 2510.15502) in reinforcement learning of language models."""

__version__ = "0.1.0"
