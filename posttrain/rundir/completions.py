"""Completions as tables: what was sampled, what it scored and why, in parquet files that are written whole."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.storage import files

NAME = re.compile(r"(?:step|eval-(?P<stage>[a-z]+))-(?P<step>\d+)\.parquet")


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer.

    Attributes:
        text: The decoded tokens, special tokens left out.
        token_ids: The sampled tokens up to and including the end-of-sequence token.
        length: How many tokens that is.
        truncated: Whether the limit came before an end-of-sequence token.
    """

    text: str
    token_ids: list[int]
    length: int
    truncated: bool


def write_completions(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows to a parquet file, whole or not at all.

    A column holds numbers, booleans or text; lists and mappings (conversational prompts, say) are written as JSON
    text. Rows may lack columns. No rows give a file without columns.

    Raises:
        CheckpointError: the file could not be written. What was at `path` before is whole.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pa.array(_column([row.get(name) for row in rows])) for name in names}
    with files.replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
    return path


def read_completions(path: Path, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a parquet file, with all columns or those of `columns` that it has."""
    import pyarrow.parquet as pq

    if columns is not None:
        present = pq.read_schema(path).names
        columns = [name for name in columns if name in present]
    return pq.read_table(path, columns=columns).to_pylist()


def stage_and_step(path: Path) -> tuple[str, int] | None:
    """What a file name of the completions folder stands for; training rollouts are of the stage "hybrid"."""
    found = NAME.fullmatch(path.name)
    return (found["stage"] or "hybrid", int(found["step"])) if found else None


def _column(values: list[Any]) -> list[Any]:
    """One type for the whole column: a mixture becomes text, and so do nested values."""
    values = [_cell(value) for value in values]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) > 1:
        return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return values


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(files.plain(value), ensure_ascii=False)
    if isinstance(value, float):
        return value  # parquet holds NaN
    return files.plain(value)
