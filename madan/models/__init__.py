"""Models: the networks and the files that hold their weights.

Architectures and readers of weights belong here. Losses and training steps do not.
"""
