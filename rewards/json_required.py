"""Which required keys of a value are there, and what of the schema goes unmet with the objects that are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Protocol, TypeAlias

from posttrain.rewards.json_schema import CheckedSchema
from posttrain.rewards.json_values import ArrayOrder, key, paired

Place: TypeAlias = tuple[Any, ...]
"""A keyword of the schema: the `id` of its sub-schema, the keyword and, of `required`, the key."""
MISSING: Any = object()
"""Stands for no value; `None` is JSON's null."""
_UNIONS = ("anyOf", "oneOf")
_MOST_KNOWN = 1000  # choices that a schema remembers


class Validation(Protocol):
    """What is asked of the validation, which may end everything by an exception when it takes too long."""

    def likeness(self, schema: Any, value: Any) -> tuple[Any, ...]:
        """First whether the value fits the sub-schema, then how nearly; the nearer, the greater."""

    def places(self, part: dict[str, Any], value: Any) -> set[Place]:
        """The sub-schema's own keywords that apply to the value."""

    def matches(self, pattern: str, text: str) -> bool:
        """Whether the pattern is found in the text."""


@dataclass
class Found:
    """The required keys of a value.

    Args:
        right: For each, by its place, whether it is there with a right type wherever it is required.
        unmet: Places that validation does not see as violated because what they are about is missing.
    """

    right: dict[Place, bool] = field(default_factory=dict)
    unmet: set[Place] = field(default_factory=set)

    @property
    def share(self) -> float:
        """The share of required keys that are right."""
        return sum(self.right.values()) / len(self.right)


@dataclass(frozen=True)
class _Spot:
    """A place of the value, the same of the gold, what judges both, and the outermost union on the way there."""

    schema: Any
    value: Any
    gold: Any
    union: Place | None = None

    @property
    def nothing(self) -> bool:
        return self.value is MISSING and self.gold is MISSING

    @property
    def like(self) -> Any:
        """What tells which branch of a union is meant: the gold, unless it is a scalar and the value is not."""
        gold_tells = isinstance(self.gold, dict | list) or self.value is MISSING
        like = self.gold if gold_tells else self.value
        return {} if like is MISSING else like


