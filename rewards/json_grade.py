"""How far a value is from its schema: the share of violated keywords, and of required keys that are there.

Validation is `jsonschema`'s. Each of its keywords is wrapped to count itself and to look at the clock. Those that could
take long in one go have a version of their own here: what has patterns (matched by `regex`, which takes a time limit),
`uniqueItems` and `multipleOf` (exact: 19.99 is a multiple of 0.01).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry

from posttrain.rewards.json_drafts import Draft
from posttrain.rewards.json_evaluated import evaluated_keys
from posttrain.rewards.json_patterns import compiled
from posttrain.rewards.json_required import MISSING, Found, Judge, Place
from posttrain.rewards.json_schema import CheckedSchema
from posttrain.rewards.json_values import ArrayOrder, key

_GROUPS = {
    "object": "required dependentRequired dependencies minProperties maxProperties additionalProperties propertyNames "
    "unevaluatedProperties",
    "array": "minItems maxItems uniqueItems contains additionalItems unevaluatedItems",
    "string": "minLength maxLength pattern",
    "number": "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf",
}
_APPLIES_TO = {word: kind for kind, words in _GROUPS.items() for word in words.split()}
_KINDS = {
    "hand on": "$ref $dynamicRef $recursiveRef allOf properties patternProperties items prefixItems dependentSchemas "
    "format",
    "as one": "anyOf oneOf not if contains propertyNames dependencies unevaluatedItems unevaluatedProperties",
}
_HAND_ON = frozenset(_KINDS["hand on"].split())  # hand the value on; what they lead to counts for itself
_REST = frozenset(["additionalProperties", "additionalItems"])  # so do these, if they are no boolean
_AS_ONE = frozenset(_KINDS["as one"].split())  # count as one, whatever is inside them
_KEPT_PROBLEMS = 3


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
    checked: CheckedSchema
    applied: set[Place] = field(default_factory=set)
    violated: set[Place] = field(default_factory=set)
    inside: int = 0

    def left(self) -> float:
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TooLong
        return seconds

    def add(self, place: Place, *, violated: bool) -> None:
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
    An object that is missing violates what is required of it, or leaving it out would be better than to begin it; so
    does an object or array of the gold that is missing or null.

    `structure` counts the root's type and each `required` key once for each place in the schema: right when the key
    is there, with a value of the type that its schema names, in every object it is required in. The keys that a
    missing object would have had to have are missing too; with a `gold`, also those of the items that it has more of,
    and of its objects and items under keys that may be absent: leaving out an item never counts for more than an item
    with a key missing. It looks through everything that judges a value or what is inside it; of `anyOf`, `oneOf` and
    `if` only the branch that fits best counts: the gold's, or the value's own where the gold has nothing. Where a value
    other than an object is right, by the type that the schema names or by the gold, it needs no keys.

    Raises:
        TooLong: The limit has passed, or there was no depth of calls left.
    """
    tally = _Tally(time.monotonic() + time_limit_s, schema)
    try:
        errors = _errors(tally, schema.contents, value)
        found = Found({(0,): True})
        if errors or (gold is not MISSING and key(value) != key(gold)):
            found = Judge(schema, array_order, _Validation(tally)).required(value, gold)
    except RecursionError:
        raise TooLong from None
    applied, violated = tally.applied | found.unmet, tally.violated | found.unmet
    valid = 1 - len(violated) / len(applied) if applied else 1.0
    if errors and not violated:  # the schema is `false`
        valid = 0.0
    return Grade(valid, found.share, [_in_words(error) for error in errors[:_KEPT_PROBLEMS]])


def _errors(tally: _Tally, schema: Any, value: Any) -> list[ValidationError]:
    """The violations, counted in the tally."""
    token = _TALLY.set(tally)
    try:
        return list(_validator(tally.checked, schema).iter_errors(value))
    finally:
        _TALLY.reset(token)


def _validator(checked: CheckedSchema, schema: Any) -> Any:
    """What validates by a sub-schema, with references as they are at its place."""
    if id(schema) not in checked.validators:
        validator = _class(checked.draft)(checked.contents, registry=Registry())
        if schema is not checked.contents:
            resolver = checked.resolvers.get(id(schema))
            validator = validator.evolve(schema=schema, **({"_resolver": resolver} if resolver else {}))
        checked.validators[id(schema)] = validator
    return checked.validators[id(schema)]


@dataclass
class _Validation:
    """What the search for required keys asks, within the same time limit."""

    tally: _Tally

    def likeness(self, schema: Any, value: Any) -> tuple[Any, ...]:
        """Whether the value fits, how many keywords it meets, and how many not: what asks for more is nearer."""
        tally = _Tally(self.tally.deadline, self.tally.checked)
        errors = _errors(tally, schema, value)
        return not errors, len(tally.applied - tally.violated), len(tally.violated)

    def places(self, part: dict[str, Any], value: Any) -> set[Place]:
        """The keywords of the sub-schema that apply to the value, but those that only hand it on."""
        validator = self.tally.checked.draft.validator
        words = (word for word in part if word in validator.VALIDATORS and not _hands_on(word, part[word]))
        return {
            place
            for word in words
            if word not in _APPLIES_TO or validator.TYPE_CHECKER.is_type(value, _APPLIES_TO[word])
            for place in _places(part, word)
        }

    def matches(self, pattern: str, text: str) -> bool:
        """Whether the pattern is found."""
        return _matches(pattern, text, self.tally)


def _hands_on(word: str, value: Any) -> bool:
    return word in _HAND_ON or (word in _REST and isinstance(value, dict))


def _places(schema: dict[str, Any], word: str) -> list[Place]:
    if word == "required":
        return [(id(schema), word, name) for name in schema[word]]
    return [(id(schema), word)]


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
    if _hands_on(word, value):
        for error in errors:
            if not isinstance(error.validator, str):  # a `false` sub-schema
                tally.add((id(schema), word), violated=True)
                error.validator = word
    elif word in _APPLIES_TO and not validator.is_type(instance, _APPLIES_TO[word]):
        return
    elif word == "required":
        for place in _places(schema, word):
            tally.add(place, violated=place[2] not in instance)
    else:
        tally.add((id(schema), word), violated=bool(errors))


def _matches(pattern: str, text: str, tally: _Tally | None = None) -> bool:
    try:
        return compiled(pattern).search(text, timeout=(tally or _TALLY.get()).left()) is not None
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


def _unevaluated_properties(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    tally = _TALLY.get()
    asked = _Validation(tally)
    known = evaluated_keys(tally.checked, schema, instance, lambda each, of: asked.likeness(each, of)[0], asked.matches)
    extra = [name for name in instance if name not in known]
    if value is False and extra:
        yield ValidationError("keys that are not allowed: " + ", ".join(map(repr, extra[:5])))
    elif isinstance(value, dict):
        for name in extra:
            yield from validator.descend(instance[name], value, path=name)


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
    "unevaluatedProperties": _unevaluated_properties,
    "uniqueItems": _unique_items,
    "multipleOf": _multiple_of,
}


@cache
def _class(draft: Draft) -> Any:
    """The draft's class of validators, of keywords that count themselves."""
    theirs = draft.validator.VALIDATORS
    return extend(draft.validator, {word: _counted(word, _OURS.get(word, check)) for word, check in theirs.items()})
