"""The rewards that posttrain ships, to use by name or to copy from.

Each module has a `score(completion, *, <columns>, **row)`. They are stateless, and importing them registers
nothing: recipes find them through the package's entry points.

Other rooms import: `json_structure`, `json_text`, `json_unknown`, `math_answer`, `math_extract`,
`table_structure`, `thinking`.
"""
