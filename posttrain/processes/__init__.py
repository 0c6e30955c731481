"""The processes of a run: what they decide together, whether they still agree, what their launcher told them, what
DeepSpeed's ZeRO lacks, and threads of one that work side by side.

What they compute does not belong here.

Other rooms import: `connection`, `deepspeed_releases`, `drift`, `importing`, `interrupting`, `launched`, `ranks`,
`side_by_side`, `zero`.
"""
