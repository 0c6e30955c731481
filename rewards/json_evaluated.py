"""Which keys of an object a schema looks at: what `unevaluatedProperties` leaves out.

`jsonschema` has its own of this, which asks Python's `re` for `patternProperties`: another language of patterns, and
without a time limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from posttrain.rewards.json_schema import CheckedSchema


def evaluated_keys(
    checked: CheckedSchema,
    schema: dict[str, Any],
    value: dict[str, Any],
    fits: Callable[[Any, Any], bool],
    matches: Callable[[str, str], bool],
) -> set[str]:
    """The keys of `value` that the sub-schema looks at by anything but its own `unevaluatedProperties`.

    Args:
        checked: The whole schema.
        schema: The sub-schema.
        value: The object.
        fits: Whether a value fits a sub-schema; what does not fit looks at nothing.
        matches: Whether a pattern is found in a key.
    """
    keys: set[str] = set()
    waiting: list[Any] = [schema]
    while waiting:
        for part in checked.in_place(waiting.pop()):
            if "additionalProperties" in part or ("unevaluatedProperties" in part and part is not schema):
                return set(value)
            keys.update(name for name in part.get("properties", ()) if name in value)
            keys.update(name for name in value for each in part.get("patternProperties", ()) if matches(each, name))
            waiting += _branches(part, value, fits)
    return keys


def _branches(part: dict[str, Any], value: dict[str, Any], fits: Callable[[Any, Any], bool]) -> Iterator[Any]:
    """What else judges the same value, and holds."""
    for word in ("anyOf", "oneOf"):
        yield from (each for each in part.get(word, ()) if fits(each, value))
    if "if" in part:
        holds = fits(part["if"], value)
        yield part["if"] if holds else True
        yield part.get("then" if holds else "else", True)
    yield from (each for name, each in part.get("dependentSchemas", {}).items() if name in value)
