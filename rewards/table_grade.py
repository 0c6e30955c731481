"""How far a table agrees with another: its structure and its content, apart. Pure functions."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import Decimal

_NUMBER = re.compile(r"-?\d{1,30}(?:\.\d{1,30})?", re.ASCII)


def structure(columns: Sequence[str], rows: Sequence[Sequence[str]], gold: Sequence[str], count: int) -> float:
    """The mean of three shares, none of which asks what a cell says.

    1. Twice the longest common subsequence of the columns' names, over all names of both: the right ones, in order.
    2. The smaller number of rows over the larger one.
    3. The rows that have as many cells as there are names, over all rows.

    Args:
        columns: The names that are given.
        rows: The rows that are given.
        gold: The right names.
        count: The right number of rows.
    """
    names = 2 * _common(columns, gold) / (len(columns) + len(gold))
    number = min(len(rows), count) / max(len(rows), count, 1) if rows or count else 1.0
    even = sum(len(row) == len(columns) for row in rows) / len(rows) if rows else float(not count)
    return (names + number + even) / 3


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    before = [0] * (len(other) + 1)
    for left in one:
        now = [0]
        for place, right in enumerate(other):
            now.append(before[place] + 1 if left == right else max(before[place + 1], now[-1]))
        before = now
    return before[-1]


def content(
    columns: Sequence[str], rows: Sequence[Sequence[str]], gold: Sequence[str], right: Sequence[Sequence[str]]
) -> tuple[float, bool]:
    """F1 over cells, each by its column's name, and whether all rows say the same in the same order.

    Rows are paired with the right ones, each once, those first that agree in the most cells. Numbers are equal by
    value, anything else as text. A cell beyond the last column agrees with none.

    Args:
        columns: The names that are given.
        rows: The rows that are given.
        gold: The right names.
        right: The right rows.
    """
    said = [_cells(columns, row) for row in rows]
    meant = [_cells(gold, row) for row in right]
    where: dict[tuple[str | None, str], list[int]] = defaultdict(list)
    for number, row in enumerate(meant):
        for cell in row:
            where[cell].append(number)
    agree: Counter[tuple[int, int]] = Counter()
    for number, row in enumerate(said):
        for cell, times in row.items():
            for other in where.get(cell, ()):
                agree[number, other] += min(times, meant[other][cell])
    taken: tuple[set[int], set[int]] = (set(), set())
    found = 0
    for (one, other), cells in sorted(agree.items(), key=lambda item: (-item[1], item[0])):
        if one not in taken[0] and other not in taken[1]:
            taken[0].add(one)
            taken[1].add(other)
            found += cells
    total = sum(row.total() for row in said) + sum(row.total() for row in meant)
    return 2 * found / total if total else 1.0, said == meant


def _cells(columns: Sequence[str], row: Sequence[str]) -> Counter[tuple[str | None, str]]:
    names = [*columns, *[None] * max(0, len(row) - len(columns))]
    return Counter((name, value_of(cell)) for name, cell in zip(names, row, strict=False))


def value_of(cell: str) -> str:
    """The same text for equal cells: 7, 7.0 and 07 are one number."""
    return str(Decimal(cell).normalize() + 0) if _NUMBER.fullmatch(cell) else cell
