"""How good a model is: answers to held-out problems, pass@k with intervals, and the order that pass rates give to
prompts.

`statistics` is pure, and is used by whatever compares. What a page or a command shows does not belong here.

Other rooms import: `asked`, `blocks`, `curriculum`, `evaluate_model`, `examiner`, `geometry`, `statistics`.
"""
