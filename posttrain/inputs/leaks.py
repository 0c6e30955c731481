"""Whether training has seen what a model is evaluated on. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.errors import DataError
from posttrain.tasks.columns import content_key

__all__ = ["check_disjoint", "content_key"]


def check_disjoint(held_out: Sequence[Mapping[str, Any]], *others: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an evaluation set that training has seen.

    Raises:
        DataError: With the number of shared rows and the first of them.
    """
    seen = {content_key(row) for rows in others for row in rows}
    shared = [row for row in held_out if content_key(row) in seen]
    if shared:
        raise DataError(
            f"{len(shared)} of {len(held_out)} evaluation rows are also trained on, the first: {shared[0]['prompt']!r}",
            expected="evaluation rows that no training row or demonstration repeats",
            where="task",
            fix="split the data again by content",
        )