@dataclass
class Judge:
    """Looks for the required keys of a value, in all that judges it.

    Args:
        checked: The schema.
        order: Whether the order of arrays counts.
        validation: What can be asked about parts of the value.
    """

    checked: CheckedSchema
    order: ArrayOrder
    validation: Validation

    def required(self, value: Any, gold: Any) -> Found:
        """The required keys of `value`, and those that it lacks by the gold; MISSING where there is no gold."""
        found = Found({(0,): self._has_type(self.checked.contents, value)})
        absent: set[int] = set()
        waiting = [_Spot(self.checked.contents, value, gold)]
        while waiting:
            for part, spot in self._judges(waiting.pop()):
                if spot.nothing:
                    if id(part) in absent:  # counted already; a recursive schema ends here
                        continue
                    absent.add(id(part))
                self._look(found, part, spot)
                waiting += [_Spot(*child, spot.union) for child in self._children(part, spot)]
        return found

    def _judges(self, spot: _Spot) -> Iterator[tuple[dict[str, Any], _Spot]]:
        """The sub-schemas that judge a spot, of a union only the branch that fits best, and the spot under each."""
        seen: set[int] = set()
        waiting = [spot]
        while waiting:
            spot = waiting.pop()
            for part in self.checked.in_place(spot.schema):
                if id(part) in seen:
                    continue
                seen.add(id(part))
                yield part, spot
                for word, branch in self._branches(part, spot.like):
                    waiting.append(_Spot(branch, spot.value, spot.gold, spot.union or (id(part), word)))

    def _branches(self, part: dict[str, Any], like: Any) -> Iterator[tuple[str, Any]]:
        for word in _UNIONS:
            if word in part:
                yield word, self._nearest(part, word, like)
        if self.checked.draft.has(part, "if"):
            yield "if", part.get("then" if self.validation.likeness(part["if"], like)[0] else "else")

    def _nearest(self, part: dict[str, Any], word: str, like: Any) -> Any:
        """The branch that fits best. It is remembered: every completion of a row asks about the same gold."""
        if len(part[word]) == 1:
            return part[word][0]
        known, asked = self.checked.choices, (id(part), word, key(like))
        if asked not in known:
            ranks = [(*self.validation.likeness(each, like), self._has_type(each, {})) for each in part[word]]
            if len(known) >= _MOST_KNOWN:
                known.clear()
            known[asked] = part[word][ranks.index(max(ranks))]
        return known[asked]

    def _look(self, found: Found, part: dict[str, Any], spot: _Spot) -> None:
        """Notes which required keys of this part are there."""
        lost = isinstance(spot.gold, dict | list) and type(spot.value) is not type(spot.gold)
        if lost:
            found.unmet |= self.validation.places(part, spot.gold) | ({spot.union} if spot.union else set())
        if not self._needs_keys(part, spot):
            return
        here = spot.value if isinstance(spot.value, dict) else {}
        properties = part.get("properties", {})
        for name in part.get("required", ()):
            place = (id(part), "required", name)
            right = name in here and self._has_type(properties.get(name, True), here[name])
            found.right[place] = right and found.right.get(place, True)
            if name not in here:
                found.unmet |= {spot.union} if spot.union else set()
                found.unmet |= {place} if lost or spot.nothing or not spot.union else set()

    def _needs_keys(self, part: dict[str, Any], spot: _Spot) -> bool:
        if isinstance(spot.value, dict) or isinstance(spot.gold, dict):
            return True
        if spot.gold is not MISSING:
            return False
        return spot.value is MISSING or "type" not in part or not self._has_type(part, spot.value)

    def _has_type(self, schema: Any, value: Any) -> bool:
        """Whether the value has a type that the schema names, in a union by any branch."""
        known: dict[int, bool] = {}

        def allowed(schema: Any) -> bool:
            if not isinstance(schema, dict):
                return schema is not False
            if id(schema) not in known:
                known[id(schema)] = all(allows(part) for part in self.checked.in_place(schema))
            return known[id(schema)]

        def allows(part: dict[str, Any]) -> bool:
            kinds = part.get("type", ())
            kinds = [kinds] if isinstance(kinds, str) else kinds
            is_type = self.checked.draft.validator.TYPE_CHECKER.is_type
            return (not kinds or any(is_type(value, kind) for kind in kinds)) and all(
                any(map(allowed, part[word])) for word in _UNIONS if word in part
            )

        return allowed(schema)

    def _children(self, part: dict[str, Any], spot: _Spot) -> Iterator[tuple[Any, Any, Any]]:
        """What is inside a spot, each with the sub-schema that this part has for it."""
        here = spot.value if isinstance(spot.value, dict) else {}
        there = spot.gold if isinstance(spot.gold, dict) else {}
        properties = part.get("properties", {})
        required = part.get("required", ()) if self._needs_keys(part, spot) else ()
        for name, child in properties.items():
            if name in here or name in there or name in required:
                yield child, here.get(name, MISSING), there.get(name, MISSING)
        yield from self._others(part, here, there)
        yield from self._items(part, spot)

    def _others(self, part: dict[str, Any], here: Any, there: Any) -> Iterator[tuple[Any, Any, Any]]:
        """The keys that `properties` does not name."""
        patterns, rest = part.get("patternProperties", {}), part.get("additionalProperties", True)
        if not patterns and not isinstance(rest, dict):
            return
        for name in {**here, **there}:
            both = here.get(name, MISSING), there.get(name, MISSING)
            fitting = [child for pattern, child in patterns.items() if self.validation.matches(pattern, name)]
            if not fitting and name not in part.get("properties", {}):
                fitting = [rest]
            yield from ((child, *both) for child in fitting)

    def _items(self, part: dict[str, Any], spot: _Spot) -> Iterator[tuple[Any, Any, Any]]:
        """The items of an array beside the gold's, MISSING where one of the two has fewer."""
        here = spot.value if isinstance(spot.value, list) else []
        there = spot.gold if isinstance(spot.gold, list) else []
        first, rest = part.get("prefixItems", ()), part.get("items", True)
        if isinstance(rest, list):  # as up to draft 2019-09
            first, rest = rest, part.get("additionalItems", True)
        start = len(first)
        pairs = zip_longest(here[:start], there[:start], fillvalue=MISSING)
        yield from ((child, *pair) for child, pair in zip(first, pairs, strict=False))
        if isinstance(rest, dict):
            pairs, only_here, only_there = paired(there[start:], here[start:], self.order)
            yield from ((rest, item, wanted) for wanted, item in pairs)
            yield from ((rest, item, MISSING) for item in only_here)
            yield from ((rest, MISSING, wanted) for wanted in only_there)
