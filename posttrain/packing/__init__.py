"""Rows as one sequence without padding, a group's prompt once: the layout, the attention in it, log-probabilities out
of it.

Which rows are trained on, and with what loss, does not belong here.

Other rooms import: `scores`.
"""
