"""Whether this machine can run recipes: facts, and what they mean.

Facts of a recipe do not belong here.
"""
