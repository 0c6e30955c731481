"""How far a value is from its schema: the share of violated keywords, and of required keys that are there.

Validation is `jsonschema`'s. Each of its keywords is wrapped to count itself and to look at the clock. Those that could
take long in one go have a version of their own here: patterns (matched by `regex`, which takes a time limit),
`uniqueItems` and `multipleOf` (exact: 19.99 is a multiple of 0.01).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import zip_longest
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry

from posttrain.rewards.json_schema import CheckedSchema, compiled
from posttrain.rewards.json_values import ArrayOrder, key, matched

_GROUPS = {
    "object": "required dependentRequired minProperties maxProperties additionalProperties propertyNames "
    "unevaluatedProperties",
    "array": "minItems maxItems uniqueItems contains unevaluatedItems",
    "string": "minLength maxLength pattern",
    "number": "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf",
}
_APPLIES_TO = {word: kind for kind, words in _GROUPS.items() for word in words.split()}
#: Keywords that only hand the value on; what they lead to counts for itself.
_HAND_ON = frozenset(
    [
        "$ref",
        "$dynamicRef",
        "allOf",
        "properties",
        "patternProperties",
        "items",
        "prefixItems",
        "dependentSchemas",
        "format",
    ]
)
#: Keywords that count as one, whatever is inside them.
_AS_ONE = frozenset(
    ["anyOf", "oneOf", "not", "if", "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties"]
)
_KEPT_PROBLEMS = 3
MISSING: Any = object()
"""Stands for no value; `None` is JSON's null."""


class TooLong(Exception):
    """Checking the value took longer than it may."""


@dataclass(frozen=True)
class Grade:
    """How well a value fits its schema.

    Args:
        valid: 1 - violated / applied, over the distinct keywords of the schema that apply to the value.
        structure: The share of required keys that are there with the right type.
        problems: The first violations, in words.
    """

    valid: float
    structure: float
    problems: list[str]


@dataclass
class _Tally:
    deadline: float
    applied: set[tuple[Any, ...]] = field(default_factory=set)
    violated: set[tuple[Any, ...]] = field(default_factory=set)
    inside: int = 0

    def left(self) -> float:
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TooLong
        return seconds

    def add(self, place: tuple[Any, ...], *, violated: bool) -> None:
        self.applied.add(place)
        if violated:
            self.violated.add(place)


_TALLY: ContextVar[_Tally] = ContextVar("json_tally")


def grade(
    schema: CheckedSchema,
    value: Any,
    *,
    gold: Any = MISSING,
    array_order: ArrayOrder = "ordered",
    time_limit_s: float = 2.0,
) -> Grade:
    """How well `value` fits `schema`.

    `valid` counts each keyword once for each place in the schema, not for each value it meets, so that a long array
    can't water a violation down. `required` counts once for each key. A keyword for another type of value (`minimum`
    on a string) does not apply. What is inside `anyOf`, `oneOf`, `not`, `if` and `contains` counts as that one keyword.

    `structure` counts the root's type and each `required` key once for each place in the schema: right when the key
    is there, with a value of the type that its schema names, in every object it is required in. The keys that a
    missing object would have had to have are missing too; with a `gold`, also those of the items that it has more of,
    and of its objects and items under keys that may be absent: leaving out an item never counts for more than an item
    with a key missing. It looks through `$ref`, `allOf`, `properties` and `items`. Where a value other than an object
    is right, by the type that the schema names or by the gold, it needs no keys.

    Raises:
        TooLong: The limit has passed, or there was no depth of calls left.
    """
    tally = _Tally(time.monotonic() + time_limit_s)
    token = _TALLY.set(tally)
    try:
        errors = list(_VALIDATOR(schema.contents, registry=Registry()).iter_errors(value))
        structure = _structure(schema, value, gold, array_order, tally)
    except RecursionError:
        raise TooLong from None
    finally:
        _TALLY.reset(token)
    valid = 1 - len(tally.violated) / len(tally.applied) if tally.applied else 1.0
    if errors and not tally.violated:  # the schema is `false`
        valid = 0.0
    return Grade(valid, structure, [_in_words(error) for error in errors[:_KEPT_PROBLEMS]])


def _in_words(error: ValidationError) -> str:
    message = error.message if len(error.message) <= 120 else error.message[:70] + " ... " + error.message[-45:]
    return f"{error.json_path[:80]}: {message}" if error.path else message


def _counted(word: str, check: Callable[..., Any]) -> Callable[..., Any]:
    def run(validator: Any, value: Any, instance: Any, schema: Any) -> list[ValidationError]:
        tally = _TALLY.get()
        tally.left()
        tally.inside += word in _AS_ONE
        try:
            errors = list(check(validator, value, instance, schema) or ())
        finally:
            tally.inside -= word in _AS_ONE
        if not tally.inside:
            _count(tally, word, value, instance, schema, errors, validator)
        return errors

    return run


