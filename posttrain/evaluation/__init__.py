"""How good a model is: answers to held-out problems, pass@k with intervals, and what a curriculum
measures of prompts before a stage: pass rates, angles of hidden states.

`statistics` is pure, and is used by whatever compares. What a page or a command shows does not belong here.

Other rooms import: `angles`, `asked`, `blocks`, `curriculum`, `evaluate_model`, `examiner`, `geometry`, `statistics`.
"""
