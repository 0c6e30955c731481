"""Records at random: a schema, an object that fits it, and a text that says what is in the object.

| level | keys |
|---|---|
| 1 | two or three strings and whole numbers |
| 2 | three or four, among them a choice or a truth value; also codes and decimals |
| 3 | an object inside the object; a sentence that means nothing |
| 4 | an array of objects; facts that nobody asked for |
| 5 | limits and patterns, `$defs` and `$ref`, keys that may be absent, values that may be null |
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from posttrain.errors import DataError
from posttrain.tasks.json_structure.domains import DOMAINS
from posttrain.tasks.json_structure.fields import PLAIN, SCALAR, Field, Kind, object_schema

Split: TypeAlias = Literal["content", "schema"]
LEVELS = (1, 2, 3, 4, 5)

# So many draws in a row without a new record mean that (almost) none is left.
_PATIENCE = 3_000
_FILLERS = (
    "Thanks for taking care of it.",
    "More will follow later.",
    "Please keep this for the files.",
    "That is all for now.",
    "Sorry for the short notice.",
)
_UNKNOWN = ("The {} is not known.", "Nobody could tell the {}.", "No {} was given.")
_HELD_OUT_SHARE = 5  # with `split: schema`, one in so many schemas is kept for eval


@dataclass(frozen=True)
class Record:
    """A text with what is in it.

    Args:
        domain: What it is about.
        level: How hard it is, 1 to 5.
        schema: The JSON Schema.
        gold: The object, its keys in the order of the schema.
        text: The text, which says all of `gold`.
    """

    domain: str
    level: int
    schema: dict[str, Any]
    gold: dict[str, Any]
    text: str

    @cached_property
    def schema_text(self) -> str:
        """The schema as JSON text."""
        return json.dumps(self.schema)

    @cached_property
    def gold_key(self) -> str:
        """The same for equal objects."""
        return json.dumps(self.gold, sort_keys=True)


@dataclass(frozen=True)
class _Slot:
    """A field as one record has it."""

    field: Field
    name: str
    strict: bool = False
    optional: bool = False
    nullable: bool = False


def random_record(
    rng: random.Random, level: int, domains: Sequence[str], vocabulary: int | None = None, *, synonyms: bool = True
) -> Record:
    """A record of a level; see the module.

    Args:
        rng: Where chance comes from.
        level: 1 to 5.
        domains: The names of the domains to choose from.
        vocabulary: How many of the words of each kind are used; None is all.
        synonyms: Whether keys come in several spellings.
    """
    domain = domains[rng.randrange(len(domains))]
    slots = [
        _Slot(field, rng.choice(field.names) if synonyms else field.key)
        for field in _draw_fields(rng, level, DOMAINS[domain])
    ]
    if level == 5:
        slots = [_decorated(slot, rng) for slot in slots]
        if all(slot.optional for slot in slots):
            slots[0] = _Slot(slots[0].field, slots[0].name, strict=True)
    gold: dict[str, Any] = {}
    sentences = []
    for slot in slots:
        if slot.optional and rng.random() < 0.5:
            continue
        if slot.nullable and rng.random() < 0.5:
            gold[slot.name] = None
            sentences.append(rng.choice(_UNKNOWN).format(slot.name.replace("_", " ")))
        else:
            gold[slot.name] = slot.field.value(rng, vocabulary)
            sentences.append(slot.field.sentence(gold[slot.name], rng))
    sentences += _besides(rng, level, DOMAINS[domain], {slot.field.key for slot in slots}, vocabulary)
    rng.shuffle(sentences)
    return Record(domain, level, _schema(slots), gold, " ".join(sentences))


def _draw_fields(rng: random.Random, level: int, fields: Sequence[Field]) -> list[Field]:
    def some(kinds: Sequence[Kind], least: int, most: int) -> list[Field]:
        left = [field for field in fields if field.kind in kinds and field not in drawn]
        return rng.sample(left, min(rng.randint(least, most), len(left)))

    drawn: list[Field] = []
    if level == 1:
        drawn += some(PLAIN, 2, 3)
    elif level == 2:
        drawn += some(("choice", "flag"), 1, 1)
        drawn += some(SCALAR, 2, 3)
    else:
        if level == 3 or rng.random() < 0.5:
            drawn += some(("nested",), 1, 1)
        if level == 4 or (level == 5 and (not drawn or rng.random() < 0.5)):
            drawn += some(("many",), 1, 1)
        drawn += some(SCALAR, 2, 3) if level == 5 else some(SCALAR, 1, 3)
    rng.shuffle(drawn)
    return drawn


def _decorated(slot: _Slot, rng: random.Random) -> _Slot:
    chance = rng.random()
    scalar = slot.field.kind in SCALAR
    optional, nullable = scalar and chance < 0.25, scalar and 0.25 <= chance < 0.5
    return _Slot(slot.field, slot.name, strict=rng.random() < 0.7, optional=optional, nullable=nullable)


def _schema(slots: Sequence[_Slot]) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    properties: list[tuple[str, dict[str, Any]]] = []
    for slot in slots:
        schema = slot.field.schema()
        if slot.strict:
            schema |= slot.field.limits()
            if slot.field.kind == "nested":
                definitions[slot.field.key], schema = schema, {"$ref": f"#/$defs/{slot.field.key}"}
            elif slot.field.kind == "many":
                definitions[slot.field.key] = schema["items"]
                schema["items"] = {"$ref": f"#/$defs/{slot.field.key}"}
        properties.append((slot.name, {"oneOf": [schema, {"type": "null"}]} if slot.nullable else schema))
    whole = object_schema(properties, [slot.name for slot in slots if slot.optional])
    return whole | {"$defs": definitions} if definitions else whole


def _besides(
    rng: random.Random, level: int, fields: Sequence[Field], used: set[str], vocabulary: int | None
) -> list[str]:
    """Sentences that no key asks about."""
    sentences = [rng.choice(_FILLERS)] if level >= 3 and rng.random() < 0.6 else []
    if level >= 4 and rng.random() < 0.6:
        others = [field for field in fields if field.kind in ("choice", "flag", "code") and field.key not in used]
        sentences += [
            field.sentence(field.value(rng, vocabulary), rng) for field in rng.sample(others, min(1, len(others)))
        ]
    return sentences


def is_held_out(schema: str, seed: int) -> bool:
    """Whether `split: schema` keeps a schema (canonical JSON text) for eval: one in five, by a hash."""
    digest = hashlib.blake2b(f"{seed}\0{schema}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % _HELD_OUT_SHARE == 0


def canonical(schema: Any) -> str:
    """A schema as text that does not depend on the order of keys."""
    return json.dumps(schema, sort_keys=True)


def split_records(
    seed: int,
    counts: Mapping[str, int],
    levels: Sequence[int],
    domains: Sequence[str],
    vocabulary: int | None = None,
    *,
    synonyms: bool = True,
    split: Split = "content",
) -> dict[str, list[Record]]:
    """Disjoint `eval`, `demonstrations` and `train` records; each level gets the same share of each part.

    No two records have the same text. No eval object is the gold of any other record, in whatever words. With
    `split="schema"` no eval schema is any other part's either.

    The parts have random streams of their own, drawn in this order, so asking for more train records changes
    neither eval nor demonstrations.

    Raises:
        DataError: There are not that many.
    """
    texts: set[str] = set()
    held_out: set[str] = set()
    parts: dict[str, list[Record]] = {}
    for part in ("eval", "demonstrations", "train"):
        rng = random.Random(f"json_structure {part} {seed}")
        records: list[Record] = []
        for number in range(counts.get(part, 0)):
            for _ in range(_PATIENCE):
                record = random_record(rng, levels[number % len(levels)], domains, vocabulary, synonyms=synonyms)
                if record.text in texts or record.gold_key in held_out:
                    continue
                if split == "content" or is_held_out(canonical(record.schema), seed) == (part == "eval"):
                    break
            else:
                raise DataError(
                    f"after {len(records)} of {counts[part]} {part} texts no new one was found",
                    expected="as many different texts as the task asks for",
                    where="task json_structure",
                    fix="ask for fewer, or allow more domains, a larger vocabulary, or a higher difficulty",
                )
            texts.add(record.text)
            if part == "eval":
                held_out.add(record.gold_key)
            records.append(record)
        rng.shuffle(records)
        parts[part] = records
    return parts
