"""A row's JSON Schema, checked before it judges anything.

Refused: what is no valid schema of its draft (`json_drafts.py`), a `$ref` that leaves the document (nothing is ever
fetched), a reference that leads back to itself without going deeper into the value, and patterns that can't be compiled
or are too large. `format` is an annotation, as the newest draft has it, and never fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import regex
from jsonschema import FormatChecker
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable

from posttrain.errors import RewardError
from posttrain.rewards.json_drafts import Draft, draft_of
from posttrain.rewards.json_patterns import LARGEST, compiled, written_out
from posttrain.rewards.json_text import NotJson, parse, shorten

_IN_PLACE = ("not", "if", "then", "else")
_IN_PLACE_LISTS = ("allOf", "anyOf", "oneOf")
_IN_PLACE_MAPS = ("dependentSchemas", "dependencies")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


@dataclass(frozen=True)
class CheckedSchema:
    """A schema that is fit to judge a value.

    Args:
        contents: The schema itself, without `$schema`.
        draft: The draft it is written in.
        targets: What each sub-schema with a reference refers to, by the sub-schema's `id`.
        resolvers: What each sub-schema's references are resolved by, by its `id`.
        validators: What validates by each sub-schema, by its `id`, as far as it was asked for.
        choices: Which branch of a union is meant by a value, by the union's place and the value, as far as known.
    """

    contents: Any
    draft: Draft
    targets: dict[int, list[Any]] = field(default_factory=dict)
    resolvers: dict[int, Any] = field(default_factory=dict)
    validators: dict[int, Any] = field(default_factory=dict)
    choices: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def in_place(self, schema: Any) -> Iterator[dict[str, Any]]:
        """The sub-schema and all that it demands of the same value without condition: references and `allOf`."""
        seen: set[int] = set()
        waiting = [schema]
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict) and id(part) not in seen:
                seen.add(id(part))
                waiting += self.targets.get(id(part), ())
                if not (self.draft.lone_references and "$ref" in part):
                    yield part
                    waiting += part.get("allOf", ())


def load_schema(schema: str | dict[str, Any] | bool) -> CheckedSchema:
    """The row's schema, given as JSON text or as the object itself.

    Raises:
        RewardError: It can't be used; see the module.
    """
    try:
        return _load(schema if isinstance(schema, str) else json.dumps(schema))
    except (TypeError, ValueError, RecursionError) as error:
        raise _refuse(f"{shorten(schema)}: {error}", "a JSON Schema as JSON text") from None


@lru_cache(maxsize=4096)
def _load(text: str) -> CheckedSchema:
    try:
        contents = parse(text)
    except NotJson as error:
        raise _refuse(str(error), "a JSON Schema as JSON text") from None
    draft = draft_of(contents)
    try:
        # Patterns are checked below: Python's own `re`, which would be asked here, knows no \p{...}
        draft.validator.check_schema(contents, format_checker=FormatChecker(formats=()))
        checked = CheckedSchema(contents, draft)
        _check_parts(checked)
    except SchemaError as error:
        raise _refuse(f"{error.json_path}: {error.message[:200]}", f"a valid JSON Schema, {draft.name}") from None
    except RecursionError:
        raise _refuse("nested too deeply to be checked", "a flatter schema") from None
    return checked


def _refuse(seen: str, expected: str) -> RewardError:
    return RewardError(seen, expected=expected, where="schema")


def _check_parts(checked: CheckedSchema) -> None:
    """Visits every sub-schema, resolves its references inside the document, and looks for endless ones."""
    draft = checked.draft
    root = draft.specification.create_resource(checked.contents)
    registry: Registry[Any] = Registry().with_resource("", root)
    waiting = [(checked.contents, registry.resolver_with_root(root))]
    parts: dict[int, dict[str, Any]] = {}
    while waiting:
        part, resolver = waiting.pop()
        if not isinstance(part, dict) or id(part) in parts:
            continue
        parts[id(part)] = part
        if draft_of(part, draft) is not draft:
            raise _refuse(f"$schema {shorten(part['$schema'])} inside a schema of {draft.name}", "one draft for all")
        part.pop("$schema", None)  # where it stands, `jsonschema` would go on with a validator of its own
        _check_patterns(part)
        resolver = resolver.in_subresource(draft.specification.create_resource(part))
        checked.resolvers[id(part)] = resolver
        for reference in (part[word] for word in _REFERENCES if draft.has(part, word)):
            try:
                target = resolver.lookup(reference)
            except (Unresolvable, ValueError, TypeError, AttributeError):
                seen = f"a reference to {shorten(reference)}"
                raise _refuse(seen, "one that stays inside the schema; nothing is fetched") from None
            if not isinstance(target.contents, dict | bool):
                raise _refuse(f"a reference to {shorten(reference)}, which is no schema", "a schema there")
            checked.targets.setdefault(id(part), []).append(target.contents)
            waiting.append((target.contents, target.resolver))
        waiting += [(each, resolver) for each in draft.specification.subresources_of(part)]
    _check_ends(checked, parts)


def _check_ends(checked: CheckedSchema, parts: dict[int, dict[str, Any]]) -> None:
    """Refuses references that come back to where they started without going into the value."""
    finished: set[int] = set()
    for start in parts:
        path: list[tuple[int, Iterator[int]]] = [(start, _same_value(checked, parts, start))]
        on_path = {start}
        while path:
            here, following = path[-1]
            child = next((each for each in following if each not in finished), None)
            if child is None:
                finished.add(here)
                on_path.discard(here)
                path.pop()
            elif child in on_path:
                raise _refuse(
                    f"{shorten(parts[child])} refers to itself without end", "references that go deeper into the value"
                )
            else:
                on_path.add(child)
                path.append((child, _same_value(checked, parts, child)))


def _same_value(checked: CheckedSchema, parts: dict[int, dict[str, Any]], here: int) -> Iterator[int]:
    """The sub-schemas that judge the same value as the one here does."""
    part = parts[here]
    judges = [*checked.targets.get(id(part), ()), *(part[word] for word in _IN_PLACE if word in part)]
    judges += [each for word in _IN_PLACE_LISTS for each in part.get(word, ())]
    judges += [each for word in _IN_PLACE_MAPS if checked.draft.has(part, word) for each in part[word].values()]
    return (id(each) for each in judges if id(each) in parts)  # a draft may not know the keyword


def _check_patterns(part: dict[str, Any]) -> None:
    for source in [*part.get("patternProperties", {}), *([part["pattern"]] if "pattern" in part else [])]:
        if written_out(source) > LARGEST:
            raise _refuse(f"the pattern {shorten(source)}", "fewer repetitions inside one another")
        try:
            compiled(source)
        except regex.error as error:
            raise _refuse(f"the pattern {shorten(source)}: {error}", "a regular expression") from None
