"""Evaluation: scores of segmenters, images of any size through networks, and exports.

What a trained network does belongs here. Nothing that trains belongs here.
"""
