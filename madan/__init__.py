"""MADAN: multi-source domain adaptation for semantic segmentation, as a pipeline that runs."""

__version__ = "0.1.0"
