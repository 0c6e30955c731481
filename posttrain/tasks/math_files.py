"""Reads raw rows for the task `math`: local files, or a data set of the Hugging Face hub."""

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


def read_files(paths: Sequence[str]) -> list[RawRow]:
    """The rows of .jsonl, .json (one list) and .parquet files, in order.

    Raises:
        DataError: A file is absent, empty or unreadable, or a row is not an object.
    """
    rows: list[RawRow] = []
    for path in paths:
        before = len(rows)
        for where, row in _file_rows(Path(path).expanduser()):
            if not isinstance(row, dict):
                raise DataError(f"a {type(row).__name__}", expected="one problem as a JSON object", where=where)
            rows.append(RawRow(where, row))
        if len(rows) == before:
            raise DataError("no rows", expected="at least one problem", where=str(path))
    return rows


def _file_rows(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix not in _READERS:
        raise DataError(f"file type {path.suffix!r}", expected=f"one of {', '.join(_READERS)}", where=str(path))
    if not path.is_file():
        raise DataError(
            "no such file", expected="a file of problems", where=str(path), fix=f"it starts at {Path.cwd()}"
        )
    if path.suffix == ".parquet":
        # Imported here: only this kind of file needs it.
        from pyarrow import ArrowException, parquet

        try:
            table = parquet.read_table(path)
        except (ArrowException, OSError) as error:
            raise DataError(f"unreadable: {error}", expected="a parquet file", where=str(path)) from error
        yield from ((f"{path} row {number}", row) for number, row in enumerate(table.to_pylist(), 1))
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error}", expected="UTF-8 text", where=str(path)) from error
    if path.suffix == ".json":
        rows = _parsed(text, str(path))
        if not isinstance(rows, list):
            raise DataError(f"a {type(rows).__name__}", expected="a list of problems", where=str(path))
        yield from ((f"{path} row {number}", row) for number, row in enumerate(rows, 1))
        return
    # Not splitlines(): it also splits at separators that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", _parsed(line, f"{path}:{number}")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"not JSON: {error}", expected="one problem as a JSON object", where=where) from error


def read_hub(dataset: str, config: str | None, splits: Sequence[str]) -> list[RawRow]:
    """The rows of a data set of the hub, or of a folder that `datasets.load_dataset` understands.

    Args:
        dataset: Such as `openai/gsm8k`.
        config: Its configuration, such as `main`; None where it has only one.
        splits: Such as `["train"]`, one after the other.

    Raises:
        DataError: It cannot be reached or loaded, with what `datasets` said, or a split is empty.
    """
    from datasets import load_dataset  # here: it takes seconds, and files don't need it

    rows: list[RawRow] = []
    for split in splits:
        where = f"{dataset} {split}"
        try:
            loaded = load_dataset(dataset, config, split=split)
        except Exception as error:  # its errors come from four libraries and have no common base
            said = (str(error).strip() or repr(error)).splitlines()[0][:300]
            raise DataError(
                f"the data set {dataset!r} cannot be loaded: {said}",
                expected="a data set of the hub that can be reached, with this configuration and split",
                where=f"task math, dataset {where!r}" + (f" config {config!r}" if config else ""),
                fix="correct dataset, config and split, or download the files and name them with `path`",
            ) from error
        if not len(loaded):
            raise DataError("no rows", expected="at least one problem", where=where)
        rows += [RawRow(f"{where} row {number}", dict(row)) for number, row in enumerate(loaded, 1)]
    return rows
