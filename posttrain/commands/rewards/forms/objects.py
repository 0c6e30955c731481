"""Of a gold value of JSON: the same value in other white space and order, and values that lack or change one thing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from posttrain.commands.rewards.forms import Form


def forms(gold: Any) -> Iterator[Form]:
    """Whole completions.

    Args:
        gold: A value of JSON, not its text.
    """
    yield Form("compact", json.dumps(gold, ensure_ascii=False, separators=(",", ":")), True)
    yield Form("indented", json.dumps(gold, ensure_ascii=False, indent=2), True)
    yield Form("white space around", f"\n\n{json.dumps(gold, ensure_ascii=False, indent=4)}\n", True)
    if (turned := _turned(gold)) is not gold:
        yield Form("keys in another order", json.dumps(turned, ensure_ascii=False), True)
    escaped = json.dumps(gold)
    if escaped != json.dumps(gold, ensure_ascii=False):
        yield Form("letters escaped", escaped, True)

    for kind, change in _CHANGES.items():
        changed = copy.deepcopy(gold)
        if change(changed):
            yield Form(kind, json.dumps(changed, ensure_ascii=False), False)
    yield Form("cut short", json.dumps(gold, ensure_ascii=False)[:-1], False)


def _turned(value: Any) -> Any:
    """The value with the keys of each object from the last to the first; itself where there is nothing to turn."""
    if isinstance(value, dict):
        if len(value) > 1 or any(_turned(each) is not each for each in value.values()):
            return {key: _turned(each) for key, each in reversed(value.items())}
    elif isinstance(value, list) and any(_turned(each) is not each for each in value):
        return [_turned(each) for each in value]
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container and key or index in it, from the top."""
    inside = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else [])
    for key, _ in inside:
        yield value, key
    for _, each in inside:
        yield from _places(each)


def _remove_key(value: Any) -> bool:
    place = next(((where, key) for where, key in reversed(list(_places(value))) if isinstance(where, dict)), None)
    if place:
        del place[0][place[1]]
    return place is not None


def _remove_item(value: Any) -> bool:
    place = next(((where, key) for where, key in reversed(list(_places(value))) if isinstance(where, list)), None)
    if place:
        del place[0][place[1]]
    return place is not None


def _rename_key(value: Any) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    key = next(iter(value))
    value[f"{key}_"] = value.pop(key)
    return True


def _spoil(kind: type, change: Callable[[Any], Any]) -> Callable[[Any], bool]:
    def spoil(value: Any) -> bool:
        for where, key in _places(value):
            if type(where[key]) is kind:
                where[key] = change(where[key])
                return True
        return False

    return spoil


_CHANGES: dict[str, Callable[[Any], bool]] = {
    "a key removed": _remove_key,
    "a key renamed": _rename_key,
    "an item removed": _remove_item,
    "another number": _spoil(int, lambda value: value + 1),
    "another decimal": _spoil(float, lambda value: value + 0.5),
    "another text": _spoil(str, lambda value: value + "x"),
    "true for false": _spoil(bool, lambda value: not value),
    "a number as text": _spoil(int, str),
}
