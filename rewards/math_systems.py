r"""Values with their names: `x=2, y=-1`, against each other and against the bare values.

Values of letters stand for a tuple or a list in the usual order of the letters, so `y=-1, x=2` is `(2,-1)` and
`y=2, x=-1` is not. Values of words stand for one in the order in which they are written. What repeats its names has
several solutions: `x=1, y=2; x=2, y=1`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from posttrain.rewards.math_labels import matching, word_label
from posttrain.rewards.math_names import EQUALS, is_name, key, one_letter, tuple_names, usual_order
from posttrain.rewards.math_shape import Shape, plain, shape

Same = Callable[[str, str], bool]
_MOST_ROWS = 20
_WORDY = re.compile(r"(?<![\\a-z])[A-Za-z]{3}|\\text")
_LABEL = re.compile(r"^\\text\s*\{\s*([A-Za-z][A-Za-z ]*)[:=]\s*\}")  # \text{hens: }6


@dataclass(frozen=True, slots=True)
class System:
    """Solutions of several unknowns: a row each, with the values in the order of the names."""

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def same_system(gold: str, said: str, same: Same) -> bool | None:
    """Whether named values are the same; None where neither answer names several."""
    ours, theirs = system(gold), system(said)
    if ours is None and theirs is None:
        return None
    if ours is not None and theirs is not None:
        order = matching(ours.names, theirs.names)
        if order is None or len(ours.rows) != len(theirs.rows):
            return False
        return _same_rows(ours.rows, [tuple(row[index] for index in order) for row in theirs.rows], same)
    named = ours or theirs
    assert named is not None
    bare = shape(said if ours is not None else gold)
    rows = _bare_rows(bare, len(named.names), len(named.rows))
    if rows is None:
        return False
    order = usual_order(list(named.names)) or list(range(len(named.names)))
    ordered = [tuple(row[index] for index in order) for row in named.rows]
    if bare.kind == "list" and len(ordered) == 1 and one_letter(list(named.names)):
        rows, ordered = [(value,) for value in rows[0]], [(value,) for value in ordered[0]]
    return _same_rows(ordered, rows, same) if ours is not None else _same_rows(rows, ordered, same)


def system(text: str) -> System | None:
    """The solutions that a text states by name; None where it names fewer than two different things."""
    if "=" not in text and ":" not in text and not _WORDY.search(text):
        return None
    whole = shape(text)
    parts = [inner for part in whole.parts for inner in shape(part).parts] if whole.kind == "list" else [*whole.parts]
    named = _named_tuples(parts)
    if named is not None:
        return named
    if whole.kind != "list":
        parts = _chained(parts[0])
    pairs = [_pair(part) or word_label(part) for part in parts]
    if len(pairs) < 2 or None in pairs:
        return None
    names = [pair[0] for pair in pairs if pair is not None]
    values = [pair[1] for pair in pairs if pair is not None]
    width = names.index(names[0], 1) if names[0] in names[1:] else len(names)
    if width < 2 or len(names) % width or len(names) // width > _MOST_ROWS:
        return None
    first = names[:width]
    rows = []
    for start in range(0, len(names), width):
        here = names[start : start + width]
        if set(here) != set(first) or len(set(here)) != width:
            return None
        rows.append(tuple(values[start + here.index(name)] for name in first))
    return System(tuple(first), tuple(rows))


def named_value(text: str) -> tuple[str | None, str]:
    """`x` and `30^\\circ` from `x=30^\\circ`; without a name None and the text itself."""
    pair = _pair(plain(text)) if "=" in text else None
    return pair or (None, text)


def _pair(part: str) -> tuple[str, str] | None:
    name, *values = (side.strip() for side in EQUALS.split(_LABEL.sub(r"\\text{\1}=", part)))
    if not values or not all(values) or not is_name(name):
        return None
    return key(name), "=".join(values)


def _chained(part: str) -> list[str]:
    """`x=2`, `y=2` from `x=y=2`."""
    *names, value = (side.strip() for side in EQUALS.split(part))
    if len(names) < 2 or not all(len(name) == 1 and name.isalpha() for name in names):
        return [part]
    return [f"{name}={value}" for name in names]


def _named_tuples(parts: Sequence[str]) -> System | None:
    """`(x,y)=(1,2)`, also with more tuples behind it, each with the names or without, or a set of them."""
    names: list[str] | None = None
    rows: list[tuple[str, ...]] = []
    for part in parts:
        sides = [side.strip() for side in EQUALS.split(part.replace("\\in ", "=").replace("\\in\\", "=\\"))]
        here = tuple_names(sides[0]) if len(sides) == 2 else None
        if (here is None and (names is None or len(sides) != 1)) or (names and here and here != names):
            return None
        names = names or here
        value = shape(sides[-1])
        for row in [value] if value.kind == "round" else [shape(one) for one in value.parts]:
            if row.kind != "round" or names is None or len(row.parts) != len(names):
                return None
            rows.append(row.parts)
    return System(tuple(names), tuple(rows)) if names and 0 < len(rows) <= _MOST_ROWS else None


def _bare_rows(bare: Shape, width: int, count: int) -> list[tuple[str, ...]] | None:
    if bare.kind in ("round", "list") and count == 1 and len(bare.parts) == width:
        return [bare.parts]
    if bare.kind == "matrix" and bare.form == f"{width}x1" and count == 1:
        return [bare.parts]
    if bare.kind in ("list", "set"):
        rows = [shape(part) for part in bare.parts]
        if len(rows) == count and all(row.kind == "round" and len(row.parts) == width for row in rows):
            return [row.parts for row in rows]
    return None


def _same_rows(ours: Sequence[tuple[str, ...]], theirs: Sequence[tuple[str, ...]], same: Same) -> bool:
    if len(ours) != len(theirs):
        return False
    left = list(theirs)
    for row in ours:
        found = next(
            (
                index
                for index, other in enumerate(left)
                if len(row) == len(other) and all(same(one, two) for one, two in zip(row, other, strict=True))
            ),
            None,
        )
        if found is None:
            return False
        del left[found]
    return True
