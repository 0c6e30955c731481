"""What a run's first step hands to TRL-style functions beside the rows, for those who call them without a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainerState

_CHARACTERS = 16  # of a token, at most, as far as its text matters here


def first_extras(max_steps: int = 0) -> dict[str, Any]:
    """TRL's further arguments as they are before the first step; what is logged goes nowhere.

    Args:
        max_steps: The run's steps, as `trainer_state` has them.
    """
    return {"trainer_state": TrainerState(max_steps=max_steps), "log_extra": _log_extra, "log_metric": _log_metric}


def ids_as_sampled(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, most: int) -> list[list[int]]:
    """Token ids of completions: their text's and the end of the sequence, or `most` of them and no end."""
    ending = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    known: dict[str, list[int]] = {}
    for text in texts:
        if text not in known:
            # Half of a surrogate pair is nothing that tokens could decode to; what would be cut is not looked at
            plain = text[: _CHARACTERS * most].encode(errors="replace").decode()
            ids = [*tokenizer(text=plain, add_special_tokens=False)["input_ids"], *ending]
            known[text] = ids[:most]
    return [list(known[text]) for text in texts]


def _log_extra(column: str, values: list[Any]) -> None:
    """Takes what `log_extra(column, values)` is given."""


def _log_metric(name: str, value: float) -> None:
    """Takes what `log_metric(name, value)` is given."""
