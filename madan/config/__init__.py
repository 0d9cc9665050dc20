"""Settings: params.yaml read, typed and checked.

The models of its sections and all refusals of it belong here. Nothing that opens images or weights
belongs here.
"""

from madan.config.loading import digest, load, resolve

__all__ = ["digest", "load", "resolve"]
