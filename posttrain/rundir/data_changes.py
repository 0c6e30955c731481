"""What a run remembers of its rows (data.json), so that a data set that changed can be told in words.

A hash of everything notices a change. To say which, each split keeps three bytes a row (4 MB for a million rows), and
the first rows keep the beginnings of their values.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Contents = dict[str, Any]

BYTES_PER_ROW = 3
ROWS_SHOWN = 2000
LONGEST_VALUE = 60
COLUMNS_TOLD = 3


def contents(**splits: Sequence[Row]) -> Contents:
    """What data.json holds: the fingerprint of all rows in order, and of each split what `data_changes` compares.

    A row's hash is 24 bits: two rows of a data set may share one, which blurs the counts of a change to a part in
    millions and hides a first differing row as rarely. The fingerprint is 128 bits and hides nothing.
    """
    everything = hashlib.blake2b(digest_size=16)
    described = {}
    for name, rows in splits.items():
        described[name] = _split(rows, everything)
        everything.update(b"\0")
    return {"fingerprint": everything.hexdigest(), "splits": described}


def _split(rows: Sequence[Row], everything: Any) -> Contents:
    whole, hashes, columns = hashlib.blake2b(digest_size=16), bytearray(), dict[str, None]()
    for row in rows:
        text = json.dumps(row, sort_keys=True, default=str).encode()
        everything.update(text)
        whole.update(text)
        hashes += hashlib.blake2b(text, digest_size=BYTES_PER_ROW).digest()
        columns.update(dict.fromkeys(row))
    return {
        "rows": len(rows),
        "columns": sorted(columns),
        "hash": whole.hexdigest(),
        "row_hashes": base64.b64encode(hashes).decode(),
        "first_rows": [{name: _shortened(value) for name, value in row.items()} for row in rows[:ROWS_SHOWN]],
    }


def _shortened(value: Any) -> str:
    """A value's beginning as JSON; of a long one also its length and a hash, in which two that begin alike differ."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    if len(text) <= LONGEST_VALUE:
        return text
    mark = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=3).hexdigest()
    return f"{text[: LONGEST_VALUE - 20]}... ({len(text)} characters, {mark})"


def data_changes(was: Contents, now: Contents) -> list[str]:
    """The differences between two `contents`, in words, `was -> is`: one line or two a split that changed."""
    before, after = was.get("splits", {}), now.get("splits", {})
    lines = []
    for name in dict.fromkeys([*before, *after]):
        one, other = before.get(name, _NONE), after.get(name, _NONE)
        if one["hash"] != other["hash"]:
            lines += _changes(f"data, {name}", one, other)
    return lines


_NONE: Contents = {"rows": 0, "columns": [], "hash": "", "row_hashes": "", "first_rows": []}


def _changes(where: str, was: Contents, now: Contents) -> list[str]:
    said = [f"{was['rows']:,} -> {now['rows']:,} rows" if was["rows"] != now["rows"] else f"{now['rows']:,} rows"]
    for what, left, right in (("removed", was, now), ("added", now, was)):
        names = [name for name in left["columns"] if name not in right["columns"]]
        if names and right["rows"]:
            said.append(f"columns {what}: {', '.join(names)}")
    before, after = _row_hashes(was), _row_hashes(now)
    gone, new = (Counter(before) - Counter(after)).total(), (Counter(after) - Counter(before)).total()
    said.append(f"{gone:,} gone, {new:,} new" if gone or new else "the same ones in another order")
    lines = [f"{where}: {'; '.join(said)}"]
    first = next((i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), None)
    if first is None:
        first = min(len(before), len(after))
    if first < max(len(before), len(after)):
        lines.append(f"{where}, row {first} (from 0, the first that differs): {_row_change(was, now, first)}")
    return lines


def _row_hashes(split: Contents) -> list[bytes]:
    raw = base64.b64decode(split["row_hashes"])
    return [raw[start : start + BYTES_PER_ROW] for start in range(0, len(raw), BYTES_PER_ROW)]


def _row_change(was: Contents, now: Contents, row: int) -> str:
    if row >= was["rows"]:
        return "(absent) -> " + _as_text(now["first_rows"][row]) if row < ROWS_SHOWN else "(absent) -> a row"
    if row >= now["rows"]:
        return _as_text(was["first_rows"][row]) + " -> (absent)" if row < ROWS_SHOWN else "a row -> (absent)"
    if row >= ROWS_SHOWN:
        return f"what it was is not kept beyond row {ROWS_SHOWN}"
    before, after = was["first_rows"][row], now["first_rows"][row]
    differing = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    told = [f"{name}: {before.get(name, '(absent)')} -> {after.get(name, '(absent)')}" for name in differing]
    more = [f"and {len(told) - COLUMNS_TOLD} more columns"] if len(told) > COLUMNS_TOLD else []
    return "; ".join([*told[:COLUMNS_TOLD], *more])


def _as_text(row: Mapping[str, str]) -> str:
    told = [f"{name}: {value}" for name, value in row.items()]
    return "; ".join([*told[:COLUMNS_TOLD], *(["..."] if len(told) > COLUMNS_TOLD else [])])
