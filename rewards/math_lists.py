r"""Lists, sets, points, vectors and matrices: which parts have to be equal to which.

- Lists and sets have no order, and a set is the list of its members. Every part has to have its own counterpart.
- Points, vectors and matrices have an order; `\langle1,2\rangle` is `(1,2)`, and so is the column of 1 and 2, which is
  not the row. Against a bare list the order counts.
- Two parts in brackets may be an interval, so the brackets have to be the same.
- `6 hens and 14 rabbits` says `6, 14` in this order.
- Dots in a list stand for what its first numbers say, when it is a progression.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

from posttrain.rewards.math_names import EQUALS, is_name, key
from posttrain.rewards.math_shape import DOTS, Shape, has_grouped, plain, shape

_MOST = 60  # parts that are compared with each other
_MOST_TERMS = 2_000  # that dots stand for
_LABEL = re.compile(r"\$?-?[\d.,/]+\$?\s*\$?(?:\\text\s*\{\s*([A-Za-z ]+?)\s*\}|\s([A-Za-z]{3,}))")
_NAMED = re.compile(r"([^=<>]{1,40}?)\s*(?:=|\\in(?![a-zA-Z]))\s*([(\[\]\\].*)", re.DOTALL)
_INTEGER = re.compile(r"-?\s*\d{1,12}")
Same = Callable[[str, str], bool]


def same_list(gold: str, said: str, same: Same) -> bool | None:
    """Whether two answers have the same parts; None where neither is made of parts."""
    (name, gold), (other_name, said) = without_name(gold), without_name(said)
    if name and other_name and name != other_name:
        return False
    ours, theirs = shape(gold), shape(said)
    if ours.kind == theirs.kind == "one":
        return None
    if has_grouped(gold) != has_grouped(said) and "list" in (ours.kind, theirs.kind):
        flat, other = shape(gold, grouped=False), shape(said, grouped=False)
        if len(flat.parts) == len(other.parts) and len(ours.parts) != len(theirs.parts):
            ours, theirs = flat, other
    if "one" in (ours.kind, theirs.kind):
        return _one_and_many(ours, theirs, same)
    if any(DOTS.fullmatch(part) for part in ours.parts + theirs.parts):
        return _with_dots(ours, theirs, same)
    if len(ours.parts) != len(theirs.parts) or len(ours.parts) > _MOST:
        return False
    if ours.ordered or theirs.ordered:
        if any(one.kind == "list" and any(EQUALS.search(part) for part in one.parts) for one in (ours, theirs)):
            return False  # x=2, x=3 is no point
        return _brackets_agree(ours, theirs) and _in_order(ours.parts, theirs.parts, same)
    labels = [_labels(one.parts) for one in (ours, theirs)]
    if any(labels):
        return _labelled(ours.parts, theirs.parts, labels, same)
    return _matched(ours.parts, theirs.parts, same)


def without_name(text: str) -> tuple[str | None, str]:
    r"""The name and what it names, where that is made of parts: `S` and `\{1,2\}` from `S=\{1,2\}`."""
    match = _NAMED.fullmatch(plain(text))
    if match is None or not is_name(match[1].strip()) or shape(match[2]).kind in ("one", "list"):
        return None, text
    return key(match[1]), match[2]


def _one_and_many(ours: Shape, theirs: Shape, same: Same) -> bool | None:
    many = theirs if ours.kind == "one" else ours
    if many.kind == "set" and len(many.parts) == 1:
        return same(ours.parts[0], theirs.parts[0])
    # math-verify may know another way to write a matrix
    return None if many.kind == "matrix" else False


def _brackets_agree(ours: Shape, theirs: Shape) -> bool:
    kinds = {ours.kind, theirs.kind}
    if "set" in kinds:
        return False
    if kinds == {"matrix"}:
        return ours.form == theirs.form
    if "matrix" in kinds:
        column = ours if ours.kind == "matrix" else theirs
        return kinds == {"matrix", "round"} and column.form.endswith("x1")
    if len(ours.parts) > 2:
        return True
    return ours.form == theirs.form if "list" not in kinds else "square" not in kinds


def _in_order(ours: Sequence[str], theirs: Sequence[str], same: Same) -> bool:
    return all(same(one, other) for one, other in zip(ours, theirs, strict=True))


def _matched(ours: Sequence[str], theirs: Sequence[str], same: Same) -> bool:
    left = list(theirs)
    for position, one in enumerate(ours):
        # What stands in the same place, or is written the same, first
        order = sorted(range(len(left)), key=lambda index: (left[index] != one, abs(index - position)))
        found = next((index for index in order if same(one, left[index])), None)
        if found is None:
            return False
        del left[found]
    return True


def _labels(parts: Sequence[str]) -> list[str] | None:
    """What the parts are numbers of, when that is something else for each."""
    found = [_LABEL.fullmatch(part) for part in parts]
    labels = [(match[1] or match[2]).casefold() for match in found if match]
    return labels if len(labels) == len(parts) == len(set(labels)) else None


def _labelled(ours: Sequence[str], theirs: Sequence[str], labels: list[list[str] | None], same: Same) -> bool:
    one, other = labels
    if one is not None and other is not None and set(one) == set(other):
        theirs = [theirs[other.index(label)] for label in one]
    return _in_order(ours, theirs, same)


def _with_dots(ours: Shape, theirs: Shape, same: Same) -> bool:
    if "set" in (ours.kind, theirs.kind) and (ours.ordered or theirs.ordered):
        return False
    one, other = (_written_out(each.parts) for each in (ours, theirs))
    if one is not None and other is not None:
        return one == other
    if len(ours.parts) != len(theirs.parts):
        return False
    return all(
        bool(DOTS.fullmatch(mine)) == bool(DOTS.fullmatch(yours)) and (bool(DOTS.fullmatch(mine)) or same(mine, yours))
        for mine, yours in zip(ours.parts, theirs.parts, strict=True)
    )


def _written_out(parts: Sequence[str]) -> tuple[list[Fraction], bool] | None:
    """The numbers of a progression with dots, and whether it goes on for ever; then its first three."""
    places = [index for index, part in enumerate(parts) if DOTS.fullmatch(part)]
    numbers = [Fraction(int(part.replace(" ", ""))) for part in parts if _INTEGER.fullmatch(part)]
    if len(numbers) + len(places) != len(parts):
        return None
    if not places:
        return numbers, False
    if len(places) > 1 or places[0] < 2:
        return None
    first, last = numbers[: places[0]], numbers[places[0] :]
    following = _rule(first)
    if following is None:
        return None
    if not last:
        while len(first) < 3:
            first.append(following(first[-1]))
        return first[:3], True
    terms = list(first)
    while terms[-1] != last[0] and len(terms) < _MOST_TERMS and abs(terms[-1]) < 10**12:
        terms.append(following(terms[-1]))
    if terms[-1] != last[0]:
        return None
    for number in last[1:]:
        terms.append(following(terms[-1]))
        if terms[-1] != number:
            return None
    return terms, False


def _rule(first: Sequence[Fraction]) -> Callable[[Fraction], Fraction] | None:
    """What follows a term of an arithmetic progression, or of a geometric one of which three terms are known."""
    steps = {b - a for a, b in pairwise(first)}
    if len(steps) == 1 and 0 not in steps:
        step = steps.pop()
        return lambda term: term + step
    if len(first) > 2 and 0 not in first:
        ratios = {b / a for a, b in pairwise(first)}
        if len(ratios) == 1:
            ratio = ratios.pop()
            return lambda term: term * ratio
    return None
