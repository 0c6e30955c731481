"""Where a completion came from beside a method: what of it was given, and which row is a demonstration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from posttrain.reading.view import Reader
from posttrain.reading.view_query import Row, Table
from posttrain.rundir import reading as run_reading
from posttrain.rundir.layout import Layout


def given_and_sampled(row: Mapping[str, Any]) -> tuple[str, str]:
    """A completion's text in two: the beginning that was a demonstration's, and what the policy went on with.

    Of a conversation, which is JSON in the file, it is its last message's content.
    """
    text, count = str(row.get("completion") or ""), int(row.get("begun_characters") or 0)
    if count and text.startswith("[{"):
        with suppress(ValueError, KeyError, TypeError, IndexError, RecursionError):  # a text of that look
            text = str(json.loads(text)[-1]["content"])
    return text[:count], text[count:]


def source_in_words(row: Mapping[str, Any]) -> str:
    """What a row is beside a method, with its numbers; empty for a rollout like any other."""
    credit = row.get("credit")
    if row.get("source") == "demonstration":
        return "demonstration" + (f", credit {credit:+.3g}" if credit is not None else "")
    if row.get("source") != "begun":
        return ""
    own = f", credit {credit:+.3g}" if credit else ""
    return f"begun with {row['begun_tokens']} of {row.get('length') or '?'} tokens{own}"


def newest_group(layout: Layout, weights: Sequence[float]) -> list[Row]:
    """The rows of one prompt in the newest rollouts: the first with a beginning or a demonstration, else none."""
    for step, path in reversed(run_reading.rollout_files(layout)):
        reader = Reader(Table("rollout", step, path), weights)
        if "source" not in reader.names:
            return []
        rows = list(reader.rows(np.arange(reader.count)))
        told = next((place for place, row in enumerate(rows) if row["source"] != "rollout"), None)
        if told is None:
            continue
        prompt, first = rows[told]["prompt"], told
        while first and rows[first - 1]["prompt"] == prompt and rows[first - 1]["source"] != "demonstration":
            first -= 1
        last = told
        while rows[last]["source"] != "demonstration" and last + 1 < len(rows) and rows[last + 1]["prompt"] == prompt:
            last += 1
        return rows[first : last + 1]
    return []
