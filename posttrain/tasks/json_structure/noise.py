"""Wrong demonstrations: some values are of another text."""

from __future__ import annotations

import copy
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str | int, ...]


def values_by_place(golds: Sequence[Any]) -> dict[Path, list[Any]]:
    """What stands in the gold values at each place (keys, and indices of arrays), each value once, in their order."""
    found: dict[Path, dict[str, Any]] = defaultdict(dict)
    for gold in golds:
        for path, value in leaves(gold):
            found[path].setdefault(json.dumps(value), value)
    return {path: list(values.values()) for path, values in found.items()}


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each value that is no object and no array with anything in it, and its place."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inside = [(*path, key) for key, _ in items]
    if not inside:
        yield path, value
    for place in inside:
        yield from leaves(value[place[-1]], place)


def with_wrong_values(gold: Any, elsewhere: Mapping[Path, Sequence[Any]], rng: random.Random) -> Any:
    """The gold value with half of its leaves, rounded up, replaced by what stands in the same place of another text.

    Where no other text has another value there, one of the same kind is made up: a number one more, a truth value
    turned, a text with a letter twice.
    """
    wrong = copy.deepcopy(gold)
    places = list(leaves(gold))
    for path, value in rng.sample(places, (len(places) + 1) // 2):
        others = [other for other in elsewhere.get(path, ()) if other != value and type(other) is type(value)]
        wrong = _replaced(wrong, path, rng.choice(others) if others else _made_up(value))
    return wrong


def _replaced(value: Any, path: Path, new: Any) -> Any:
    if not path:
        return new
    inside = value
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = new
    return value


def _made_up(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + value[-1:] if value else "unknown"
    return "unknown" if value is None else {"unknown": True} if isinstance(value, dict) else ["unknown"]
