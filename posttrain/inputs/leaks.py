"""Whether training has seen what a model is evaluated on. Importing this loads no torch."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.errors import DataError
from posttrain.tasks.columns import content_key

__all__ = ["among", "check_disjoint", "content_key", "prompt_hashes"]

BYTES_PER_PROMPT = 6  # 48 bits: of a million prompts and a thousand others two share one in some 300,000 cases


def prompt_hashes(*parts: Sequence[Mapping[str, Any]]) -> str:
    """Hashes of the prompts of rows, as base64 text: what tells later whether a model was trained on a problem."""
    return base64.b64encode(b"".join(sorted({_hash(row) for rows in parts for row in rows}))).decode()


def among(rows: Sequence[Mapping[str, Any]], hashes: str) -> list[Mapping[str, Any]]:
    """Those of the rows whose prompts are among the hashes of `prompt_hashes`."""
    raw = base64.b64decode(hashes)
    known = {raw[start : start + BYTES_PER_PROMPT] for start in range(0, len(raw), BYTES_PER_PROMPT)}
    return [row for row in rows if _hash(row) in known]


def _hash(row: Mapping[str, Any]) -> bytes:
    return hashlib.blake2b(content_key(row).encode("utf-8", "replace"), digest_size=BYTES_PER_PROMPT).digest()


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
