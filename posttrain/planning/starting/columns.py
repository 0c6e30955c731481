"""The columns of a file of rows: of what type, how long, how often empty, with an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.tasks.row_files import RawRow
from posttrain.tasks.rows.templates import as_text

EXAMPLE = 60
"""Characters of a value that are shown."""
FEW = 12
"""Different values up to which a column may tell rows apart, as a difficulty does."""


@dataclass(frozen=True)
class Lengths:
    """Characters of texts: of half of them at most `median`, of nine in ten at most `most`."""

    median: int
    most: int
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Lengths | None:
        """Of some lengths; None of none."""
        ordered = sorted(lengths)
        if not ordered:
            return None
        return cls(ordered[(len(ordered) - 1) // 2], ordered[(len(ordered) - 1) * 9 // 10], ordered[-1])

    def __str__(self) -> str:
        return f"{self.longest:,}" if self.median == self.longest else f"{self.median:,} to {self.longest:,}"


@dataclass(frozen=True)
class Column:
    """A column of a file.

    Args:
        name: What the file calls it.
        kinds: `text`, `number`, `yes or no`, `messages`, `list` or `mapping`, the most frequent first; of an empty
            column none.
        empty: Rows that have nothing in it.
        lengths: Of its values as text.
        values: How many different ones there are, counted up to `FEW`.
        example: The beginning of a value.
    """

    name: str
    kinds: tuple[str, ...]
    empty: int
    lengths: Lengths | None
    values: int
    example: str

    @property
    def kind(self) -> str:
        """Of most of its values."""
        return self.kinds[0] if self.kinds else "nothing"


def columns_of(rows: Sequence[RawRow]) -> dict[str, Column]:
    """The columns that any row has, in the order in which they first come."""
    names = dict.fromkeys(name for row in rows for name in row.columns)
    return {name: _column(name, [row.columns.get(name) for row in rows]) for name in names}


def is_empty(value: Any) -> bool:
    """Whether a cell has nothing in it."""
    return value is None or value in ("", [], {}) or (isinstance(value, str) and not value.strip())


def shown(text: str, most: int = EXAMPLE) -> str:
    """A text of a file on one line of a terminal or a comment: without line breaks and control codes, and not long."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text[: most + 1])
    return printable if len(printable) <= most else f"{printable[: most - 3]}..."


def _column(name: str, cells: Sequence[Any]) -> Column:
    values = [value for value in cells if not is_empty(value)]
    counted: dict[str, int] = {}
    different: set[str] = set()
    for value in values:
        counted[_kind(value)] = counted.get(_kind(value), 0) + 1
        if len(different) <= FEW:
            different.add(str(value))
    texts = [as_text(value) or "" for value in values]
    return Column(
        name,
        tuple(sorted(counted, key=lambda kind: -counted[kind])),
        len(cells) - len(values),
        Lengths.of([len(text) for text in texts]),
        len(different),
        shown(texts[0]) if texts else "",
    )


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "yes or no"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, Mapping):
        return "mapping"
    if isinstance(value, list):
        turns = all(isinstance(one, Mapping) and {"role", "from"} & one.keys() for one in value)
        return "messages" if turns else "list"
    return type(value).__name__
