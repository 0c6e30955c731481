"""A model's own generation config, which transformers reads leniently, refuses to save, and samples by unasked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import GenerationConfig


def make_savable(config: Any) -> None:
    """Say in a generation config what it takes for granted, in place; it means what it meant.

    Published ones have sampling settings without `do_sample`, or the padding token -1 for none. Nothing here samples by
    them: a run says its own settings outright.

    Args:
        config: A `GenerationConfig`, or `None` for none.
    """
    if config is None:
        return
    if (config.pad_token_id or 0) < 0:
        config.pad_token_id = None
    if config.temperature == 0:  # greedy
        config.temperature = None
    if config.do_sample is not True and "do_sample" in (unsavable(config) or ""):
        config.do_sample = True


def unsavable(config: Any) -> str | None:
    """Why transformers would not save a generation config; `None` if it would."""
    try:
        config.validate(strict=True)
    except ValueError as error:
        return " ".join(str(error).split())
    return None


def generation_config(source: str | Path, *, revision: str | None = None, **options: Any) -> Any:
    """That of a hub id or folder; `None` if it has none.

    Raises:
        ValueError: It holds what no generation config can.
    """
    try:
        return GenerationConfig.from_pretrained(source, **({"revision": revision} if revision else {}), **options)
    except OSError:
        return None


@contextlib.contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """The model's own generation config is away inside, but for its special tokens.

    generate() fills what its caller left open from there, whatever the caller's config is: shortest lengths,
    suppressed tokens, a penalty. Away it fills from transformers' own values, whichever keys there will be.

    Args:
        model: One that generates; of a PEFT model also what is inside, where PEFT puts its own config.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = [(each, each.generation_config) for each in (model, inner) if vars(each).get("generation_config") is not None]
    for each, config in own:
        tokens = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        each.generation_config = GenerationConfig(**{name: getattr(config, name) for name in tokens})
    try:
        yield
    finally:
        for each, config in own:
            each.generation_config = config
