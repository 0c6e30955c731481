"""`posttrain rewards list`, `score` and `check`: which rewards there are, what they say of given completions, and
whether they hold on a recipe's own rows.

How a reward is called does not belong here: that is `scoring/`.
"""
