"""The checkpoints of training: all that resuming needs to equal never stopping.

What decides when one is written does not belong here.
"""
