"""A checkpoint's adapter goes on as the policy's own, of which PEFT keeps what the checkpoint's would change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open

from posttrain.errors import ResumeError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
POLICY = "default"

SCALES = ("lora_alpha", "alpha_pattern", "use_rslora", "r", "rank_pattern")
"""The fields of a `LoraConfig` by which the same numbers are another policy."""

NOT_TRAINED = "base_layer.weight"
"""Ends the name of an embedding that PEFT saves beside an adapter on it."""


def check_same_adapter(checkpoint: Path, policy: Any) -> None:
    """Refuse to load a checkpoint's adapter into one of another kind.

    PEFT copies the values of the names that both have, and keeps the scale, and the values of the other names, of the
    adapter that is there already: a policy that nobody trained.

    Args:
        checkpoint: The folder.
        policy: The model that is trained, unwrapped; anything but one with an adapter is left alone.

    Raises:
        ResumeError: With the first difference, on every process.
    """
    config = policy.peft_config.get(POLICY) if isinstance(policy, PeftModel) else None
    if config is None or not all((checkpoint / name).is_file() for name in (CONFIG, WEIGHTS)):
        return
    saved, present = json.loads((checkpoint / CONFIG).read_text()), config.to_dict()
    for name in SCALES:
        was, now = saved.get(name), present.get(name)
        if (was or None) != (now or None):
            raise _other(checkpoint, f"has {name} {was!r}, the model's has {now!r}")
    with safe_open(checkpoint / WEIGHTS, framework="pt") as file:
        there = {name for name in file.keys() if not name.endswith(NOT_TRAINED)}  # noqa: SIM118 (no mapping)
    own = set(get_peft_model_state_dict(policy, adapter_name=POLICY, save_embedding_layers=False))
    if more := sorted(there - own):
        raise _other(checkpoint, f"has {_count(more)} that the model's lacks, such as {more[0]}")
    if fewer := sorted(own - there):
        raise _other(checkpoint, f"lacks {_count(fewer)} of the model's, such as {fewer[0]}")


def _count(names: list[str]) -> str:
    return f"{len(names)} weight{'s' * (len(names) > 1)}"


def _other(checkpoint: Path, difference: str) -> ResumeError:
    return ResumeError(
        f"the checkpoint's adapter {difference}",
        expected="an adapter of the same kind: its values mean another policy in any other",
        where=str(checkpoint),
        fix="make the model's adapter as it was made for the checkpoint, or train without resume_from_checkpoint",
    )
