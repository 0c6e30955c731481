"""What `posttrain view` cannot be asked for, and what to ask for instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from posttrain.errors import ConfigError
from posttrain.rundir.layout import STAGES

if TYPE_CHECKING:
    from posttrain.reading.view_query import Query, Table


def check_query(query: Query) -> None:
    """Refuse what no run could answer.

    Raises:
        ConfigError: A stage that there is not, a part of an evaluation, or a range that ends before it begins.
    """
    if query.stage is not None and query.stage not in STAGES:
        expected = f"one of {', '.join(STAGES)}"
        raise ConfigError(repr(query.stage), expected=expected, where="--eval", fix="leave it out for rollouts")
    if query.stage is not None and query.parts:
        raise ConfigError(
            "evaluations record no parts", expected="--part for the rollouts of training", where="--part",
            fix="leave out --eval, or filter by --min-reward and --max-reward",
        )  # fmt: skip
    if query.first is not None and query.last is not None and query.first > query.last:
        raise ConfigError(
            f"--from {query.first} is above --to {query.last}", expected="the earlier step first", where="--from",
            fix=f"--from {query.last} --to {query.first}",
        )  # fmt: skip


def not_recorded(found: Sequence[Table], query: Query) -> ConfigError:
    """The error of a step, or a range of steps, that none of the files there are is of."""
    low = query.first if query.step is None else query.step
    high = query.last if query.step is None else query.step
    near = sorted({each.step for each in found}, key=lambda step: max((low or step) - step, step - (high or step)))
    if query.step is not None:
        steps = f"step {query.step}"
    else:
        ends = f"from {low} on" if high is None else f"up to {high}" if low is None else f"{low} to {high}"
        steps = f"steps {ends}"
    return ConfigError(
        f"no completions of {steps} are recorded",
        expected=("one of those that are, such as " if query.step is not None else "steps that are, such as ")
        + ", ".join(str(step) for step in near[:4]),
        where="--step" if query.step is not None else "--to" if low is None else "--from",
        fix="run.save_completions_every says how often they are"
        if query.stage is None
        else "leave the steps out for the last evaluation of the stage",
    )
