"""Engine: what every training needs, whatever it trains.

The loop, resume, processes, GPUs and progress belong here. Nothing about segmentation does.
"""
