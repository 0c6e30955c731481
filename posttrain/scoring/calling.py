"""One guarded call of one reward: what it returns, or how it failed, as an `Outcome`."""

from __future__ import annotations

import contextlib
import inspect
import math
import numbers
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from posttrain.errors import RewardError
from posttrain.scoring.score import NOT_FOR_TRL, SOURCE, Outcome, Reward, Score, as_number, describe


def score_completion(reward: Reward, completion: str, row: Mapping[str, Any]) -> Outcome:
    """Score one completion; whatever the function raises or returns amiss becomes `Outcome.error`.

    Args:
        completion: The completion as text.
        row: The example's columns, one value each.
    """
    if not reward.applies_to(row):
        return Outcome()
    if reward.style == "trl":
        columns = {key: [value] for key, value in row.items()}
        return score_batch(reward, [row.get("prompt", "")], [completion], columns)[0]
    score = failure = None
    arguments = reward.arguments(row)
    started = time.perf_counter()
    try:
        if reward.parameters["completion"].kind is inspect.Parameter.POSITIONAL_ONLY:
            score = _as_score(reward.function(completion, **arguments))
        else:
            score = _as_score(reward.function(completion=completion, **arguments))
    except (Exception, SystemExit) as error:
        failure = describe(error)
    return Outcome(score, failure, time.perf_counter() - started)


def score_batch(
    reward: Reward,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    columns: Mapping[str, Any],
    extras: Mapping[str, Any] | None = None,
) -> list[Outcome]:
    """Call a TRL-style function once for a batch, as GRPOTrainer would; failures count for every completion.

    Args:
        prompts, completions: Length B, text or conversations, passed on as they are.
        columns: Lists of length B.
        extras: `completion_ids` and TRL's `trainer_state`, `log_extra`, ...

    Returns:
        B outcomes. None and NaN mean 'does not apply', as they do in TRL. Rows of tasks and sources that are not the
        reward's are left out of the call.
    """
    size = len(completions)
    if reward.tasks is not None or reward.sources is not None:
        by = {name: columns[name] for name in ("task", SOURCE) if name in columns}
        taken = [i for i in range(size) if reward.applies_to({name: values[i] for name, values in by.items()})]
        if len(taken) < size:
            return _score_some(taken, reward, prompts, completions, columns, extras or {})
    started = time.perf_counter()
    try:
        columns = {key: values for key, values in columns.items() if key not in NOT_FOR_TRL}
        batch = {"prompts": list(prompts), **(extras or {}), **columns}
        values = reward.function(completions=list(completions), **reward.arguments(batch))
        if isinstance(values, Awaitable):
            import asyncio  # not above: every worker would load it, for none of its rewards

            values = asyncio.run(_wait_for(values))
        values = list(values)
        if len(values) != size:
            raise RewardError(f"{len(values)} values", expected=f"one for each of {size} completions")
    except (Exception, SystemExit) as error:
        return [Outcome(error=describe(error), seconds=(time.perf_counter() - started) / max(size, 1))] * size
    seconds = (time.perf_counter() - started) / max(size, 1)
    return [replace(_trl_outcome(value), seconds=seconds) for value in values]


def _score_some(
    taken: Sequence[int],
    reward: Reward,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    columns: Mapping[str, Any],
    extras: Mapping[str, Any],
) -> list[Outcome]:
    outcomes = [Outcome()] * len(completions)
    if not taken:
        return outcomes

    def only(values: Any) -> list[Any]:
        return [values[i] for i in taken]

    ids = extras.get("completion_ids")
    found = score_batch(
        replace(reward, tasks=None),
        only(prompts),
        only(completions),
        {key: only(values) for key, values in columns.items()},
        {**extras, "completion_ids": only(ids)} if ids is not None else extras,
    )
    for i, outcome in zip(taken, found, strict=True):
        outcomes[i] = outcome
    return outcomes


def _trl_outcome(value: Any) -> Outcome:
    try:
        if value is None or _is_nan(value):
            return Outcome()
        return Outcome(Score(as_number(value, "the returned value"), bounded=False))
    except Exception as error:  # what a value's own methods raise is one value's failure
        return Outcome(error=describe(error))


def _is_nan(value: Any) -> bool:
    """Whether a value is NaN: Python's, of any of NumPy's widths, or in a tensor of one element of whatever library."""
    if not isinstance(value, numbers.Real) and callable(getattr(value, "item", None)):
        with contextlib.suppress(ValueError, RuntimeError, TypeError):  # several elements: no number at all
            value = value.item()
    return isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational) and math.isnan(value)


def _as_score(value: Any) -> Score | None:
    if value is None or isinstance(value, Score):
        return value
    return Score(as_number(value, "the returned value"))


async def _wait_for(value: Awaitable[Any]) -> Any:
    return await value
