"""Rows of a data set of the Hugging Face hub, or of a folder in its form.

Where a column of JSON files has values of several kinds, `datasets` keeps all of them as JSON text, but texts that are
JSON themselves as they stand: the text "007" comes back as the number 7, "null" as None. A folder's JSON files are
therefore read here, by what `datasets` says which they are; such a column of the hub is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain.errors import DataError
from posttrain.tasks.row_files import RawRow, read_files

_LINES = (".jsonl", ".ndjson")


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
        files = _json_files(dataset, config, split)
        if files:
            rows += _filled(read_files(files))
            continue
        try:
            loaded = load_dataset(dataset, config, split=split)
        except Exception as error:  # its errors come from four libraries and have no common base
            said = (str(error).strip() or repr(error)).splitlines()[0][:300]
            raise DataError(
                f"the data set {dataset!r} cannot be loaded: {said}",
                expected="a data set of the hub that can be reached, with this configuration and split",
                where=f"task.dataset {where!r}" + (f" config {config!r}" if config else ""),
                fix="correct dataset, config and split, or download the files and name them with `path`",
            ) from error
        if not len(loaded):
            raise DataError("no rows", expected="at least one row", where=where)
        _check_kept(loaded, where)
        rows += [RawRow(f"{where} row {number}", dict(row)) for number, row in enumerate(loaded, 1)]
    return rows


def _json_files(dataset: str, config: str | None, split: str) -> list[str]:
    """The JSON files of a split of a folder; none where `datasets` has to read it: other files, or part of a split."""
    from datasets import load_dataset_builder

    if not Path(dataset).expanduser().is_dir():
        return []
    try:
        settings = load_dataset_builder(str(Path(dataset).expanduser()), config).config
    except Exception:  # whatever it is, load_dataset says it in a moment
        return []
    found = [str(file) for file in (settings.data_files or {}).get(split, [])]
    if type(settings).__name__ != "JsonConfig" or getattr(settings, "field", None):
        return []
    return found if all(Path(file).is_file() and _by_rows(Path(file)) for file in found) else []


def _by_rows(file: Path) -> bool:
    """Whether our own reader takes the file: one object a line, or one list."""
    if file.suffix != ".json":
        return file.suffix in _LINES
    with file.open(encoding="utf-8-sig") as stream:
        return stream.read(1024).lstrip().startswith("[")


def _filled(rows: Sequence[RawRow]) -> list[RawRow]:
    """Rows with all the columns that one of them has, as a table has them."""
    names = dict.fromkeys(name for row in rows for name in row.columns)
    return [RawRow(row.where, {name: row.columns.get(name) for name in names}) for row in rows]


def _check_kept(loaded: Any, where: str) -> None:
    for name, kind in loaded.features.items():
        if type(kind).__name__ != "Json":
            continue
        other = next((value for value in loaded[name] if not isinstance(value, dict | list | None)), None)
        if other is not None:
            raise DataError(
                f"the column {name!r} has values of several kinds, such as {other!r}; `datasets` gives those that were "
                "texts back as numbers, null or lists where they read so",
                expected="one kind of value in each column of JSON files",
                where=where,
                fix="download the files and name them with `path`",
            )
