"""Completions as tables: what was sampled, what it scored and why, in parquet files that are written whole."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.storage import files

_TEXT, _NUMBER, _COUNT, _FLAG = "string", "float64", "int64", "bool"
_OF_BOTH = {"prompt": _TEXT, "completion": _TEXT, "note": _TEXT, "truncated": _FLAG, "length": _COUNT,
            "prompt_source": _TEXT}  # fmt: skip
ROLLOUTS = {"step": _COUNT, "advantage": _NUMBER, **_OF_BOTH}
EVALUATIONS = {
    "row": _COUNT, "sample": _COUNT, "passed": _FLAG, "score": _NUMBER, "error": _TEXT, "parsed": _TEXT, **_OF_BOTH,
}  # fmt: skip
"""Types of the columns in the files of each kind, by pyarrow's names: what is empty in one file has its type there too,
so that files go together. Rewards and their parts are numbers. A column that evaluations are sliced by is as its rows.
"""

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
    text. Rows may lack columns. No rows give a file with the columns of its kind, which its name says.

    Raises:
        CheckpointError: the file could not be written. What was at `path` before is whole.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = NAME.fullmatch(path.name)
    types = {} if not found else EVALUATIONS if found["stage"] else ROLLOUTS
    names = list(dict.fromkeys(name for row in rows for name in row)) if rows else list(types)
    columns = {name: _array([row.get(name) for row in rows], _type(name, types)) for name in names}
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


def _type(name: str, types: Mapping[str, str]) -> str | None:
    return types.get(name) or (_NUMBER if types and name.startswith(("reward/", "part/")) else None)


def _array(values: list[Any], kind: str | None) -> Any:
    """A column of this type; as its values are where that can't hold them, or none is said."""
    import pyarrow as pa

    try:
        if kind == _TEXT:
            cells = [_cell(value) for value in values]
            return pa.array(
                [cell if cell is None or isinstance(cell, str) else json.dumps(cell) for cell in cells], kind
            )
        if kind:
            return pa.array([_number(value) if kind == _NUMBER else files.plain(value) for value in values], kind)
    except (pa.ArrowException, TypeError, ValueError):
        pass
    return pa.array(_column(values))


def _number(value: Any) -> float | None:
    """Without NaN, by which TRL says that a reward does not apply: null, as other tables have it."""
    return None if value is None or math.isnan(value) else float(value)


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
