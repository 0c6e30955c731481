"""Reading YAML that remembers where each key came from: parents by `extends`, overrides from the command line.

A `Layer` is plain data plus, for each key path, the `file:line` it was written at. Layers are merged from the root
parent down to the command line: mappings merge key by key, everything else (lists too) replaces. Nothing here knows
what the keys mean; what a section's shorthand stands for, and which key makes it another kind of section, is told
by the caller.
"""

from __future__ import annotations

import copy
import itertools
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean
from ruamel.yaml.tokens import (
    FlowMappingEndToken,
    FlowMappingStartToken,
    FlowSequenceEndToken,
    FlowSequenceStartToken,
    TagToken,
)

from posttrain.errors import ConfigError
from posttrain.nearest import display, nearest_files
from posttrain.recipe.shipped import PREFIX, located

Key = tuple[str | int, ...]
Prepare = Callable[[dict[str, Any], Path], None]
Kinds = Mapping[Key, tuple[str, ...]]

COMMAND_LINE = "command line"
DEFAULT = "default"

LONGEST_FILE = 1 << 20
"""Bytes. No recipe comes near it; a device or a data set that `extends` names by mistake does."""
DEEPEST = 50
MOST_VALUES = 20_000
"""Values of one file with its aliases written out. A few lines of aliases of aliases can stand for billions."""


