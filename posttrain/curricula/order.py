"""Orders of rows that depend on a key alone, so that every process and every resumed run has the same."""

from __future__ import annotations

import random
from functools import lru_cache


@lru_cache(maxsize=8)
def permutation(key: str, size: int) -> tuple[int, ...]:
    """A shuffle of `range(size)` that depends on `key` only (a string seed is hashed the same in every process)."""
    rows = list(range(size))
    random.Random(key).shuffle(rows)
    return tuple(rows)


def cycled(order: list[int] | tuple[int, ...], start: int, count: int) -> list[int]:
    """`count` rows of an order that begins anew at its end, from the place `start` on."""
    return [order[place % len(order)] for place in range(start, start + count)]


def reshuffled(rows: list[int], name: str, seed: int, start: int, count: int) -> list[int]:
    """`count` rows from the place `start` on, of all `rows` in a new order each epoch.

    With all rows of a data set and the name "prompts" these are those of a run without a curriculum.
    """
    found = []
    for place in range(start, start + count):
        epoch, offset = divmod(place, len(rows))
        found.append(rows[permutation(f"{name}:{seed}:{epoch}", len(rows))[offset]])
    return found
