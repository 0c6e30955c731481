"""A row's JSON Schema (Draft 2020-12), checked before it judges anything.

Refused: what is no valid schema or of another draft, a `$ref` that leaves the document (nothing is ever fetched), a
reference that leads back to itself without going deeper into the value, and patterns that can't be compiled or are
too large. `format` is an annotation, as the draft has it, and never fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import regex
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from posttrain.errors import RewardError
from posttrain.rewards.json_text import NotJson, parse, shorten

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_IN_PLACE = ("not", "if", "then", "else")
_IN_PLACE_LISTS = ("allOf", "anyOf", "oneOf")
_REFERENCES = ("$ref", "$dynamicRef")
_LARGEST_PATTERN = 20_000  # characters to match once every repetition is written out
_PATTERN_PART = re.compile(
    r"(?P<escape>\\(?:[pPxu]\{[^{}]*\}|.))|\[\^?\]?(?P<set>(?:[^\]\\]|\\.)*)\]|\{\d+(?:,(?P<most>\d*))?\}|.", re.DOTALL
)
_ASCII = {r"\d": "0-9", r"\w": "A-Za-z0-9_"}


@dataclass(frozen=True)
class CheckedSchema:
    """A schema that is fit to judge a value.

    Args:
        contents: The schema itself.
        targets: What each sub-schema with a `$ref` refers to, by the sub-schema's `id`.
    """

    contents: Any
    targets: dict[int, list[Any]]

    def in_place(self, schema: Any) -> Iterator[dict[str, Any]]:
        """The sub-schema and all that it demands of the same value without condition: `$ref` and `allOf`."""
        seen: set[int] = set()
        waiting = [schema]
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict) and id(part) not in seen:
                seen.add(id(part))
                yield part
                waiting += [*self.targets.get(id(part), ()), *part.get("allOf", ())]


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
    try:
        _check_draft(contents)
        # Patterns are checked below: Python's own `re`, which would be asked here, knows no \p{...}
        Draft202012Validator.check_schema(contents, format_checker=FormatChecker(formats=()))
        checked = CheckedSchema(contents, {})
        _check_parts(checked)
    except SchemaError as error:
        raise _refuse(f"{error.json_path}: {error.message[:200]}", "a valid JSON Schema, Draft 2020-12") from None
    except RecursionError:
        raise _refuse("nested too deeply to be checked", "a flatter schema") from None
    return checked


def _refuse(seen: str, expected: str) -> RewardError:
    return RewardError(seen, expected=expected, where="schema")


def _check_draft(contents: Any) -> None:
    draft = contents.get("$schema", DRAFT) if isinstance(contents, dict) else DRAFT
    if not isinstance(draft, str) or draft.rstrip("#") != DRAFT:
        raise _refuse(f"$schema {shorten(draft)}", f"{DRAFT}, or no $schema")


def _check_parts(checked: CheckedSchema) -> None:
    """Visits every sub-schema, resolves its references inside the document, and looks for endless ones."""
    root = DRAFT202012.create_resource(checked.contents)
    registry: Registry[Any] = Registry().with_resource("", root)
    waiting = [(root, registry.resolver_with_root(root))]
    parts: dict[int, dict[str, Any]] = {}
    while waiting:
        resource, resolver = waiting.pop()
        part = resource.contents
        if not isinstance(part, dict) or id(part) in parts:
            continue
        parts[id(part)] = part
        _check_draft(part)
        _check_patterns(part)
        resolver = resolver.in_subresource(resource)
        for reference in (part[word] for word in _REFERENCES if word in part):
            try:
                target = resolver.lookup(reference)
            except (Unresolvable, ValueError, TypeError, AttributeError):
                seen = f"a reference to {shorten(reference)}"
                raise _refuse(seen, "one that stays inside the schema; nothing is fetched") from None
            if not isinstance(target.contents, dict | bool):
                raise _refuse(f"a reference to {shorten(reference)}, which is no schema", "a schema there")
            checked.targets.setdefault(id(part), []).append(target.contents)
            waiting.append((DRAFT202012.create_resource(target.contents), target.resolver))
        waiting += [(Resource(each, DRAFT202012), resolver) for each in DRAFT202012.subresources_of(part)]
    if any("unevaluatedProperties" in part for part in parts.values()) and any(
        "patternProperties" in part for part in parts.values()
    ):
        raise _refuse("unevaluatedProperties beside patternProperties", "one of the two")
    _check_ends(checked, parts)


def _check_ends(checked: CheckedSchema, parts: dict[int, dict[str, Any]]) -> None:
    """Refuses references that come back to where they started without going into the value."""
    finished: set[int] = set()
    for start in parts:
        path: list[tuple[int, Iterator[int]]] = [(start, _same_value(checked, parts[start]))]
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
                path.append((child, _same_value(checked, parts[child])))


def _same_value(checked: CheckedSchema, part: dict[str, Any]) -> Iterator[int]:
    """The sub-schemas that judge the same value as `part` does."""
    judges = [*checked.targets.get(id(part), ()), *(part[word] for word in _IN_PLACE if word in part)]
    judges += [each for word in _IN_PLACE_LISTS for each in part.get(word, ())]
    judges += part.get("dependentSchemas", {}).values()
    return (id(each) for each in judges if isinstance(each, dict))


def _check_patterns(part: dict[str, Any]) -> None:
    for source in [*part.get("patternProperties", {}), *([part["pattern"]] if "pattern" in part else [])]:
        if _written_out(source) > _LARGEST_PATTERN:
            raise _refuse(f"the pattern {shorten(source)}", "fewer repetitions inside one another")
        try:
            compiled(source)
        except regex.error as error:
            raise _refuse(f"the pattern {shorten(source)}: {error}", "a regular expression") from None


@lru_cache(maxsize=4096)
def compiled(source: str) -> Any:
    """A schema's pattern as a `regex` one, which can be given a time limit.

    As in ECMA-262, which JSON Schema refers to, `$` is the very end and `\\d` and `\\w` are ASCII.

    Raises:
        regex.error: It is no regular expression.
    """

    def translate(match: re.Match[str]) -> str:
        text = match.group()
        if text == "$":
            return r"\Z"
        if match["set"] is not None:
            return re.sub(r"\\.", lambda escape: _ASCII.get(escape.group(), escape.group()), text, flags=re.DOTALL)
        if text in (r"\D", r"\W"):
            return f"[^{_ASCII[text.lower()]}]"
        return f"[{_ASCII[text]}]" if text in _ASCII else text

    return regex.compile(_PATTERN_PART.sub(translate, source))


def _written_out(source: str) -> int:
    """The size of a pattern with its counted repetitions written out: what compiling it costs."""
    groups = [0]  # the size so far of each open group
    last = 0
    for match in _PATTERN_PART.finditer(source):
        text = match.group()
        if text == "(":
            groups.append(0)
            last = 0
        elif text == ")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        elif text[0] == "{" and text[-1] == "}":
            times = max(int(number[:9]) for number in re.findall(r"\d+", text))
            groups[-1] += last * max(times - 1, 0)
            last *= max(times, 1)
        else:
            last = 1
            groups[-1] += 1
    return sum(groups)
