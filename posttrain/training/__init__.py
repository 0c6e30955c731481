"""The hybrid step and its halves, the warm-up, losses, norms, and the record of each step.

The only room that touches private names of TRL and transformers, in the files that list them. Recipes and run
directories do not belong here: this is the library's side.

Other rooms import: `checkpoints.resume_state`, `config`, `ledger`, `packable`, `rank_budget`, `skipped`,
`trainer`, `warmup`.
"""
