"""The names by which attention functions are registered with transformers: one room installs one, others meet it."""

TREE = "posttrain_tree"
"""Of packed sequences, as `config._attn_implementation` has it while training."""

TREE_EAGER = "posttrain_tree_eager"
"""The same for models whose eager attention computes more than SDPA does."""

SDPA = ("sdpa", TREE)
"""Those that are transformers' SDPA where no row is packed."""

EAGER = ("eager", TREE_EAGER)
"""Those that are a model's own eager attention where no row is packed."""
