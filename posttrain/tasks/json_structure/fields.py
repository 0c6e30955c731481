"""The building blocks of a made-up record: a field's key, its schema, its values, and how a text says them.

`Place` is where a field's value is: nothing here knows levels or splits.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["text", "integer", "code", "decimal", "choice", "flag", "nested", "many"]
PLAIN: tuple[Kind, ...] = ("text", "integer")
SCALAR: tuple[Kind, ...] = ("text", "integer", "code", "decimal", "choice", "flag")


@dataclass(frozen=True)
class Field:
    """One key of a record.

    Args:
        kind: What its value is.
        names: Spellings of the key; the first is the usual one.
        says: Sentences that state the value. `{}` is the value, or, for `nested`, `{key}` each of its parts; for
            `many`, `{}` is the list of items.
        words: The values of `text` and `choice`.
        low: The least `integer`, or least `decimal` in hundredths.
        high: The greatest.
        letters: The prefixes of a `code`, as in `A-1042`.
        unsays: For `flag`, the sentences that say no.
        parts: The fields of a `nested` value or of each item.
        item: For `many`, how an item is said, from `{key}` for each of its parts.
    """

    kind: Kind
    names: tuple[str, ...]
    says: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    low: int = 0
    high: int = 0
    letters: str = ""
    unsays: tuple[str, ...] = ()
    parts: tuple[Field, ...] = ()
    item: str = ""

    @property
    def key(self) -> str:
        """The usual spelling."""
        return self.names[0]

    def schema(self) -> dict[str, Any]:
        """The plain schema of a value, without limits."""
        if self.kind == "nested":
            return object_schema([(part.key, part.schema()) for part in self.parts])
        if self.kind == "many":
            return {"type": "array", "items": object_schema([(part.key, part.schema()) for part in self.parts])}
        if self.kind == "choice":
            return {"enum": list(self.words)}
        kinds = {"integer": "integer", "decimal": "number", "flag": "boolean"}
        return {"type": kinds.get(self.kind, "string")}

    def limits(self) -> dict[str, Any]:
        """What a stricter schema says besides."""
        if self.kind == "integer":
            return {"minimum": self.low, "maximum": self.high}
        if self.kind == "decimal":
            return {"exclusiveMinimum": 0, "maximum": self.high / 100, "multipleOf": 0.01}
        if self.kind == "code":
            return {"pattern": f"^[{self.letters}]-\\d{{4}}$"}
        if self.kind == "text":
            return {"minLength": 1, "maxLength": 40}
        if self.kind == "many":
            return {"minItems": 1, "maxItems": 4}
        return {}

    def value(self, rng: random.Random, vocabulary: int | None) -> Any:
        """A random value; of its words only the first `vocabulary` are used."""
        if self.kind in ("text", "choice"):
            words = self.words[:vocabulary] if self.kind == "text" else self.words
            return words[rng.randrange(len(words))]
        if self.kind == "integer":
            return rng.randint(self.low, self.high)
        if self.kind == "decimal":
            return rng.randint(self.low, self.high) / 100
        if self.kind == "code":
            return f"{rng.choice(self.letters)}-{rng.randint(1000, 9999)}"
        if self.kind == "flag":
            return rng.random() < 0.5
        if self.kind == "nested":
            return {part.key: part.value(rng, vocabulary) for part in self.parts}
        items: list[dict[str, Any]] = []
        first = self.parts[0]  # what names an item differs among the items
        for _ in range(rng.randint(1, 3)):
            item = {part.key: part.value(rng, vocabulary) for part in self.parts}
            if all(item[first.key] != other[first.key] for other in items):
                items.append(item)
        return items

    def sentence(self, value: Any, rng: random.Random) -> str:
        """A sentence that states the value."""
        if self.kind == "flag":
            return rng.choice(self.says if value else self.unsays)
        says = rng.choice(self.says)
        if self.kind == "nested":
            return says.format_map({part.key: part.spoken(value[part.key]) for part in self.parts})
        if self.kind == "many":
            items = [self.item.format_map({p.key: p.spoken(each[p.key]) for p in self.parts}) for each in value]
            return says.format(" and ".join(filter(None, [", ".join(items[:-1]), items[-1]])))
        return says.format(self.spoken(value))

    def spoken(self, value: Any) -> str:
        """A scalar as a text has it."""
        if self.kind == "decimal":
            return f"{value:.2f}"
        return str(value).replace("_", " ") if self.kind == "choice" else str(value)


def object_schema(properties: Sequence[tuple[str, dict[str, Any]]], optional: Sequence[str] = ()) -> dict[str, Any]:
    """The schema of an object with these keys and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name, _ in properties if name not in optional],
        "additionalProperties": False,
    }


def text(names: str, words: str, *says: str) -> Field:
    """Words are separated by commas; so are the spellings of the key, here and below."""
    return Field("text", _split(names), says, words=_split(words))


def integer(names: str, low: int, high: int, *says: str) -> Field:
    """A whole number."""
    return Field("integer", _split(names), says, low=low, high=high)


def decimal(names: str, low: int, high: int, *says: str) -> Field:
    """A number with two decimals; `low` and `high` in hundredths."""
    return Field("decimal", _split(names), says, low=low, high=high)


def code(names: str, letters: str, *says: str) -> Field:
    """A letter, a dash and four digits."""
    return Field("code", _split(names), says, letters=letters)


def choice(names: str, options: str, *says: str) -> Field:
    """One of a few words, which the schema lists."""
    return Field("choice", _split(names), says, words=_split(options))


def flag(names: str, yes: Sequence[str], no: Sequence[str]) -> Field:
    """True or false, said by different sentences."""
    return Field("flag", _split(names), tuple(yes), unsays=tuple(no))


def nested(names: str, parts: Sequence[Field], *says: str) -> Field:
    """An object."""
    return Field("nested", _split(names), says, parts=tuple(parts))


def many(names: str, parts: Sequence[Field], item: str, *says: str) -> Field:
    """An array of objects."""
    return Field("many", _split(names), says, parts=tuple(parts), item=item)


def _split(words: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(","))
