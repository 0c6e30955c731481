"""Random schemas in the forms that pydantic writes, each with values that fit, and ways to take from a value."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Path = tuple[Any, ...]
Draw = Callable[[], Any]
_WORDS = ["ant", "bee", "cow", "dog", "elk", "fox"]


@dataclass
class Shapes:
    """Draws schemas; what stands under `$defs` is collected as they are drawn."""

    rng: random.Random
    defs: dict[str, Any] = field(default_factory=dict)

    def root(self) -> tuple[dict[str, Any], Draw]:
        """A schema and what draws a value that fits it."""
        form = self.rng.choice([self.model, self.model, self.model, self.tagged, self.union, self.array])
        schema, draw = form(3)
        return ({**schema, "$defs": self.defs} if self.defs else schema), draw

    def any(self, depth: int) -> tuple[dict[str, Any], Draw]:
        forms = [self.scalar, self.scalar, self.enum, self.nullable]
        if depth:
            forms += [
                self.model,
                self.referred,
                self.nullable,
                self.array,
                self.union,
                self.tagged,
                self.map,
                self.tuple,
            ]
        return self.rng.choice(forms)(depth - 1 if depth else 0)

    def scalar(self, depth: int) -> tuple[dict[str, Any], Draw]:
        return self.rng.choice(
            [
                ({"type": "integer"}, lambda: self.rng.randint(0, 3)),
                ({"type": "integer", "minimum": 0, "maximum": 9}, lambda: self.rng.randint(0, 9)),
                ({"type": "number"}, lambda: self.rng.choice([0.5, 1.0, 2.25])),
                ({"type": "boolean"}, lambda: self.rng.random() < 0.5),
                ({"type": "string"}, lambda: self.rng.choice(_WORDS)),
                ({"type": "string", "minLength": 1, "pattern": "^[a-z]+$"}, lambda: self.rng.choice(_WORDS)),
                ({"type": "string", "format": "date"}, lambda: f"2024-01-{self.rng.randint(10, 28)}"),
            ]
        )

    def enum(self, depth: int) -> tuple[dict[str, Any], Draw]:
        values = self.rng.sample(_WORDS, 3)
        return self._named({"enum": values, "type": "string"}), lambda: self.rng.choice(values)

    def nullable(self, depth: int) -> tuple[dict[str, Any], Draw]:
        schema, draw = self.any(depth)
        branches = [schema, {"type": "null"}]
        return {"anyOf": branches, "default": None}, lambda: draw() if self.rng.random() < 0.8 else None

    def array(self, depth: int) -> tuple[dict[str, Any], Draw]:
        schema, draw = self.any(depth)
        limits = self.rng.choice([{}, {}, {"minItems": 1}, {"minItems": 1, "maxItems": 9}])
        least = limits.get("minItems", 0)
        array = {"type": "array", "items": schema, **limits}
        return array, lambda: [draw() for _ in range(self.rng.randint(least, 4))]

    def tuple(self, depth: int) -> tuple[dict[str, Any], Draw]:
        schema, draw = self.any(depth)  # of two kinds, one item less would make the other one wrong
        return {"type": "array", "prefixItems": [schema] * 2, "minItems": 2, "maxItems": 2}, lambda: [draw(), draw()]

    def map(self, depth: int) -> tuple[dict[str, Any], Draw]:
        schema, draw = self.any(depth)
        names = ["p", "q", "r"]
        return {"type": "object", "additionalProperties": schema}, lambda: {
            name: draw() for name in names[: self.rng.randint(0, 3)]
        }

    def model(self, depth: int, tag: str | None = None) -> tuple[dict[str, Any], Draw]:
        names = self.rng.sample("abcdefgh", self.rng.randint(1, 4))
        drawn = {name: self.any(depth) for name in names}
        required = [name for name in names if self.rng.random() < 0.7]
        properties = {name: {**schema, "title": name.upper()} for name, (schema, _) in drawn.items()}
        if tag is not None:
            properties["kind"] = {"const": tag, "type": "string"}
            required = ["kind", *required]
            drawn["kind"] = (properties["kind"], lambda: tag)
        schema = {"type": "object", "title": "Model", "properties": properties}
        if required:
            schema["required"] = required
        if self.rng.random() < 0.3:
            schema["additionalProperties"] = False

        def draw() -> Any:
            return {name: make() for name, (_, make) in drawn.items() if name in required or self.rng.random() < 0.7}

        return schema, draw

    def referred(self, depth: int) -> tuple[dict[str, Any], Draw]:
        schema, draw = self.model(depth)
        reference = self._named(schema)
        return self.rng.choice([reference, {"allOf": [reference]}]), draw

    def union(self, depth: int) -> tuple[dict[str, Any], Draw]:
        drawn = [self.rng.choice([self.referred, self.model, self.scalar])(depth) for _ in range(3)]
        return {"anyOf": [each for each, _ in drawn]}, lambda: self.rng.choice(drawn)[1]()

    def tagged(self, depth: int) -> tuple[dict[str, Any], Draw]:
        drawn = [self.model(depth, tag) for tag in ("cat", "dog")]
        references = [self._named(schema) for schema, _ in drawn]
        return {"oneOf": references, "discriminator": {"propertyName": "kind"}}, lambda: self.rng.choice(drawn)[1]()

    def _named(self, schema: dict[str, Any]) -> dict[str, Any]:
        name = f"D{len(self.defs)}"
        self.defs[name] = schema
        return {"$ref": f"#/$defs/{name}"}


def places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """All that a value is made of, itself first."""
    yield path, value
    for name, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, name))


def changed(value: Any, path: Path, new: Any) -> Any:
    """A copy of the value with `new` at the path, or nothing there if `new` is `...`."""
    root = [copy.deepcopy(value)]
    here: Any = root
    *way, last = (0, *path)
    for step in way:
        here = here[step]
    if new is ...:
        del here[last]
    else:
        here[last] = new
    return root[0]


def reductions(value: Any) -> list[tuple[str, Any]]:
    """Each way to have one key or item less, or an object or array empty: what was done, and what is left."""
    parts = list(places(value))
    without = [(f"without {path}", changed(value, path, ...)) for path, _ in parts if path]
    return without + [(f"empty {path}", changed(value, path, type(part)())) for path, part in containers(value) if part]


def containers(value: Any) -> list[tuple[Path, Any]]:
    """The objects and arrays of a value."""
    return [(path, part) for path, part in places(value) if isinstance(part, dict | list)]


def spoiled(value: Any) -> list[tuple[Path, Any]]:
    """Each way to have one scalar wrong, by another value and by another type."""
    return [
        (path, changed(value, path, new))
        for path, part in places(value)
        if not isinstance(part, dict | list)
        for new in ("no such word", 9999, None)
        if new != part
    ]
