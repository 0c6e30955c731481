"""What the tries of one reward add up to: how gold fared, false negatives, false positives, failures, times."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from posttrain.commands.rewards.variants import Example, Tries
from posttrain.scoring.score import Outcome, Reward

_FULL = 1 - 1e-9
_EXAMPLES = 3  # shown of what went wrong in one line of the table
_TEXT = 300  # characters of a completion kept with them

Said = Sequence[tuple[Tries, Sequence[Outcome]]]


def record(reward: Reward, said: Said, *, allowed: bool = False) -> dict[str, Any]:
    """All there is to say of one reward, in JSON's types.

    Args:
        reward: The one that was tried.
        said: Its tries, and for each completion what it said. The first are the gold completions.
        allowed: Gold completions may get less than 1.0.

    Returns:
        `reward`, `gold` (ok, failed, allowed, or `not judged` for a TRL-style function that did not fail), `why`,
        `false_negatives`, `false_positives` and `failures` (exceptions and time-outs) in all, `equal_forms` and
        `near_misses` (`n`, and how many of these were `paid` 1.0), and `tries`: for each way of making completions
        `name`, `kind`, `n`, `mean`, `none`, `ones` (share with 1.0 of those that are not None), `failures`,
        `ms_median`, `ms_max`, `amiss` (completions that a right reward would have judged otherwise) and `examples` of
        these.
    """
    judged = reward.style != "trl"
    gold, outcomes = said[0]
    right = {example.where for (example, _), outcome in zip(gold.pairs, outcomes, strict=True) if _is_full(outcome)}
    lines = [_line(tries, outcomes, right, judged=judged) for tries, outcomes in said]
    why = _what_gold_lacks(lines[0]) if judged else _how_it_fails(lines[0], outcomes)
    return {
        "reward": reward.name,
        "gold": ("ok" if judged else "not judged") if not why else "allowed" if allowed else "failed",
        "why": why,
        "false_negatives": sum(line["amiss"] for line in lines if line["kind"] == "gold"),
        "false_positives": sum(line["amiss"] for line in lines if line["kind"] == "wrong"),
        "failures": sum(line["failures"] for line in lines),
        "equal_forms": _paid(said, "equal"),
        "near_misses": _paid(said, "near"),
        "tries": lines,
    }


def _paid(said: Said, kind: str) -> dict[str, int]:
    """How many completions of a kind there are, and how many of them got 1.0."""
    outcomes = [outcome for tries, some in said if tries.kind == kind for outcome in some]
    return {"n": len(outcomes), "paid": sum(map(_is_full, outcomes))}


def _line(tries: Tries, outcomes: Sequence[Outcome], right: set[str], *, judged: bool) -> dict[str, Any]:
    values = [outcome.value for outcome in outcomes if outcome.value is not None]
    applied = sum(not _is_none(outcome) for outcome in outcomes)
    ms = [1000 * outcome.seconds for outcome in outcomes if outcome.seconds > 0]
    amiss, failed = [], []
    for (example, completion), outcome in zip(tries.pairs, outcomes, strict=True):
        if judged and _is_amiss(tries.kind, outcome, example.where in right):
            amiss.append((example, completion, outcome))
        elif outcome.error is not None:
            failed.append((example, completion, outcome))
    return {
        "name": tries.name,
        "kind": tries.kind,
        "n": len(outcomes),
        "mean": statistics.fmean(values) if values else None,
        "ones": sum(map(_is_full, outcomes)) / applied if applied else None,
        "none": sum(map(_is_none, outcomes)),
        "failures": sum(outcome.error is not None for outcome in outcomes),
        "ms_median": statistics.median(ms) if ms else None,
        "ms_max": max(ms) if ms else None,
        "amiss": len(amiss),
        "examples": [_example(*one) for one in [*amiss, *failed][:_EXAMPLES]],
    }


def _is_amiss(kind: str, outcome: Outcome, gold_was_right: bool) -> bool:
    if kind in ("wrong", "near"):
        return _is_full(outcome)
    if kind == "gold" or (kind in ("kept", "equal") and gold_was_right):
        return not _is_full(outcome) and not _is_none(outcome)
    return False


def _is_full(outcome: Outcome) -> bool:
    return outcome.value is not None and outcome.value >= _FULL


def _is_none(outcome: Outcome) -> bool:
    return outcome.value is None and outcome.error is None


def _what_gold_lacks(line: dict[str, Any]) -> str:
    if line["none"] == line["n"]:
        return f"it applies to none of {line['n']} gold completions"
    return f"{line['amiss']} of {line['n']} gold completions below 1.0" if line["amiss"] else ""


def _how_it_fails(line: dict[str, Any], outcomes: Sequence[Outcome]) -> str:
    """A TRL-style function's scale is its own, but on what it should learn from it has to give some number."""
    if not line["failures"]:
        return ""
    first = next(outcome.error for outcome in outcomes if outcome.error is not None)
    return f"it fails on {line['failures']} of {line['n']} gold completions, the first time by: {first}"


def _example(example: Example, completion: str, outcome: Outcome) -> dict[str, Any]:
    return {
        "row": example.where,
        "completion": completion if len(completion) <= _TEXT else completion[:_TEXT] + "...",
        "score": outcome.value,
        "note": outcome.score.note if outcome.score else "",
        "error": outcome.error,
    }
