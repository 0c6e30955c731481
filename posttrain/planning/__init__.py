"""Before a run: what a recipe would do, need and cost, likely mistakes in it, whether this machine can, and all of it
once in small.

Nothing here loads the weights of the model that is planned for, and nothing trains but the smoke test.

Other rooms import: `amounts`, `as_json`, `doctor.doctor`, `doctor.facts`, `launching`, `machine`, `model_facts`,
`plan`, `seconds`, `settings`, `show`, `smoke.smoke`, `starting.start`.
"""
