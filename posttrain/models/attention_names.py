"""The names by which attention functions are registered with transformers: one room installs one, others meet it."""

TREE = "posttrain_tree"
"""Of packed sequences, as `config._attn_implementation` has it while training."""

SDPA = ("sdpa", TREE)
"""Those that are transformers' SDPA where no row is packed."""
