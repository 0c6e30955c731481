"""Rows of a data set of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.errors import DataError
from posttrain.tasks.row_files import RawRow


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
                where=f"task.dataset {where!r}" + (f" config {config!r}" if config else ""),
                fix="correct dataset, config and split, or download the files and name them with `path`",
            ) from error
        if not len(loaded):
            raise DataError("no rows", expected="at least one row", where=where)
        rows += [RawRow(f"{where} row {number}", dict(row)) for number, row in enumerate(loaded, 1)]
    return rows
