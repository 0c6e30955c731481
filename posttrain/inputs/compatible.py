"""Whether a new model can be trained to stay compatible with an old one (`warmup.muscle`), before either is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from posttrain.errors import ConfigError
from posttrain.recipe.adapter_kinds import check_trains_on
from posttrain.recipe.model_sections import GGUF_SUFFIX
from posttrain.recipe.recipe import Recipe

SHOWN = 3


def check_old(
    recipe: Recipe,
    tokenizer: Any,
    config: Any,
    *,
    loading: Callable[[str, str], AbstractContextManager[None]],
    local: bool = False,
) -> Any:
    """Look at the old model's tokenizer and configuration.

    Args:
        recipe: With `warmup.muscle`.
        tokenizer: The new model's.
        config: Its configuration.
        loading: Entered around what is read of a model, with its name and the key that named it.
        local: Ask no hub.

    Returns:
        The old model's configuration.

    Raises:
        ConfigError: It cannot be had, its tokens are others, or of one of the two logits are more than a product.
    """
    from posttrain.inputs.shown import check_plain_logits
    from posttrain.models.load import check_model_files, config_of, load_tokenizer

    section, where = recipe.warmup.muscle, recipe.where("warmup.muscle.old")
    assert section is not None
    if section.old.lower().endswith(GGUF_SUFFIX):
        expected = "a folder or hub id with its weights whole"
        raise ConfigError(f"{section.old} is a GGUF file", expected=expected, where=where, fix="unpack it first")
    options: dict[str, Any] = {"revision": section.revision, "trust_remote_code": recipe.model.trust_remote_code}
    with loading(section.old, where):
        check_model_files(section.old, **options)
        options |= {"local_files_only": True} if local else {}
        before, old = load_tokenizer(section.old, **options), config_of(section.old, **options)
    adapter = Path(section.old) / "adapter_config.json"
    if adapter.is_file():
        check_trains_on(json.loads(adapter.read_text()), beta=0.0, where=where)
    if seen := other_tokens(before, tokenizer) or _other_logits(old, config):
        raise ConfigError(
            f"{section.old} and {recipe.model.name}: {seen}",
            expected="one vocabulary: a KL compares the two models' probabilities token by token",
            where=where,
            fix="name the version before of the same family, or leave warmup.muscle out",
        )
    for each in (old, config):
        check_plain_logits(each, "muscle", recipe.where("warmup.muscle"))
    return old


def other_tokens(old: Any, new: Any) -> str | None:
    """By which tokens two tokenizers differ, in words; `None` where they have the same."""
    before, after = old.get_vocab(), new.get_vocab()
    apart = sorted(token for token in before.keys() | after.keys() if before.get(token) != after.get(token))
    if not apart:
        return None
    named = ", ".join(f"{token!r} is {before.get(token)} and {after.get(token)}" for token in apart[:SHOWN])
    return f"their tokens differ: {named}" + (f" and {len(apart) - SHOWN} more" if len(apart) > SHOWN else "")


def _other_logits(old: Any, new: Any) -> str | None:
    sizes = [getattr(config.get_text_config(), "vocab_size", None) for config in (old, new)]
    return f"{sizes[0]} and {sizes[1]} logits a token" if sizes[0] != sizes[1] else None
