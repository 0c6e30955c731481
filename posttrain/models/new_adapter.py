"""PEFT's configuration of a recipe's new adapter."""

from __future__ import annotations

from typing import Any

from peft import AdaLoraConfig, LoraConfig

from posttrain.recipe.adapter_kinds import ADALORA


def adapter_config(fields: dict[str, Any]) -> LoraConfig:
    """The configuration with these fields (`LoraSection.peft_kwargs`)."""
    kind = AdaLoraConfig if fields.get("peft_type") == ADALORA else LoraConfig
    return kind(**{name: value for name, value in fields.items() if name != "peft_type"})
