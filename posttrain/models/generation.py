"""A model's own generation config, which transformers reads leniently and refuses to save."""

from __future__ import annotations

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
