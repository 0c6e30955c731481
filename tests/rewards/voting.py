"""Rewards that worker processes load: nothing heavy is imported here."""

from __future__ import annotations

from typing import Any

from posttrain.rewards import length_budget, majority


def word(completion: str, **row: Any) -> float:
    """A reward that is asked for its notion of answers, the last word in any case, and never for a score."""
    raise AssertionError


word.read_answer = lambda completion, **row: completion.split()[-1] if completion.split() else None  # type: ignore[attr-defined]
word.same_answer = lambda one, other: one.casefold() == other.casefold()  # type: ignore[attr-defined]
WORD = f"{__name__}:word"


def vote(completion, *, group_completions, **row):
    """Of completions by an untrained model, which differ: by whether the first letter is before the middle."""
    said = ["early" if text[:1] < "1" else "late" for text in [completion, *group_completions]]
    return majority.score(said[0], of=WORD, group_completions=said[1:])


def by_budget(completion, *, token_budget=None, completion_tokens=None, **row):
    """A reward of a user's own."""
    return length_budget.score(completion, token_budget=token_budget, completion_tokens=completion_tokens)
