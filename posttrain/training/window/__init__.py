"""Which rows of a generation are trained on, in which passes, TRL's loss on them, and the KL measured on them.

Sampling and scoring them do not belong here.
"""
