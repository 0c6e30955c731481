"""A run's model as a folder to share: weights, model card, recipe, a drawing of the mix, with nothing of this machine
in it.

What trains or evaluates does not belong here.

Other rooms import: `averaged`, `export`, `pushing`.
"""
