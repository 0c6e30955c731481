"""Rows from files of the user's own: .jsonl, .json (one list) and .parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.errors import DataError

_READERS = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it was read, and where it stands, as `file:line`, `file row n` or `dataset split row n`."""

    where: str
    columns: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no JSON object: where it stands and what is there, in words."""

    where: str
    seen: str


def read_files(paths: Sequence[str]) -> list[RawRow]:
    """The rows of the files, in order.

    Raises:
        DataError: A file is absent, empty or unreadable, or a row is not an object.
    """
    rows: list[RawRow] = []
    for row in each_row(paths):
        if isinstance(row, BadRow):
            raise DataError(row.seen, expected="one row as a JSON object", where=row.where)
        rows.append(row)
    return rows


def each_row(paths: Sequence[str]) -> Iterator[RawRow | BadRow]:
    """The rows of the files, in order, with those that are no objects, for a caller that names all of them.

    Raises:
        DataError: A file is absent, empty or unreadable.
    """
    for path in paths:
        empty = True
        for row in _file_rows(Path(path).expanduser()):
            empty = False
            yield row
        if empty:
            raise DataError("no rows", expected="at least one row", where=str(path))


def _file_rows(path: Path) -> Iterator[RawRow | BadRow]:
    if path.suffix not in _READERS:
        raise DataError(f"file type {path.suffix!r}", expected=f"one of {', '.join(_READERS)}", where=str(path))
    if not path.is_file():
        raise DataError("no such file", expected="a file of rows", where=str(path), fix=f"it starts at {Path.cwd()}")
    if path.suffix == ".parquet":
        yield from _numbered(path, _parquet(path))
        return
    try:
        text = path.read_text(encoding="utf-8-sig")  # with a byte order mark or without
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error}", expected="UTF-8 text", where=str(path)) from error
    except OSError as error:
        raise DataError(f"can't be read: {error}", expected="a file of rows", where=str(path)) from error
    if path.suffix == ".json":
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not JSON: {error}", expected="a list of rows", where=str(path)) from error
        if not isinstance(rows, list):
            raise DataError(f"a {type(rows).__name__}", expected="a list of rows", where=str(path))
        yield from _numbered(path, rows)
        return
    # Not splitlines(): it also splits at separators that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                yield _row(where, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield BadRow(where, f"not JSON: {error}")


def _parquet(path: Path) -> list[Any]:
    from pyarrow import ArrowException, parquet  # here: only this kind of file needs it

    try:
        return list(parquet.read_table(path).to_pylist())
    except (ArrowException, OSError) as error:
        raise DataError(f"unreadable: {error}", expected="a parquet file", where=str(path)) from error


def _numbered(path: Path, rows: Sequence[Any]) -> Iterator[RawRow | BadRow]:
    return (_row(f"{path} row {number}", row) for number, row in enumerate(rows, 1))


def _row(where: str, row: Any) -> RawRow | BadRow:
    if isinstance(row, dict):
        return RawRow(where, row)
    return BadRow(where, f"a {type(row).__name__}, not a JSON object")
