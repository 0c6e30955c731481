"""What the completions of each source scored, for the record of a step and whoever shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.curricula.base import PROMPT_SOURCE, SOURCES, Curriculum


def source_column(columns: Sequence[str], curriculum: Curriculum | None) -> str | None:
    """The column of rows that says where they are from: a curriculum's, else `source`, or the `task` of a mixture."""
    if curriculum is not None:
        return curriculum.source_of(columns)
    return next((name for name in SOURCES if name in columns), None)


def by_source(rows: Sequence[Mapping[str, Any]], weights: Mapping[str, float]) -> dict[str, dict[str, Any]] | None:
    """The mean rewards of each source's completions.

    Args:
        rows: Of `ledger.rollout_rows`, with a column `prompt_source` where sources are known.
        weights: Of each reward.

    Returns:
        Of each source by name: `completions`; `reward`, the mean of the weighted sums over those that a reward scored,
        `None` where there is none; `rewards`, the mean of each that applied. `None` where no row has a source.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if PROMPT_SOURCE in row:
            found.setdefault(row[PROMPT_SOURCE], []).append(row)
    return {name: _means(found[name], weights) for name in sorted(found)} or None


def _means(rows: Sequence[Mapping[str, Any]], weights: Mapping[str, float]) -> dict[str, Any]:
    scores = [{name: row[f"reward/{name}"] for name in weights if _is_score(row.get(f"reward/{name}"))} for row in rows]
    sums = [sum(weights[name] * value for name, value in of.items()) for of in scores if of]
    seen = {name: [of[name] for of in scores if name in of] for name in weights}
    return {
        "completions": len(rows),
        "reward": _mean(sums),
        "rewards": {name: _mean(values) for name, values in seen.items() if values},
    }


def _is_score(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
