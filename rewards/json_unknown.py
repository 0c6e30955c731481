"""Words in a schema where keywords stand that are none: by the standard they are ignored, which is seldom meant."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from jsonschema_specifications import REGISTRY

from posttrain.errors import RewardError
from posttrain.nearest import hint
from posttrain.rewards.json_drafts import DRAFTS, Draft, draft_of
from posttrain.rewards.json_text import NotJson, parse

#: What other tools write into schemas, to be ignored by this one.
_ANNOTATIONS = frozenset(
    ["definitions", "$defs", "discriminator", "example", "externalDocs", "xml", "propertyOrdering"]
)
_INSTEAD = {
    "dependencies": "dependentRequired or dependentSchemas",
    "additionalItems": "items beside prefixItems",
    "$recursiveRef": "$dynamicRef",
    "$recursiveAnchor": "$dynamicAnchor",
    "id": "$id",
    "nullable": "null among the types",
    "optional": "required without the key",
}


def unknown_keywords(schema: str | dict[str, Any] | bool) -> list[str]:
    """The keywords that the schema's draft does not know, each with where it is and what is likely meant.

    Args:
        schema: The schema, as JSON text or as the object itself. Of one that can't be read nothing is said.

    Returns:
        Such as `schema.properties.a: no keyword 'requierd' (nearest: 'required')`, each word once for each place.
    """
    try:
        contents = parse(schema) if isinstance(schema, str) else schema
        draft = draft_of(contents)
    except (NotJson, RewardError):
        return []
    paths = dict(_paths(contents, "schema"))
    found, waiting, seen = [], [contents], set()
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, dict) and id(part) not in seen:
            seen.add(id(part))
            found += [f"{paths[id(part)]}: {_said(word, draft)}" for word in part if not _known(word, draft)]
            waiting += draft.specification.subresources_of(part)
    return found


def _known(word: str, draft: Draft) -> bool:
    return word in _keywords(draft) or word in _ANNOTATIONS or word.startswith("x-")


def _said(word: str, draft: Draft) -> str:
    elsewhere = [other.name for other in DRAFTS.values() if word in _keywords(other)]
    if word in _INSTEAD:
        meant = f" (instead: {_INSTEAD[word]})"
    else:
        meant = f" (a keyword of {elsewhere[-1]})" if elsewhere else hint(word, sorted(_keywords(draft)))
    return f"no keyword {word!r}{meant}" if not elsewhere else f"{word!r} is no keyword of {draft.name}{meant}"


@cache
def _keywords(draft: Draft) -> frozenset[str]:
    """All keywords of a draft, from its own schema and those of its vocabularies."""
    own = draft.validator.META_SCHEMA
    address = draft.validator.ID_OF(own)
    parts = [REGISTRY.contents(address.removesuffix("schema") + each["$ref"]) for each in own.get("allOf", ())]
    return frozenset(word for part in parts or [own] for word in part.get("properties", ()))


def _paths(value: Any, path: str) -> Iterator[tuple[int, str]]:
    waiting = [(value, path)]
    while waiting:
        value, path = waiting.pop()
        if isinstance(value, dict):
            yield id(value), path
            waiting += [(part, f"{path}.{name}") for name, part in value.items()]
        elif isinstance(value, list):
            waiting += [(part, f"{path}[{i}]") for i, part in enumerate(value)]
