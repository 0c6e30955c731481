"""Demonstrations that are wrong on purpose: which ones, and how the run says so.

Demonstrations as people have them are of mixed quality. Each generator has a `noise_share`; what a wrong demonstration
looks like is the generator's own. Prompts, held-out rows and every column but `completion` stay true: only what SFT
learns from is wrong. Without noise the rows are the same to the byte, and none has the column `noisy`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

NOISY = "noisy"
"""A column of demonstrations, where some are wrong on purpose: whether this one is. It reaches no model."""


def thinking(count: int, share: float, rng: random.Random) -> list[bool]:
    """Which of `count` demonstrations think: the share rounded to a whole number, in random order."""
    with_thought = round(count * share)
    flags = [True] * with_thought + [False] * (count - with_thought)
    rng.shuffle(flags)
    return flags


def noisy(count: int, share: float, rng: random.Random) -> list[bool]:
    """Which of `count` demonstrations are wrong: the share rounded to a whole number, evenly spread.

    Any run of demonstrations in a row has its share of them, give or take one; `rng` says where the first is.
    """
    wrong = round(count * share)
    start = rng.randrange(count) if count else 0
    return [(start + place + 1) * wrong // count > (start + place) * wrong // count for place in range(count)]


def marked(row: Mapping[str, Any], wrong: bool, share: float) -> dict[str, Any]:
    """A demonstration with the column `noisy`, where the task asked for noise; else as it is."""
    return {**row, NOISY: wrong} if share else dict(row)


def note(demonstrations: Iterable[Mapping[str, Any]], share: float, how: str) -> list[str]:
    """What a run says about it: nothing where the task asked for none.

    Args:
        demonstrations: With the column.
        share: What was asked for.
        how: In a few words, how they are wrong.
    """
    flags = [bool(row[NOISY]) for row in demonstrations] if share else []
    return [f"{sum(flags)} of {len(flags)} demonstrations are wrong on purpose (noise_share {share:g}): {how}"] * bool(
        flags
    )


def without_noise(demonstrations: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The demonstrations that are not wrong on purpose."""
    return [dict(row) for row in demonstrations if not row.get(NOISY)]
