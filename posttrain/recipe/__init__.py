"""A recipe: its keys, where each was written, what contradicts what, and the arithmetic of its batches.

A recipe is data: nothing here opens a data set or a model, and what is heavy is not imported.

Other rooms import: `adapter_kinds`, `adapter_serving`, `arithmetic`, `contradictions`, `mistakes`, `model_sections`,
`optimizers`, `rates`, `ratios`, `recipe`, `schedules`, `section`, `sections`, `selected_tokens`, `sft_losses`,
`shipped`, `stage_sections`, `step_sizes`, `tracking`, `window_ahead`, `yamlfile`, `zero`.
"""
