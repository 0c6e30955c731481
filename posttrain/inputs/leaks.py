"""Whether training has seen what a model is evaluated on. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.errors import DataError


def content_key(row: Mapping[str, Any]) -> str:
    """What makes a row the same example: its prompt, white space and case apart."""
    prompt = row["prompt"]
    text = prompt if isinstance(prompt, str) else " ".join(str(message["content"]) for message in prompt)
    return " ".join(text.lower().split())


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