@dataclass
class Layer:
    """Plain data and the origin of each key path in it."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, str] = field(default_factory=dict)

    def origin(self, key: Key) -> str:
        """Where a key was written; for a key that was not, where the nearest section around it was."""
        while key and key not in self.origins:
            key = key[:-1]
        return self.origins.get(key, DEFAULT)

    def has(self, key: Key) -> bool:
        """Whether the data says anything for a key, itself or by a shorthand around it."""
        data: Any = self.data
        for part in key:
            try:
                data = data[part]
            except (KeyError, IndexError, TypeError):
                return False
        return True


def dotted(key: Iterable[str | int]) -> str:
    """A key path as it is written on the command line."""
    return ".".join(str(part) for part in key)


def load_layers(path: str | Path, *, prepare: Prepare | None = None, kinds: Kinds | None = None) -> Layer:
    """A YAML file over the parents that it `extends`, each relative to the file that names it, or one that ships
    (`posttrain:base/lora`).

    Args:
        path: The file.
        prepare: Called as `prepare(data, folder)` on each file's data before it is merged, to write out shorthands.
        kinds: Key path of a section -> the keys that tell its kind. A section that names another kind than its
            parent's replaces it instead of mixing keys of both.

    Raises:
        ConfigError: A file is absent, empty, not YAML or not a mapping, repeats a key, or extends itself.
    """
    return _load(Path(path), (), None, prepare, kinds or {})


def _load(path: Path, below: tuple[Path, ...], named_at: str | None, prepare: Prepare | None, kinds: Kinds) -> Layer:
    if path.resolve() in (seen.resolve() for seen in below):
        raise ConfigError(
            "the files extend each other: " + " -> ".join(display(p) for p in (*below, path)),
            where=named_at,
            fix="remove one `extends`",
        )
    layer = read_layer(path, named_at)
    parent = layer.data.pop("extends", None)
    parent_at = f"{layer.origins.pop(('extends',), display(path))}: extends"
    if prepare:
        prepare(layer.data, path.parent)
    if parent is None:
        return layer
    if not isinstance(parent, str):
        raise ConfigError(repr(parent), expected="the path of one YAML file", where=parent_at)
    below = (*below, path)
    above = located(parent, parent_at) if parent.startswith(PREFIX) else path.parent / parent
    return merge(_load(above, below, parent_at, prepare, kinds), layer, kinds)


def read_layer(path: Path, named_at: str | None = None) -> Layer:
    """One YAML file, its parents left alone. `named_at` is what asked for the file, for the error message."""
    text = _read_text(path, named_at)
    where = display(path)
    try:
        _check_tokens(text, where)
        document = YAML().load(text)
    except DuplicateKeyError as error:
        mark = error.problem_mark
        seen = str(error.problem).split(" with value ")[0]
        raise ConfigError(seen, where=f"{where}:{mark.line + 1}", fix="keep one of the two") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{where}:{mark.line + 1}" if mark else where
        problem = ", ".join(str(part) for part in (error.context, error.problem) if part)
        raise ConfigError(f"not valid YAML: {problem}", where=at, fix=_source_hint(text, mark)) from error
    except YAMLError as error:
        raise ConfigError(f"not valid YAML: {str(error).splitlines()[0]}", where=where) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"not a recipe: {_as_said(error)}", where=where) from error  # a date 2001-99-99, say
    if document is None:
        raise ConfigError("the file is empty", expected="a mapping of keys to values", where=where)
    if not isinstance(document, CommentedMap):
        kind = "list" if isinstance(document, CommentedSeq) else type(document).__name__
        raise ConfigError(f"the file holds a {kind}", expected="a mapping of keys to values", where=f"{where}:1")
    origins: dict[Key, str] = {(): where}
    try:
        data = _plain(document, (), where, origins, itertools.count(1))
    except RecursionError as error:
        raise ConfigError(f"not a recipe: {_as_said(error)}", where=where, fix="write the aliases out") from error
    return Layer(data, origins)


def _check_tokens(text: str, where: str) -> None:
    """Refuse what no recipe needs, before anything is built from it: tags, and brackets without end."""
    depth = 0
    for token in YAML().scan(text):
        at = f"{where}:{token.start_mark.line + 1}"
        if isinstance(token, TagToken):  # asks a YAML reader for other things than data
            tag = "".join(part or "" for part in token.value)
            raise ConfigError(f"the tag {tag}", expected="plain YAML: a recipe is data", where=at, fix="remove it")
        opened = isinstance(token, FlowSequenceStartToken | FlowMappingStartToken)
        depth += opened - isinstance(token, FlowSequenceEndToken | FlowMappingEndToken)
        if depth > DEEPEST:
            raise ConfigError(f"more than {DEEPEST} brackets one in another", expected="a recipe", where=at)


def _as_said(error: Exception) -> str:
    return "its values are nested too deep" if isinstance(error, RecursionError) else str(error).splitlines()[0]


def overrides_layer(overrides: Iterable[str]) -> Layer:
    """`a.b.c=value` arguments as a layer; values are parsed as YAML, a number after a dot indexes a list.

    Raises:
        ConfigError: An argument has no `=`, an empty key, or a value that is not YAML.
    """
    layer = Layer()
    for text in overrides:
        name, equals, value = text.partition("=")
        parts = [part.strip() for part in name.split(".")]
        if not equals or not all(parts):
            raise ConfigError(
                f"{text!r} is not an override",
                expected="key.path=value, such as hybrid.steps=100",
                where=COMMAND_LINE,
            )
        if parts == ["extends"]:
            raise ConfigError("extends cannot be overridden", where=COMMAND_LINE, fix="write it in a recipe file")
        section = layer.data
        for part in parts[:-1]:
            inner = section.setdefault(part, {})
            section = inner if isinstance(inner, dict) else section.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(
                    f"{text!r} goes into {part!r}, which another override gave the value {inner!r}",
                    where=COMMAND_LINE,
                    fix=f"drop one of the two, or write {part}.name={inner} if it names a kind",
                )
        section[parts[-1]] = parse_value(value, text)
        layer.origins[tuple(parts)] = COMMAND_LINE
    return layer


def parse_value(value: str, text: str | None = None) -> Any:
    """One command line value as YAML: `1e-5` is a number, `[1, 8]` a list, `{name: static}` a mapping."""
    try:
        return YAML(typ="safe", pure=True).load(value)
    except YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(
            f"{text or value!r}: the value is not valid YAML: {problem}", where=COMMAND_LINE, fix="quote it"
        ) from error
    except (ValueError, RecursionError) as error:
        seen = f"the value of {(text or value)[:60]!r}: {_as_said(error)}"
        raise ConfigError(seen, where=COMMAND_LINE, fix="quote it") from error


def merge(under: Layer, over: Layer, kinds: Kinds | None = None) -> Layer:
    """A new layer: `over` on top of `under`."""
    merged = Layer(
        copy.deepcopy(under.data), under.origins | {(): over.origins.get((), under.origins.get((), DEFAULT))}
    )
    _merge(merged, merged.data, (), over, over.data, (), kinds or {})
    return merged


def _merge(merged: Layer, section: Any, at: Key, over: Layer, values: dict[str, Any], there: Key, kinds: Kinds) -> None:
    """Merge `values`, which stand at `there` in `over`, into `section`, which stands at `at` in `merged`."""
    for name, value in values.items():
        key = (*there, name)
        index: Any = _index(name, section, over.origin(key), at) if isinstance(section, list) else name
        here = (*at, index)
        old = section[index] if isinstance(section, list) else section.get(index)
        into_list = isinstance(old, list) and isinstance(value, dict) and bool(value) and all(map(str.isdigit, value))
        into_section = (
            isinstance(old, dict) and isinstance(value, dict) and not _other_kind(old, value, kinds.get(here))
        )
        if into_list or into_section:
            merged.origins |= {here: over.origins[key]} if key in over.origins else {}
            _merge(merged, old, here, over, value, key, kinds)
            continue
        section[index] = copy.deepcopy(value)
        for gone in [known for known in merged.origins if known[: len(here)] == here]:
            del merged.origins[gone]
        for known, where in over.origins.items():
            if known[: len(key)] == key:
                merged.origins[(*here, *known[len(key) :])] = where


def _index(name: str, items: list[Any], where: str, at: Key) -> int:
    if not str(name).isdigit() or int(name) >= len(items):
        raise ConfigError(
            f"{dotted((*at, name))}: no such entry",
            expected=f"an index from 0 to {len(items) - 1}" if items else "entries, but the list is empty",
            where=where,
            fix=f"give the whole list, as {dotted(at)}=[...]",
        )
    return int(name)


def _other_kind(old: dict[str, Any], new: dict[str, Any], tells: tuple[str, ...] | None) -> bool:
    """Whether two mappings name different kinds of section. Sections below a telling key (`init`) count as one."""
    before, after = (
        {tell: isinstance(part[tell], dict) or part[tell] for tell in tells or () if part.get(tell) is not None}
        for part in (old, new)
    )
    return bool(before and after) and before != after


def _read_text(path: Path, named_at: str | None) -> str:
    where = named_at  # what is wrong with a file is said with its path
    if path.is_dir():
        inside = path / "recipe.yaml"  # of a run
        fix = f"did you mean {display(inside)}?" if inside.is_file() else None
        raise ConfigError(f"{display(path)} is a folder", expected="a YAML file", where=where, fix=fix)
    try:
        details = path.stat()
        if not stat.S_ISREG(details.st_mode) or details.st_size > LONGEST_FILE:
            seen = f"{details.st_size:,} bytes" if stat.S_ISREG(details.st_mode) else "no file but a device or a pipe"
            raise ConfigError(f"{display(path)} is {seen}", expected="a YAML file of at most 1 MiB", where=where)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{display(path)} does not exist", where=where, fix=nearest_files(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{display(path)} is not text in UTF-8 ({error.reason})", where=where) from error
    except OSError as error:
        raise ConfigError(f"{display(path)} cannot be read: {error.strerror}", where=where) from error


def _source_hint(text: str, mark: Any) -> str | None:
    lines = text.splitlines()
    if mark is None or mark.line >= len(lines):
        return None
    line = lines[mark.line].rstrip()
    return f"look at: {line.strip()}" + (" (YAML wants spaces, not tabs)" if "\t" in line else "")


def _plain(node: Any, at: Key, file: str, origins: dict[Key, str], values: Iterator[int]) -> Any:
    """ruamel's round-trip types as plain Python ones, noting on the way where each stands."""
    if next(values) > MOST_VALUES:
        fix = "write out what its aliases (*name) stand for, or put rows into a file of data"
        raise ConfigError(f"more than {MOST_VALUES:,} values", expected="a recipe", where=file, fix=fix)
    if isinstance(node, CommentedMap):
        result: dict[str, Any] = {}
        for name, value in node.items():
            key = (*at, str(name))
            if name in (node.lc.data or {}):  # not so for keys that a `<<` merge brought in
                origins[key] = f"{file}:{node.lc.key(name)[0] + 1}"
            result[str(name)] = _plain(value, key, file, origins, values)
        return result
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            origins[(*at, index)] = f"{file}:{node.lc.item(index)[0] + 1}"
        return [_plain(item, (*at, index), file, origins, values) for index, item in enumerate(node)]
    if isinstance(node, ScalarBoolean):  # an int to Python, as bool cannot be subclassed
        return bool(node)
    for plain in (bool, int, float, str):
        if isinstance(node, plain):
            return plain(node)
    return node
