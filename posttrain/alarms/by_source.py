"""The alarm about evaluations: a source that falls while the whole rises, which the mean hides.

An evaluation is compared with the one that the hybrid stage began from. The interval is that of two shares over
separate problems, the wider one: the problems are the same, and mostly go together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from posttrain.alarms.history import Finding
from posttrain.alarms.watch import Raised
from posttrain.curricula.base import SOURCES

KIND = "source_fell"
FELL, FELL_PROBLEM = 0.05, 0.15
"""By how much pass@1 of a source is lower than before the hybrid stage."""
ERRORS = 2.0
"""Standard errors that the fall must be."""
BEFORE = ("warmup", "start")
"""Evaluations that the hybrid stage may begin from, the first that there is."""
AFTER = ("hybrid", "averaged", "final")

Line = Mapping[str, Any]


def of_evaluations(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The alarms that a run's evaluations raise, as lines of `alarms.jsonl`.

    Args:
        lines: All of eval.jsonl so far, in their order.
    """
    before = next((line for stage in BEFORE for line in reversed(lines) if line.get("stage") == stage), None)
    raised, found = Raised(gone=1), list[dict[str, Any]]()
    if before is None:
        return found
    for line in lines:
        if line.get("stage") in AFTER:
            found += raised.lines(line["step"], list(source_fell(before, line)))
    return found


def source_fell(before: Line, now: Line) -> Iterator[Finding]:
    """Sources whose pass@1 fell from one evaluation to another in which all problems together did better."""
    risen = now["pass@1"] - before["pass@1"]
    if risen <= 0:
        return
    for column in SOURCES:
        was, parts = ((line.get("by") or {}).get(column, {}) for line in (before, now))
        for name in parts.keys() & was.keys() if len(parts) > 1 else ():
            yield from _fell(column, name, was[name], parts[name], (before["pass@1"], now["pass@1"]))


def _fell(column: str, name: str, was: Line, now: Line, whole: tuple[float, float]) -> Iterator[Finding]:
    fall = was["pass@1"] - now["pass@1"]
    error = math.sqrt(_variance(was) + _variance(now))
    if fall < FELL or fall < ERRORS * error:
        return
    evidence = (
        f"pass@1 of the {column} {name} fell from {was['pass@1']:.1%} to {now['pass@1']:.1%} ({now['n']:,} problems, "
        f"{fall / error:.1f} standard errors), while that of all rose from {whole[0]:.1%} to {whole[1]:.1%}"
    )
    advice = (
        f"give {name} more of the rollouts: more rows of it (train, or a file's weight), or a hybrid.curriculum that "
        "draws by sources, such as mixed_sources with shares; look at what it answers now by `posttrain view RUN "
        f"--eval final --source {name}`, and at its reward"
    )
    level = "problem" if fall >= FELL_PROBLEM else "warning"
    yield Finding(KIND, fall / FELL, level, evidence, advice, name)


def _variance(part: Line) -> float:
    """Of a share of n problems, with one passed and one failed more, so that none of n is not sure."""
    n = part["n"] + 2
    share = (part["pass@1"] * part["n"] + 1) / n
    return share * (1 - share) / n
