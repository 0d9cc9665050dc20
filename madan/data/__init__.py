"""Data: layouts of releases, checks of raw files, prepared datasets and batches of them.

Readers of images and labels belong here. Nothing that knows networks or methods belongs here.
"""
