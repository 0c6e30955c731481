"""Why prompts and demonstrations were drawn: of a step, each of them; of a run, how the draws moved and by what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.curricula import CURRICULA
from posttrain.curricula.base import outcomes_of

MOST = 8
"""Prompts of a step that are told of one by one."""


def of_step(seen: Mapping[str, Any] | None) -> list[str]:
    """The sentences on a step's prompts, from `curriculum` of its line; none where it drew none."""
    if not seen:
        return []
    name, windows = str(seen.get("name")), seen.get("windows") or []
    kind, count = CURRICULA.get(name), sum(len(window["rows"]) for window in windows)
    what = "prompts" if any("rewards" in window for window in windows) else "demonstrations"
    sentences = [f"The curriculum {name} drew {count:,} {what}{_gave(seen)}."]
    if kind is None:
        return [*sentences, "This version knows no such curriculum, so its reasons are not told."]
    told = [
        f"{what[:-1].capitalize()} {row}{_rate(outcome.rate) if outcome.rewards else ''}: {kind.reason(window, place)}."
        for window in windows
        for place, (row, outcome) in enumerate(zip(window["rows"], outcomes_of(window), strict=True))
    ]
    rest = [f"{len(told) - MOST:,} further {what} are in steps.jsonl."] if len(told) > MOST else []
    return [*sentences, *told[:MOST], *rest]


def of_run(lines: Sequence[Mapping[str, Any]], parts: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """The sentences on a run's draws.

    Args:
        lines: The hybrid stage's lines of steps.jsonl.
        parts: The same in quarters.
    """
    seen = [line["curriculum"] for line in lines if line.get("curriculum")]
    if not seen:
        return []
    count = sum(len(window["rows"]) for each in seen for window in each["windows"])
    rows = len({row for each in seen for window in each["windows"] for row in window["rows"]})
    sentences = [f"The curriculum {seen[-1]['name']} drew {count:,} prompts, {rows:,} different ones."]
    quarters = [[line["curriculum"] for line in part if line.get("curriculum")] for part in parts]
    for key, what in (("solve_rate", "Their solve rate"), ("with_signal", "The share of groups with a signal")):
        means = [_mean([each.get(key) for each in part]) for part in quarters]
        if any(mean is not None for mean in means):
            sentences.append(f"{what} was by quarter {', '.join('-' if m is None else f'{m:.2f}' for m in means)}.")
    return sentences + _by_source(quarters)


def of_demonstrations(lines: Sequence[Mapping[str, Any]], quarters: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """The sentences on the demonstrations that a warm-up drew.

    Args:
        lines: The warm-up's lines of steps.jsonl.
        quarters: The same in quarters.
    """
    seen = [line["curriculum"] for line in lines if line.get("curriculum")]
    if not seen:
        return []
    windows = [window for each in seen for window in each["windows"]]
    rows = [row for window in windows for row in window["rows"]]
    sentences = [
        f"In the warm-up the curriculum {seen[-1]['name']} drew {len(rows):,} demonstrations, {len(set(rows)):,} "
        "different ones."
    ]
    parts = [[line["curriculum"] for line in part if line.get("curriculum")] for part in quarters]
    sentences += _by_source(parts, "demonstrations")
    measured = [each for window in windows for each in window.get("measured", ())]
    if not measured:
        return sentences
    passes, tokens = (sum(each[key] for each in measured) for key in ("rows", "tokens"))
    first, last = measured[0]["values"], measured[-1]["values"]
    moved = "; ".join(f"{name}: {first[name]:.3f} to {last[name]:.3f}" for name in last if name in first)
    kind = measured[-1]["kind"]
    return [
        *sentences,
        f"It measured {kind} {len(measured):,} times, which took {passes:,} passes of a demonstration and {tokens:,} "
        f"tokens" + (f" (from the first to the last: {moved})." if len(last) <= MOST else "."),
    ]


def of_passes(file: Path) -> list[str]:
    """What a curriculum took before the stage, from `curriculum.json`; none where nothing passed through the model."""
    took = json.loads(file.read_text(encoding="utf-8")).get("passes") if file.exists() else None
    if not took:
        return []
    return [
        f"Before the stage {took['prompts']:,} prompts passed through the model once, {took['tokens']:,} tokens in "
        f"{took['seconds']:.1f} s, for the angles of their hidden states; these seconds are no step's."
    ]


def _by_source(quarters: Sequence[Sequence[Mapping[str, Any]]], key: str = "prompts") -> list[str]:
    names = sorted({name for part in quarters for each in part for name in each.get("sources") or {}})
    if not names or len(names) > MOST:
        return []
    told = []
    for name in names:
        shares = []
        for part in quarters:
            counts = [each["sources"] for each in part if each.get("sources")]
            every = sum(of[key] for some in counts for of in some.values())
            own = sum(some[name][key] for some in counts if name in some)
            shares.append(f"{own / every:.0%}" if every else "-")
        told.append(f"{name}: {', '.join(shares)}")
    return [f"Shares of the sources by quarter: {'; '.join(told)}."]


def _gave(seen: Mapping[str, Any]) -> str:
    named = (("solve_rate", "a solve rate of {:.2f}"), ("with_signal", "{:.0%} of the groups with a signal"))
    words = [text.format(seen[key]) for key, text in named if seen.get(key) is not None]
    return f", with {' and '.join(words)}" if words else ""


def _rate(rate: float | None) -> str:
    return " (nothing was scored)" if rate is None else f" (solve rate {rate:.2f})"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
