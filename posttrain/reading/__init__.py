"""A run's directory read again, and what follows from it: why a step was what it was, other settings on the same
signals, completions, runs against each other.

Nothing here writes into a run. Pages are `report/`'s.

Other rooms import: `compare`, `compare_layers`, `compare_spending`, `compare_weights`, `explain`, `explain_summary`,
`given`, `judged`, `refined`, `replay`, `replay_curriculum`, `replay_method`, `replay_method_shown`, `replay_shown`,
`runs`, `view`, `view_prompt`, `view_query`, `view_shown`.
"""
