"""Whether a completion passes: what the rewards that judge say of it, weighed.

The mean is over the rewards that apply to the row, by their weights, so that 1 is what no completion can exceed; a
reward of negative weight takes from it. A completion passes where the mean reaches the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from posttrain.scoring.calling import score_batch
from posttrain.scoring.score import LENGTH, Outcome, Reward, Score
from posttrain.scoring.scorer import message_text, score_rows

if TYPE_CHECKING:
    from posttrain.rundir.completions import Completion
    from posttrain.scoring.pool import RewardPool

Row = dict[str, Any]
PASS = 1.0
_ROUNDING = 1e-9  # 0.3 of 0.4 is 0.7499999999999999, and passes at 0.75


def judged(
    rewards: Sequence[Reward], rows: Sequence[Row], completions: Sequence[Completion], pool: RewardPool | None
) -> list[Outcome]:
    """What the rewards say of each row's completion together; see `weighed`."""
    said = [_outcomes(reward, rows, completions, pool) for reward in rewards]
    return [weighed(rewards, [outcomes[i] for outcomes in said]) for i in range(len(rows))]


def weighed(rewards: Sequence[Reward], outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome of one completion's, as the mean of its scores by the rewards' weights.

    A reward that failed makes it a failure: what it would have said is not known. Where none of a positive weight
    applies there is no score. Of a single reward that applies the score is the reward's own; of several, what the first
    that read anything took the completion to say.
    """
    pairs = list(zip(rewards, outcomes, strict=True))
    failed = next((outcome for _, outcome in pairs if outcome.error is not None), None)
    if failed is not None:
        return failed
    applied = [(reward, outcome.score) for reward, outcome in pairs if outcome.score is not None]
    best = sum(reward.weight for reward, _ in applied if reward.weight > 0)
    if not best:
        return Outcome()
    if len(applied) == 1:
        return Outcome(applied[0][1])
    value = sum(reward.weight * score.value for reward, score in applied) / best
    notes = [f"{reward.name} {score.value:g}{f' ({score.note})' if score.note else ''}" for reward, score in applied]
    parsed = next((score.parsed for _, score in applied if score.parsed is not None), None)
    return Outcome(Score(value, parsed=parsed, note="; ".join(notes), bounded=False))


def passes(outcome: Outcome, threshold: float = PASS) -> bool:
    """Whether a completion passes."""
    return outcome.score is not None and outcome.score.value >= threshold - _ROUNDING


def judge(rewards: Sequence[Reward], threshold: float) -> dict[str, Any]:
    """What judged, as eval.jsonl records it: `rewards` (name, weight and, where there are any, kwargs, tasks and
    sources) and `threshold`."""
    named = []
    for reward in rewards:
        routes = {"tasks": sorted(reward.tasks or ()), "sources": sorted(reward.sources or ())}
        more = {"kwargs": dict(reward.kwargs), **routes}
        named.append({"name": reward.name, "weight": reward.weight} | {key: part for key, part in more.items() if part})
    return {"rewards": named, "threshold": threshold}


def _outcomes(
    reward: Reward, rows: Sequence[Row], completions: Sequence[Completion], pool: RewardPool | None
) -> list[Outcome]:
    texts = [completion.text for completion in completions]
    if reward.style != "trl":
        plain = [{**row, "prompt": message_text(row["prompt"])} for row in rows]
        if reward.of_length:
            plain = [{**row, LENGTH: len(one.token_ids)} for row, one in zip(plain, completions, strict=True)]
        return score_rows(reward, texts, plain, pool)
    # As TRL calls it: the whole batch, a conversation's completion as a message
    said = [
        text if isinstance(row["prompt"], str) else [{"role": "assistant", "content": text}]
        for row, text in zip(rows, texts, strict=True)
    ]
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    extras = {"completion_ids": [completion.token_ids for completion in completions]}
    return score_batch(reward, [row["prompt"] for row in rows], said, columns, extras)
