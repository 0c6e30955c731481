"""The processes of a run: what they decide together, whether they still agree, what their launcher told them, what
DeepSpeed's ZeRO lacks.

What they compute does not belong here.

Other rooms import: `connection`, `deepspeed_releases`, `drift`, `importing`, `interrupting`, `launched`, `ranks`,
`zero`.
"""
