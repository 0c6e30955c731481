"""Policies and their tokenizers: loading and building them, their weights one by one, frozen copies, adapters merged.

How a model is trained or sampled from does not belong here.

Other rooms import: `adapter_weights`, `attention_names`, `averaging`, `bitsandbytes_package`, `cost_counts`,
`four_bit`, `generation`, `gguf_files`, `gguf_reading`, `inference`, `load`, `merging`, `new_adapter`,
`policy_weights`, `positions`, `products`, `reference_adapter`, `rest`, `scored`, `snapshot`.
"""
