"""Sampling completions: transformers, vLLM in this process or on a server, and how weights get there.

What is done with completions does not belong here, nor does their reward.

Other rooms import: `engine`, `engines`, `for_trl`, `probe`, `sampling`, `seeded`, `transformers`, `vllm_build`,
`vllm_command`, `vllm_package`, `with_engine`.
"""
