"""Rows with completions from a file or standard input, each with the place it stands at."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from posttrain.errors import DataError
from posttrain.nearest import nearest_files
from posttrain.scoring.scorer import message_text

STDIN = "-"
_SHOWN = 5
_NO_IDS = (
    "write each completion's token ids there, or try the function with `rewards check RECIPE`, which has a tokenizer"
)


@dataclass(frozen=True)
class Line:
    """A row that can be scored.

    Args:
        where: `file:line`, or `file row n`.
        row: Its columns as they were read.
        completion: Its completion as text.
    """

    where: str
    row: dict[str, Any]
    completion: str


@dataclass(frozen=True)
class BadLine:
    """A row that cannot be scored, and why."""

    where: str
    seen: str
    expected: str
    fix: str | None = None

    def error(self) -> DataError:
        """What to raise for this one line."""
        return DataError(self.seen, expected=self.expected, where=self.where, fix=self.fix)


def read(source: str, columns: Sequence[str], completion_column: str = "completion") -> Iterator[Line | BadLine]:
    """The rows of a .jsonl, .json (a list) or .parquet file, or the JSON lines of standard input (`-`), in order.

    Args:
        source: A path, or `-`.
        columns: What every row needs besides its completion.
        completion_column: Text or chat messages; of messages the last one of the assistant is scored.

    Raises:
        DataError: The file as a whole cannot be read.
    """
    for where, value in _values(source):
        if isinstance(value, BadLine):
            yield value
        else:
            yield _checked(where, value, columns, completion_column)


def count(source: str, columns: Sequence[str], completion_column: str = "completion") -> int:
    """How many rows a file has, when all of them can be scored.

    Raises:
        DataError: The file cannot be read, has no rows, or some cannot be scored; the first of these are shown.
    """
    bad: list[BadLine] = []
    good = wrong = 0
    for line in read(source, columns, completion_column):
        if isinstance(line, Line):
            good += 1
            continue
        wrong += 1
        if len(bad) < _SHOWN:
            bad.append(line)
    if len(bad) == 1:
        raise bad[0].error()
    if bad:
        more = [f"  and {wrong - len(bad)} more"] if wrong > len(bad) else []
        raise DataError(
            "\n".join(
                [f"{wrong} of {good + wrong} rows cannot be scored", *(f"  {b.where}: {b.seen}" for b in bad), *more]
            ),
            expected=bad[0].expected,
            where=source,
            fix=bad[0].fix,
        )
    if not good:
        raise DataError("no rows", expected="at least one row with a completion", where=source)
    return good


def _checked(where: str, value: Any, columns: Sequence[str], completion_column: str) -> Line | BadLine:
    needed = ", ".join(dict.fromkeys([completion_column, *columns]))
    expected = f"a JSON object with {needed}"
    if not isinstance(value, dict):
        return BadLine(where, f"a {type(value).__name__}", expected)
    if completion_column not in value:
        return BadLine(where, f"no {completion_column!r} among {_names(value)}", expected)
    missing = [column for column in columns if column not in value]
    if missing:
        seen = f"the reward's column {missing[0]!r} is missing among {_names(value)}"
        return BadLine(where, seen, expected, _NO_IDS if missing[0] == "completion_ids" else None)
    completion = value[completion_column]
    try:
        text = message_text(completion)
    except (TypeError, AttributeError):
        return BadLine(where, f"{completion_column} is {completion!r:.60}", "text, or a list of chat messages")
    return Line(where, value, text)


def _names(row: dict[str, Any]) -> str:
    return ", ".join(map(repr, row)) or "no columns"


def _values(source: str) -> Iterator[tuple[str, Any]]:
    """Each row as it is written, or a BadLine, with its place."""
    if source == STDIN:
        yield from _json_lines("standard input", sys.stdin.buffer)
        return
    path = Path(source)
    if not path.is_file():
        raise DataError(
            "no such file", expected="JSON lines, a JSON list or parquet", where=source, fix=nearest_files(path)
        )
    try:
        if path.suffix == ".parquet":
            yield from _parquet_rows(path)
        elif path.suffix == ".json":
            yield from _json_list(path)
        else:
            with path.open("rb") as file:
                yield from _json_lines(source, file)
    except OSError as error:
        raise DataError(f"cannot be read: {error}", where=source) from error


def _json_lines(source: str, file: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    for number, raw in enumerate(file, 1):
        where = f"{source}:{number}"
        line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        if not line.strip():
            continue
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError) as error:
            yield where, BadLine(where, f"not JSON ({error}): {line[:60]!r}", "one JSON object a line")


def _json_list(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"not JSON: {error}",
            expected="one list of objects",
            where=str(path),
            fix="name a file of one object a line .jsonl",
        ) from error
    if not isinstance(rows, list):
        raise DataError(f"a {type(rows).__name__}", expected="one list of objects", where=str(path))
    yield from ((f"{path} row {number}", row) for number, row in enumerate(rows, 1))


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    from pyarrow import ArrowException, parquet  # imported here: only this kind of file needs it

    try:
        with parquet.ParquetFile(path) as file:
            batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=1024))
            yield from ((f"{path} row {n}", row) for n, row in enumerate(chain.from_iterable(batches), 1))
    except ArrowException as error:
        raise DataError(f"unreadable: {error}", expected="a parquet file", where=str(path)) from error
