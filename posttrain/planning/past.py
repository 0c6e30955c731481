"""What a run directory already knows about its recipe: how long steps take, how often problems are solved, the KL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from posttrain.recipe.recipe import Recipe
from posttrain.rundir import looking
from posttrain.rundir.layout import Layout
from posttrain.rundir.unstarted import is_unstarted
from posttrain.storage.files import read_lines


@dataclass(frozen=True, kw_only=True)
class Past:
    """What earlier steps in the same directory showed. What there was none of is empty or None.

    Attributes:
        path: The directory.
        warmup_seconds: Of each warm-up step.
        sft_seconds: Of each hybrid step of SFT alone.
        grpo_seconds: Of each hybrid step of GRPO alone.
        both_seconds: Of each hybrid step of both.
        evaluation_seconds: Of each evaluation.
        solve_rate: Of the held-out problems, before GRPO: after the warm-up, or at the start.
        rates: Solve rate of each prompt, where a curriculum measured them.
        dead_share: Mean share of groups without a difference in reward.
        kl: Of the GRPO steps, in nats per token.
        completion: Mean tokens of a completion in training.
        truncated: Mean share of completions cut off in training.
    """

    path: str
    warmup_seconds: tuple[float, ...] = ()
    sft_seconds: tuple[float, ...] = ()
    grpo_seconds: tuple[float, ...] = ()
    both_seconds: tuple[float, ...] = ()
    evaluation_seconds: tuple[float, ...] = ()
    solve_rate: float | None = None
    rates: tuple[float, ...] = ()
    dead_share: float | None = None
    kl: tuple[float, ...] = ()
    completion: float | None = None
    truncated: float | None = None

    @property
    def typical_kl(self) -> float | None:
        """The median of the KL."""
        return median(self.kl) if self.kl else None


NUMBERS_OF_STEPS = re.compile(r"(?:warmup|hybrid)\.(?:steps|time_limit_s): ")
"""Differences with which a run still tells how long steps of the recipe take, and what they show."""


def differences(folder: Path, recipe: Recipe) -> list[str]:
    """`key: was -> is` for all by which a run directory would refuse a recipe; empty without a run."""
    layout = Layout(folder)
    if not layout.recipe_file.exists() or is_unstarted(layout):
        return []
    return looking.differences(layout, recipe)


def tells_of(other: list[str]) -> bool:
    """Whether what differs leaves the steps of a run those of the recipe."""
    return all(NUMBERS_OF_STEPS.match(line) for line in other)


def past_of(folder: Path) -> Past | None:
    """What a run directory shows; None where there is no run, or nothing of it yet."""
    layout = Layout(folder)
    if not layout.steps_file.exists() and not layout.eval_file.exists() and not layout.pass_rates_file.exists():
        return None
    steps, evals = (read_lines(file) if file.exists() else [] for file in (layout.steps_file, layout.eval_file))
    rates = read_lines(layout.pass_rates_file) if layout.pass_rates_file.exists() else []
    hybrid = [line for line in steps if line.get("stage") == "hybrid"]
    early = [line["pass@1"] for stage in ("warmup", "start") for line in evals if line.get("stage") == stage]
    return Past(
        path=str(folder),
        warmup_seconds=_seconds(line for line in steps if line.get("stage") == "warmup"),
        sft_seconds=_seconds(line for line in hybrid if not line["mix"]["grpo"]),
        grpo_seconds=_seconds(line for line in hybrid if not line["mix"]["sft"]),
        both_seconds=_seconds(line for line in hybrid if line["mix"]["sft"] and line["mix"]["grpo"]),
        evaluation_seconds=tuple(_numbers(evals, "seconds")),
        solve_rate=early[0] if early else None,
        rates=tuple(_numbers(rates, "pass_rate")),
        dead_share=_dead(hybrid),
        kl=tuple(_numbers(hybrid, "kl")),
        completion=_mean(hybrid, "completion_length"),
        truncated=_mean(hybrid, "truncated_share"),
    )


def _dead(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean share of dead groups among those sampled, replaced ones included."""
    refilled = [line["refill"] for line in lines if line.get("refill")]
    if refilled:
        return fmean((each["replaced"] + each["still_dead"]) / each["prompts"] for each in refilled)
    return _mean(lines, "zero_std_share")


def _seconds(lines: Iterable[Mapping[str, Any]]) -> tuple[float, ...]:
    return tuple(float(line["seconds"]["total"]) for line in lines if (line.get("seconds") or {}).get("total"))


def _numbers(lines: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    return [float(line[name]) for line in lines if line.get(name) is not None]


def _mean(lines: Iterable[Mapping[str, Any]], name: str) -> float | None:
    values = _numbers(lines, name)
    return fmean(values) if values else None
