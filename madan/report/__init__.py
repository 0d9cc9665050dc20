"""Report: tables and figures from scores and arrays.

Functions from numbers to text and pictures belong here. Nothing that runs a network belongs here.
"""
