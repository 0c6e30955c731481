"""Comparing JSON values as JSON Schema does: 1 equals 1.0, true is not 1, the order of keys means nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any, Literal, TypeAlias

ArrayOrder: TypeAlias = Literal["ordered", "any"]
_MOST_COMPARED = 100_000  # pairs of leaves; arrays with more are compared by their index


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

    Items of arrays go together as `paired` says. A null or an empty container that stands for something else of the
    gold says nothing, and counts as nothing said: filling a place with it is neither better nor worse than leaving it.
    """
    shared, leaves_said = _compared(gold, said, order)
    return 2 * shared / (leaves(gold) + leaves_said)


def _compared(gold: Any, said: Any, order: ArrayOrder) -> tuple[int, int]:
    """How many leaves are shared, and how many are said."""
    if isinstance(gold, dict) and isinstance(said, dict) and gold and said:
        pairs = [(gold[name], part) for name, part in said.items() if name in gold]
        others = [part for name, part in said.items() if name not in gold]
    elif isinstance(gold, list) and isinstance(said, list) and gold and said:
        pairs, others, _ = paired(gold, said, order)
    elif key(gold, order) == key(said, order):
        return 1, 1
    else:
        return 0, 0 if said in (None, [], {}) else leaves(said)
    found = [_compared(*pair, order) for pair in pairs]
    return sum(shared for shared, _ in found), sum(count for _, count in found) + sum(map(leaves, others))


def paired(gold: list[Any], said: list[Any], order: ArrayOrder) -> tuple[list[tuple[Any, Any]], list[Any], list[Any]]:
    """Which items of two arrays are compared with one another, the rest of `said`, and the rest of the gold.

    In any order, equal items go together first. The others go together by their index; where one array is shorter, its
    items go to those of the longer one, in their order, with which they share most, so that one item left out does not
    spoil all after it.
    """
    equal, gold, said = matched(gold, said, order)
    same = [(item, item) for item in equal]
    few = min(len(gold), len(said))
    if len(gold) == len(said) or not few or leaves(gold) * leaves(said) > _MOST_COMPARED:
        return same + list(zip(gold, said, strict=False)), said[few:], gold[few:]
    short, long = sorted((gold, said), key=len)
    places = _embedded(short, long, order)
    taken = set(places)
    rest = [item for place, item in enumerate(long) if place not in taken]
    if short is said:
        return same + [(long[place], item) for item, place in zip(short, places, strict=True)], [], rest
    return same + [(item, long[place]) for item, place in zip(short, places, strict=True)], rest, []


def _embedded(short: list[Any], long: list[Any], order: ArrayOrder) -> list[int]:
    """The rising indices of `long` at which its items share most leaves with those of `short`."""
    room = len(long) - len(short)
    shared = [[_compared(long[i + s], item, order)[0] for s in range(room + 1)] for i, item in enumerate(short)]
    best = [0] * (room + 1)  # what the items from i on share, when s of `long` have been passed over before them
    passed = []  # whether to pass over one more
    for row in reversed(shared):
        best = [one + rest for one, rest in zip(row, best, strict=True)]
        more = [False] * (room + 1)
        for s in reversed(range(room)):
            more[s] = best[s + 1] > best[s]
            best[s] = max(best[s], best[s + 1])
        passed.append(more)
    places, s = [], 0
    for i, more in enumerate(reversed(passed)):
        while more[s]:
            s += 1
        places.append(i + s)
    return places


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
