"""How an exported model answers as it was measured, as Python source for its card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Decoding:
    """What an evaluation says outright, and whoever loads the model has to say too.

    Attributes:
        ends: Source of the token ids that end a completion.
        template: Source of further arguments of the chat template, each with a comma before it.
        template_json: The same as JSON; empty if there are none.
        dtype: What an adapter's base is loaded in; its own folder says another as likely as not.
        max_new_tokens: The limit.
    """

    ends: str
    template: str
    template_json: str
    dtype: str
    max_new_tokens: int


def decoding_of(folder: Path, recipe: Mapping[str, Any], *, on_gpu: bool) -> Decoding:
    """How the model of a run's recipe was evaluated.

    Args:
        folder: The model as the run saved it.
        recipe: As resolved.
        on_gpu: Whether the run had one.
    """
    hybrid, evaluate = recipe.get("hybrid") or {}, recipe.get("evaluate") or {}
    template = (hybrid.get("args") or {}).get("chat_template_kwargs") or {}
    model = recipe.get("model")
    dtype = (model if isinstance(model, Mapping) else {}).get("dtype") or "auto"
    if dtype == "auto":  # as `policy_options` has it, of an adapter
        dtype = "bfloat16" if on_gpu else "float32"
    length = evaluate.get("max_completion_length") or (hybrid.get("grpo") or {}).get("max_completion_length")
    # The tokenizer's names are resolved where it is loaded: an adapter's may have an end that its base has not
    ends = ["tokenizer.eos_token_id"] if _read(folder / "tokenizer_config.json").get("eos_token") else []
    return Decoding(
        ends="[" + ", ".join([*ends, *map(str, _declared(folder))]) + "]",
        template="".join(f", {name}={value!a}" for name, value in template.items())
        if all(name.isidentifier() for name in template)
        else f", **{template!a}",
        template_json=json.dumps(template) if template else "",
        dtype=dtype,
        max_new_tokens=length or 256,
    )


def _declared(folder: Path) -> list[int]:
    """The ends that the model declares, or of an adapter its base, where it is at hand."""
    from posttrain.models.generation import generation_config

    adapter = _read(folder / "adapter_config.json")
    base = adapter.get("base_model_name_or_path") or str(folder)
    config = generation_config(base, revision=adapter.get("revision"), local_files_only=True)
    declared = getattr(config, "eos_token_id", None)
    return [] if declared is None else [declared] if isinstance(declared, int) else list(declared)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
