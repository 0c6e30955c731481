"""The drafts of JSON Schema that a row's schema can be written in, named by its `$schema`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft4Validator, Draft6Validator, Draft7Validator, Draft201909Validator, Draft202012Validator
from referencing import Specification
from referencing.jsonschema import specification_with

from posttrain.errors import RewardError
from posttrain.nearest import hint
from posttrain.rewards.json_text import shorten

_ADDRESS = re.compile(r"https?://json-schema\.org/(.+)/schema#?")


@dataclass(frozen=True)
class Draft:
    """One draft.

    Args:
        name: What its address calls it, such as `draft-07` or `draft/2020-12`.
        validator: The class of `jsonschema` that knows its keywords.
        specification: What `referencing` knows of its sub-schemas and references.
    """

    name: str
    validator: Any
    specification: Specification[Any]

    @property
    def lone_references(self) -> bool:
        """Whether what stands beside a `$ref` is ignored, as up to draft 7."""
        return self.name.startswith("draft-0")

    def has(self, part: dict[str, Any], word: str) -> bool:
        """Whether the sub-schema has this keyword, and the draft knows it."""
        return word in part and word in self.validator.VALIDATORS


def _draft(validator: Any) -> Draft:
    address = validator.ID_OF(validator.META_SCHEMA)
    match = _ADDRESS.fullmatch(address)
    assert match is not None
    return Draft(match[1], validator, specification_with(address))


NEWEST = _draft(Draft202012Validator)
DRAFTS = {
    draft.name: draft
    for draft in (*map(_draft, (Draft4Validator, Draft6Validator, Draft7Validator, Draft201909Validator)), NEWEST)
}


def draft_of(schema: Any, default: Draft = NEWEST) -> Draft:
    """The draft that `$schema` names, by http or https, with or without `#`; without `$schema`, the default.

    Raises:
        RewardError: It names none that is known.
    """
    if not isinstance(schema, dict) or "$schema" not in schema:
        return default
    named = schema["$schema"]
    match = _ADDRESS.fullmatch(named) if isinstance(named, str) else None
    if match and match[1] in DRAFTS:
        return DRAFTS[match[1]]
    addresses = [draft.validator.ID_OF(draft.validator.META_SCHEMA) for draft in DRAFTS.values()]
    near = hint(named, addresses) if isinstance(named, str) and len(named) < 200 else ""
    raise RewardError(
        f"$schema {shorten(named)}{near}",
        expected="one of " + ", ".join(addresses) + ", or none, which means the last",
        where="schema.$schema",
        fix="name the draft that the schema is written in, or leave $schema out",
    )
