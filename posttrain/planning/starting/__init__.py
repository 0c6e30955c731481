"""`posttrain init`: what is in a file of rows, and a recipe and a reward to begin with, written for it.

Everything here looks at rows and writes text; nothing loads a model. What rows mean is `tasks/rows`'.
"""
