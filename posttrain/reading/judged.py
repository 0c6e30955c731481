"""What an evaluation was judged by, from its line of eval.jsonl, and what of its slices is worth showing.

Lines of before posttrain wrote it down are of evaluations by the task's own reward at 1. Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from posttrain.recipe.recipe import TASKS

Line = Mapping[str, Any]


def judge_of(line: Line, recipe: Line) -> dict[str, Any] | None:
    """`rewards` (a dict each: name, weight, perhaps kwargs, tasks, sources) and `threshold`; `None` if nobody can tell.

    Args:
        line: Of eval.jsonl.
        recipe: The run's, in plain values; may be empty.
    """
    if line.get("judge"):
        return dict(line["judge"])
    task = recipe.get("task")
    parts = (task.get("tasks") or [task]) if isinstance(task, dict) else []
    own = [str(part.get("name")) for part in parts]
    judging = [getattr(TASKS.get(name), "reward", None) for name in own]
    if not own or not all(judging):
        return None
    routed = [{"tasks": [name]} if len(own) > 1 else {} for name in own]
    rewards = [{"name": name, "weight": 1.0} | more for name, more in zip(judging, routed, strict=True)]
    return {"rewards": rewards, "threshold": 1.0}


def in_words(judge: Line | None, name: Callable[[str], str] = str) -> str:
    """Such as `math_answer, which passes a problem at a score of 1`.

    Args:
        judge: Of `judge_of`.
        name: How a reward is called.
    """
    if judge is None:
        return "a reward that is not recorded"
    rewards = judge["rewards"]
    one, same = len(rewards) == 1, len({each["weight"] for each in rewards}) == 1
    called = [
        name(each["name"])
        + (f" on {' and '.join(_rows_of(each))}" if _rows_of(each) else "")
        + ("" if one or same else f" (weight {each['weight']:g})")
        for each in rewards
    ]
    apart = not one and all(_rows_of(each) for each in rewards)
    what = "score" if one or apart else "mean" if same else "weighed mean"
    bar = f"{judge['threshold']:g}" + (" or more" if judge["threshold"] < 1 else "")
    which = "which passes" if one else "which pass"
    return f"{' and '.join(filter(None, [', '.join(called[:-1]), called[-1]]))}, {which} a problem at a {what} of {bar}"


def _rows_of(reward: Line) -> list[str]:
    """The tasks and sources that a reward judges; none: all rows."""
    return [*reward.get("tasks", ()), *reward.get("sources", ())]


def meaning(judge: Line | None) -> Any:
    """What two evaluations share whose passes mean the same; a weight says nothing of a reward that judges alone."""
    if judge is None:
        return None
    one = len(judge["rewards"]) == 1
    kept = [{key: part for key, part in each.items() if not (one and key == "weight")} for each in judge["rewards"]]
    return {"rewards": sorted(kept, key=repr), "threshold": judge["threshold"]}


def telling_slices(line: Line) -> dict[str, dict[str, Any]]:
    """`by` of a line of eval.jsonl, without problems that have no value in a column, and without what is all of them:
    they say nothing that pass@1 does not."""
    found = {
        column: {value: part for value, part in slices.items() if value != "None" and part["n"] != line.get("n")}
        for column, slices in (line.get("by") or {}).items()
    }
    return {column: slices for column, slices in found.items() if slices}