def _count(
    tally: _Tally, word: str, value: Any, instance: Any, schema: Any, errors: list[ValidationError], validator: Any
) -> None:
    if word in _HAND_ON or (word == "additionalProperties" and isinstance(value, dict)):
        for error in errors:
            if not isinstance(error.validator, str):  # a `false` sub-schema
                tally.add((id(schema), word), violated=True)
                error.validator = word
    elif word in _APPLIES_TO and not validator.is_type(instance, _APPLIES_TO[word]):
        return
    elif word == "required":
        for name in value:
            tally.add((id(schema), word, name), violated=name not in instance)
    else:
        tally.add((id(schema), word), violated=bool(errors))


def _matches(pattern: str, text: str) -> bool:
    try:
        return compiled(pattern).search(text, timeout=_TALLY.get().left()) is not None
    except TimeoutError:
        raise TooLong from None


def _pattern(validator: Any, value: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not _matches(value, instance):
        yield ValidationError(f"{instance!r} does not match {value!r}")


def _pattern_properties(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "object"):
        for pattern, part in value.items():
            for name, each in instance.items():
                if _matches(pattern, name):
                    yield from validator.descend(each, part, path=name, schema_path=pattern)


def _additional_properties(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    patterns = schema.get("patternProperties", {})
    known = schema.get("properties", {})
    extra = [name for name in instance if name not in known and not any(_matches(each, name) for each in patterns)]
    if isinstance(value, dict):
        for name in extra:
            yield from validator.descend(instance[name], value, path=name)
    elif not value and extra:
        yield ValidationError("keys that are not allowed: " + ", ".join(map(repr, extra[:5])))


def _unique_items(validator: Any, value: bool, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if value and validator.is_type(instance, "array") and len({key(item) for item in instance}) < len(instance):
        yield ValidationError(f"{instance!r} has equal items")


def _multiple_of(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "number") and (Fraction(repr(instance)) / Fraction(repr(value))).denominator != 1:
        yield ValidationError(f"{instance!r} is not a multiple of {value!r}")


_OURS = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
    "multipleOf": _multiple_of,
}
_VALIDATOR: Any = extend(
    Draft202012Validator,
    {word: _counted(word, _OURS.get(word, check)) for word, check in Draft202012Validator.VALIDATORS.items()},
)


def _structure(checked: CheckedSchema, value: Any, gold: Any, order: ArrayOrder, tally: _Tally) -> float:
    right: dict[tuple[int, str | None], bool] = {(0, None): _has_type(checked, checked.contents, value)}
    absent: set[int] = set()
    waiting = [(checked.contents, value, gold)]
    while waiting:
        tally.left()
        schema, value, gold = waiting.pop()
        for part in checked.in_place(schema):
            if value is MISSING and gold is MISSING:
                if id(part) in absent:  # counted already; a recursive schema ends here
                    continue
                absent.add(id(part))
            properties = part.get("properties", {})
            required = part.get("required", ()) if _needs_keys(checked, part, value, gold) else ()
            here = value if isinstance(value, dict) else {}
            there = gold if isinstance(gold, dict) else {}
            for name in required:
                ok = name in here and _has_type(checked, properties.get(name, True), here[name])
                right[id(part), name] = ok and right.get((id(part), name), True)
            waiting += [
                (child, here.get(name, MISSING), there.get(name, MISSING))
                for name, child in properties.items()
                if name in here or name in there or name in required
            ]
            if "items" in part:
                waiting += [(part["items"], *pair) for pair in _pairs(part, value, gold, order)]
    return sum(right.values()) / len(right)


def _has_type(checked: CheckedSchema, schema: Any, value: Any) -> bool:
    for part in checked.in_place(schema):
        kinds = part.get("type")
        if kinds and not any(_is_type(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
            return False
    return schema is not False


_is_type = Draft202012Validator({}).is_type


def _needs_keys(checked: CheckedSchema, part: dict[str, Any], value: Any, gold: Any) -> bool:
    if isinstance(value, dict) or isinstance(gold, dict):
        return True
    if gold is not MISSING:
        return False
    return value is MISSING or "type" not in part or not _has_type(checked, part, value)


def _pairs(part: dict[str, Any], value: Any, gold: Any, order: ArrayOrder) -> list[tuple[Any, Any]]:
    """The items of an array beside the gold's, MISSING where one of the two has fewer."""
    start = len(part.get("prefixItems", ()))
    here = value[start:] if isinstance(value, list) else []
    there = gold[start:] if isinstance(gold, list) else []
    equal, rest_gold, rest_here = matched(there, here, order)
    return [*((item, item) for item in equal), *zip_longest(rest_here, rest_gold, fillvalue=MISSING)]
