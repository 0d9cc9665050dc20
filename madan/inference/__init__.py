"""Inference: segmenters and generators on photographs and videos of one's own.

What reads files that the user names and writes where the user says belongs here. Scores do not.
"""
