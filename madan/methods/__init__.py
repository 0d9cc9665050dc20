"""Methods: losses and training steps of the paper, its extension and its baselines.

A module is a noun of a paper. Files and jobs do not belong here.
"""
