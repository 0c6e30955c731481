"""Which of a task's demonstrations are of a kind, by a share and a seed."""

from __future__ import annotations

import random


def flagged(count: int, share: float, rng: random.Random) -> list[bool]:
    """Which of `count` rows are of a kind: the share rounded to a whole number, in random order."""
    of_it = round(count * share)
    flags = [True] * of_it + [False] * (count - of_it)
    rng.shuffle(flags)
    return flags
