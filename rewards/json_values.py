"""Comparing JSON values as JSON Schema does: 1 equals 1.0, true is not 1, the order of keys means nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any, Literal, TypeAlias

ArrayOrder: TypeAlias = Literal["ordered", "any"]


def key(value: Any, order: ArrayOrder = "ordered") -> Hashable:
    """A hashable stand-in: two values are equal exactly when their keys are.

    Args:
        value: A JSON value.
        order: `any` takes arrays as bags: their items count, not the order.
    """
    if isinstance(value, dict):
        return ("object", frozenset((name, key(part, order)) for name, part in value.items()))
    if isinstance(value, list):
        items = [key(item, order) for item in value]
        return ("array", frozenset(Counter(items).items()) if order == "any" else tuple(items))
    if isinstance(value, bool) or value is None:
        return ("constant", str(value))
    return ("string" if isinstance(value, str) else "number", value)


def leaves(value: Any) -> int:
    """How many scalars and empty containers a value is made of."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(leaves, parts)) if parts else 1


def leaf_f1(gold: Any, said: Any, order: ArrayOrder = "ordered") -> float:
    """F1 of the leaves (scalars and empty containers) that are the same at the same place.

    Items of arrays are matched by their index; with `order="any"` equal items first, then the others in turn.
    """
    return 2 * _shared(gold, said, order) / (leaves(gold) + leaves(said))


def _shared(gold: Any, said: Any, order: ArrayOrder) -> int:
    if isinstance(gold, dict) and isinstance(said, dict) and gold and said:
        return sum(_shared(part, said[name], order) for name, part in gold.items() if name in said)
    if isinstance(gold, list) and isinstance(said, list) and gold and said:
        equal, rest_gold, rest_said = matched(gold, said, order)
        pairs = zip(rest_gold, rest_said, strict=False)
        return sum(map(leaves, equal)) + sum(_shared(one, other, order) for one, other in pairs)
    return int(key(gold, order) == key(said, order))


def matched(gold: list[Any], said: list[Any], order: ArrayOrder) -> tuple[list[Any], list[Any], list[Any]]:
    """Which items of two arrays belong together: (equal ones, the gold's others, the others of `said`).

    The others go together by their index. In order, all are among the others.
    """
    if order == "ordered":
        return [], gold, said
    both = Counter(key(item, order) for item in gold) & Counter(key(item, order) for item in said)
    equal, rest_gold = _without(gold, both, order)
    return equal, rest_gold, _without(said, both, order)[1]


def _without(items: list[Any], taken: Counter[Hashable], order: ArrayOrder) -> tuple[list[Any], list[Any]]:
    """The items that are among `taken`, and the others."""
    left, inside, rest = taken.copy(), [], []
    for item in items:
        name = key(item, order)
        if left[name]:
            left[name] -= 1
            inside.append(item)
        else:
            rest.append(item)
    return inside, rest
