"""One row for each prompt: what repeats it, adds a demonstration to it, or contradicts it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from posttrain.tasks.row_counts import Tally
from posttrain.tasks.rows.forms import OwnRow

_NO_MATTER = ("id", "index", "idx", "uuid")
"""Columns in which two rows may differ and be the same all the same."""


def gather(
    rows: Iterable[OwnRow | str], tally: Tally, longest: int | None, demonstrated_by: Collection[str] = ()
) -> tuple[list[OwnRow], list[str]]:
    """The rows that are used, one for each prompt, and a line for each that contradicts an earlier one.

    A row that repeats a prompt with another completion is a further demonstration of the first; one that repeats it
    with other columns is left out, for a reward could only go by one of them.

    Args:
        rows: As read, or why one is not used.
        tally: Takes what became of them.
        longest: Characters that a row may have.
        demonstrated_by: Columns that are the demonstration under another name, in which further ones differ.
    """
    kept: dict[str, OwnRow] = {}
    contradicting: list[str] = []
    for row in rows:
        if isinstance(row, str):
            tally.add(row)
        elif longest is not None and row.characters > longest:
            tally.add("too long")
        elif (first := kept.setdefault(row.key, row)) is not row:
            differing = [name for name in _differing(first, row) if name not in demonstrated_by]
            more = tuple(one for one in row.completions if one not in first.completions)
            if differing:
                tally.add("with an earlier row's prompt and other columns")
                contradicting.append(_told(first, row, differing))
            elif more:
                tally.add("with another demonstration of an earlier row's prompt")
                kept[row.key] = replace(first, completions=(*first.completions, *more))
            else:
                tally.add("duplicate")
    return list(kept.values()), contradicting


def _differing(first: OwnRow, row: OwnRow) -> list[str]:
    names = dict.fromkeys([*first.columns, *row.columns])
    return [name for name in names if name not in _NO_MATTER and first.columns.get(name) != row.columns.get(name)]


def _told(first: OwnRow, row: OwnRow, names: Sequence[str]) -> str:
    name = names[0]
    here, there = (repr(one.columns.get(name)) for one in (row, first))
    return f"{row.where}: {name} {_short(here)}, and {first.where} has {_short(there)}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
