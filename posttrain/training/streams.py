"""Endless example streams whose whole state is one integer.

Row i of a stream is `permutation(seed, epoch)[i % size]` with `epoch = i // size`: a fresh shuffle of all rows every
epoch. A stream can therefore be continued from its cursor alone, on any number of processes.
"""

from __future__ import annotations

from posttrain.curricula.order import permutation
from posttrain.errors import DataError


class Stream:
    """Row numbers of one data set, in an order fixed by `seed`.

    Args:
        size: Rows in the data set.
        seed: Run seed.
        name: Tells streams with the same seed apart.
        shuffle: A new permutation each epoch; otherwise rows in file order, over and over.
        cursor: Rows taken so far.
    """

    def __init__(self, size: int, *, seed: int, name: str, shuffle: bool = True, cursor: int = 0):
        if size < 1:
            raise DataError(f"the {name} are empty", expected="at least one row", where=name)
        self.size, self.seed, self.name, self.shuffle, self.cursor = size, seed, name, shuffle, cursor

    def row(self, index: int) -> int:
        """The row number at position `index` of the endless stream."""
        epoch, offset = divmod(index, self.size)
        return permutation(f"{self.name}:{self.seed}:{epoch}", self.size)[offset] if self.shuffle else offset

    def peek(self, count: int) -> list[int]:
        """The next `count` row numbers, leaving the cursor where it is."""
        return [self.row(index) for index in range(self.cursor, self.cursor + count)]

    def take(self, count: int) -> list[int]:
        """The next `count` row numbers; the cursor moves past them."""
        rows = self.peek(count)
        self.cursor += count
        return rows


def micro_batches(rows: list[int], *, steps: int, rank: int, world_size: int) -> list[list[int]]:
    """This rank's share of a step's rows, cut into `steps` micro-batches.

    Micro-batch j holds the same global rows for any `world_size`, so that the gradient of a step does not depend on
    how many processes computed it. The rows must divide evenly.
    """
    if len(rows) % (steps * world_size):
        raise ValueError(f"{len(rows)} rows do not divide into {steps} micro-batches on {world_size} processes")
    per_step = len(rows) // steps
    per_rank = per_step // world_size
    starts = [step * per_step + rank * per_rank for step in range(steps)]
    return [rows[start : start + per_rank] for start in starts]
