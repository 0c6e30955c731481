"""Old tasks' rows beside new ones by a share, against forgetting: how many, and which.

Rehearsal of a fixed share of old examples is the oldest remedy of continual learning (Robins 1995; for language models
about 1 % to 5 % in arXiv 2403.08763). The share is of the rows that a stage draws from, so that it holds in every pass
over them and a resumed run goes on with the same rows.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from posttrain.errors import ConfigError, DataError

Row = dict[str, Any]
KINDS = {"demonstrations": "demonstrations", "train": "prompts"}
"""Fields of `TaskData` that are trained on, and what messages call them."""


def check_shares(shares: Mapping[str, float], labels: list[str]) -> None:
    """Refuse shares of tasks that there are not, or that leave nothing to others.

    Raises:
        ConfigError: With what to write.
    """
    unknown = next((label for label in shares if label not in labels), None)
    if unknown is not None:
        raise ConfigError(f"no task {unknown!r}", expected="one of " + ", ".join(labels), where="replay")
    if shares and (sum(shares.values()) >= 1 or len(shares) == len(labels)):
        raise ConfigError(
            f"{', '.join(f'{label}: {share:g}' for label, share in shares.items())}",
            expected="shares with a sum below 1, and a task that none is named for: the new one",
            where="replay",
            fix="name the old tasks alone",
        )


def wanted(counts: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, int]:
    """Rows of each replayed task that make its share of all rows, given those of the others.

    Args:
        counts: Rows that each task has.
        shares: Of the replayed ones.
    """
    fresh = sum(count for label, count in counts.items() if label not in shares)
    total = fresh / (1.0 - sum(shares.values()))
    return {label: round(total * share) for label, share in shares.items()}


def replayed(
    rows: Mapping[str, list[Row]], shares: Mapping[str, float], *, seed: int, kind: str
) -> tuple[dict[str, list[Row]], list[str]]:
    """The rows of each task, of replayed ones as many as their share asks for, drawn by the seed, in their order.

    Args:
        rows: By task.
        shares: Of the replayed tasks. One without rows of this kind has none to replay.
        seed: Of the draw.
        kind: A key of `KINDS`.

    Returns:
        The rows, and a line for the user about each replayed task.

    Raises:
        DataError: A task has fewer rows than its share asks for.
    """
    some = {label: share for label, share in shares.items() if rows[label]}
    asked, kept, notes = wanted({label: len(own) for label, own in rows.items()}, some), dict(rows), []
    total = sum(asked.get(label, len(own)) for label, own in rows.items())
    for label, count in asked.items():
        own = rows[label]
        if count > len(own):
            most = len(own) / (total - count + len(own))
            raise DataError(
                f"{label} has {len(own)} {KINDS[kind]}, and {some[label]:g} of all would be {count} of {total}",
                expected=f"{count} or more",
                where=f"task.replay.{label}",
                fix=f"replay {most:.2g} of them, name more data, or take fewer {KINDS[kind]} of the new task",
            )
        drawn = random.Random(f"{seed}, {kind} of {label}").sample(range(len(own)), count)
        kept[label] = [own[place] for place in sorted(drawn)]
        notes.append(
            f"{label}: {count} of {len(own)} {KINDS[kind]} are replayed, {count / total if total else 0:.3g} of all "
            f"{total}"
        )
    return kept, notes
