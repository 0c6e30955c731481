"""An adapter that begins with a part of its base's weights, and what is left of the base, as two plain things.

PiSSA (arXiv 2404.02948) begins with the largest singular values and vectors of each weight, OLoRA (arXiv 2406.01775)
with part of its QR decomposition; PEFT subtracts that from the base in memory. Whoever loads the adapter later has
another base, then, unless that is made anew in the very same way. Here it is made once: the rest is saved as a model,
and the adapter as plain LoRA on it, so that nothing behind needs to know (resuming, the KL's snapshot, merging, vLLM).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from posttrain.errors import ConfigError
from posttrain.models.load import load_policy, load_tokenizer
from posttrain.models.policy_weights import base_model

ADAPTER = "adapter"
"""The folder of the adapter as it begins, in that of the rest."""
EXACT = 1e-3
"""How far logits may be apart, relative to the largest."""


def split(source: str | Path, config: LoraConfig, folder: Path, *, named: Path, **options: Any) -> None:
    """Take the adapter's part out of a base, in float32, and write both down.

    Args:
        source: The base, a hub id or a folder.
        config: Of the adapter, with the initialisation that takes the part.
        folder: Where the rest is written, and the adapter in `ADAPTER` in it.
        named: What the adapter calls its base: where the folder will be.
        options: As of `load_policy`.

    Raises:
        ConfigError: The rank is larger than a weight's smaller side, or both together are not the base.
    """
    tokenizer = load_tokenizer(source, **options)
    model = load_policy(source, dtype="float32", trainable=False, **options).eval()
    ids = torch.arange(2, 18).remainder(base_model(model).config.get_text_config().vocab_size)[None]
    kind = config.init_lora_weights
    with torch.no_grad():
        expected = model(ids).logits
        adapted = get_peft_model(model, config).eval()
        _check_rank(adapted, config)
        apart, largest = float((adapted(ids).logits - expected).abs().max()), float(expected.abs().max())
    if not apart <= EXACT * largest:
        raise ConfigError(
            f"{kind} on these layers: logits are {apart:.2g} from the base's, of {largest:.3g} at most",
            expected="an adapter and a rest that are the base together",
            where="lora.kind",
            fix="set kind: lora, or other target_modules",
        )
    began = adapted.peft_config["default"]
    began.init_lora_weights, began.base_model_name_or_path, began.revision = True, str(named), None
    adapted.save_pretrained(folder / ADAPTER)
    rest = adapted.unload()
    rest.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _check_rank(adapted: Any, config: LoraConfig) -> None:
    for name, parameter in adapted.named_parameters():
        if ".lora_A." in name and len(parameter) < config.r and not config.rank_pattern:
            raise ConfigError(
                f"r: {config.r}, and {name.split('.lora_A')[0].rpartition('.')[2]} has a side of {len(parameter)}",
                expected=f"a rank of {len(parameter)} at most, of which there is a part",
                where="lora.r",
                fix=f"set r: {len(parameter)}",
            )
