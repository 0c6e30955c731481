"""The columns of rows from files: which names are taken, and rows that all have the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Row = dict[str, Any]

RESERVED = frozenset(
    {
        "task",  # of a mixture: whose row it is
        "completion", "completions", "prompts", "completion_ids",  # what a reward is called with
        "trainer_state", "log_extra", "log_metric",
        # GRPOTrainer takes these for something else
        "image", "images", "environment", "environments", "messages", "chosen", "rejected",
    }
)  # fmt: skip
"""Names under which no column of a file reaches a reward. (`prompt` is what the model reads.)"""


def own_columns(columns: Mapping[str, Any]) -> Row:
    """What a row of a file keeps: every column but the prompt, which is the task's to write, and reserved names."""
    return {name: value for name, value in columns.items() if name not in RESERVED and name != "prompt"}


def left_out(columns: Iterable[str], said: list[str]) -> None:
    """Add a note on columns that no reward can be given under their names, if there are any.

    `completion` and `messages` are not told of: demonstrations, which no reward is to see.
    """
    names = sorted(RESERVED.intersection(columns) - {"completion", "messages"})
    if names:
        many = len(names) > 1
        said.append(
            f"the column{'s' if many else ''} {', '.join(names)} of the files {'do' if many else 'does'} not reach the "
            f"rewards: {'these names have' if many else 'the name has'} another meaning there; rename "
            f"{'them' if many else 'it'} if a reward needs {'them' if many else 'it'}"
        )


def content_key(row: Mapping[str, Any]) -> str:
    """What makes a row the same example: its prompt, white space and case apart."""
    prompt = row["prompt"]
    text = prompt if isinstance(prompt, str) else " ".join(str(message["content"]) for message in prompt)
    return " ".join(text.lower().split())


def rectangular(rows: Iterable[Row]) -> list[Row]:
    """The rows with the columns that any of them has; what a row has not is None."""
    rows = list(rows)
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{**columns, **row} for row in rows]
