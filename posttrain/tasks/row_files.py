"""Rows from files of the user's own: .jsonl, .json (one list), .parquet, .csv and .tsv.

A cell of a .csv or .tsv file is text as it stands (`007` stays `007`), an empty one is null.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.errors import DataError

_READERS = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
_LONGEST_CELL = 2**27  # characters; the library's own limit is 131,072, shorter than a long text


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
            expected = "a cell for each column" if Path(row.where).suffix[:4] in (".csv", ".tsv") else None
            raise DataError(row.seen, expected=expected or "one row as a JSON object", where=row.where)
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
            raise DataError(
                f"not JSON: {error}",
                expected="a list of rows",
                where=str(path),
                fix="name it .jsonl, if each line is a row of its own",
            ) from error
        if not isinstance(rows, list):
            raise DataError(f"a {type(rows).__name__}", expected="a list of rows", where=str(path))
        yield from _numbered(path, rows)
        return
    if path.suffix in (".csv", ".tsv"):
        yield from _cells(path, text)
        return
    # Not splitlines(): it also splits at separators that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                yield _row(where, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield BadRow(where, f"not JSON: {error}")


def _cells(path: Path, text: str) -> Iterator[RawRow | BadRow]:
    csv.field_size_limit(_LONGEST_CELL)
    first = text.split("\n", 1)[0]
    # A spreadsheet writes semicolons or tabs where the comma is taken; the header says which
    delimiter = "\t" if path.suffix == ".tsv" else max(",;\t", key=first.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        where = f"{path}:{lines.line_num + 1}"
        try:
            cells = next(lines, None)
        except csv.Error as error:
            raise DataError(
                str(error), expected="a table whose cells are quoted as in RFC 4180", where=f"{path}:{lines.line_num}"
            ) from error
        if cells is None:
            return
        if not header:
            header = _header(path, cells)
        elif len(cells) == len(header):
            yield RawRow(where, {name: cell or None for name, cell in zip(header, cells, strict=True)})
        elif cells:
            yield BadRow(where, f"{len(cells)} cells in a row, and the header has {len(header)}: {', '.join(header)}")


def _header(path: Path, names: list[str]) -> list[str]:
    names = [name.strip() for name in names]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or "" in names:
        raise DataError(
            f"the first line names {'the column ' + repr(twice) + ' twice' if twice else 'a column without a name'}",
            expected="the names of the columns, each once",
            where=f"{path}:1",
        )
    return names


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
