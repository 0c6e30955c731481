"""The token that ends a completion, declared by the model that is saved."""

from __future__ import annotations

from typing import Any


def declare_end(model: Any, tokenizer: Any) -> None:
    """Have the model's generation config name the tokenizer's end of sequence beside those that it has.

    The one that training set (`warmup.args.eos_token`) is known to an adapter's tokenizer and not to its base model.
    """
    config, end = getattr(model, "generation_config", None), tokenizer.eos_token_id
    if config is None or end is None:
        return
    declared = config.eos_token_id
    declared = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    if end not in declared:
        config.eos_token_id = [end, *declared] if declared else end
