"""The miniature: a drawn world of street scenes in the native formats of the datasets.

What draws and writes it belongs here. Nothing that is used at another scale belongs here.
"""
