"""Which held-out completions the report shows: those that flipped since the warm-up, and a few of the last ones."""

from __future__ import annotations

from typing import Any

from posttrain.report.tables import STAGE_NAMES
from posttrain.rundir.layout import Layout
from posttrain.rundir.reading import eval_results, last_evals

Lines = list[dict[str, Any]]
FLIPS_SHOWN = 6  # in each direction
COMPLETIONS_SHOWN = 3  # right ones and wrong ones


def flips(layout: Layout, head: dict[str, Any] | None) -> dict[str, Any] | None:
    """The problems whose greedy completion turned right or wrong, with both completions.

    Args:
        layout: The run.
        head: What `tables.headline` gives: the two evaluations to compare; None if there are none.

    Returns:
        before, after: names of the two; `directions`: turned right and turned wrong, each with `count` and the first
        few as `shown`. None when nothing can be compared.
    """
    if head is None:
        return None
    before = eval_results(layout, head["before"]["stage"])
    after = eval_results(layout, head["after"]["stage"])
    found: dict[bool, Lines] = {True: [], False: []}
    counts = {True: 0, False: 0}
    for key, new in after.items():
        old = before.get(key)
        if old is None or bool(old["passed"]) == bool(new["passed"]):
            continue
        turned = bool(new["passed"])
        counts[turned] += 1
        if len(found[turned]) < FLIPS_SHOWN:
            sides = [_shown(old, head["before"]["name"]), _shown(new, head["after"]["name"])]
            why = sides[0 if turned else 1]["why"]  # what was wrong with the wrong one
            found[turned].append({"row": key[0], "prompt": key[1], "sides": sides, "why": why})
    return {
        "before": head["before"]["name"],
        "after": head["after"]["name"],
        "directions": [{"right": right, "count": counts[right], "shown": found[right]} for right in (True, False)],
    }


def samples(layout: Layout, evals: Lines) -> dict[str, Any] | None:
    """A few greedy answers of the last stage whose completions are there: the first right and wrong ones."""
    latest = last_evals(evals)
    for stage in reversed(latest):
        rows = list(eval_results(layout, stage).values())
        if not rows:
            continue
        right = [row for row in rows if row.get("passed")]
        wrong = [row for row in rows if not row.get("passed")]
        chosen = [*right[:COMPLETIONS_SHOWN], *wrong[:COMPLETIONS_SHOWN]]
        shown = [{"row": row["row"], "prompt": row["prompt"], **_shown(row, STAGE_NAMES[stage])} for row in chosen]
        counts = {"right": len(right), "wrong": len(wrong)}
        return {"stage": STAGE_NAMES[stage], "step": latest[stage]["step"], "shown": shown, **counts}
    return None


def _shown(row: dict[str, Any], stage: str) -> dict[str, Any]:
    return {
        "stage": stage,
        "right": bool(row.get("passed")),
        "completion": row.get("completion") or "",
        "score": row.get("score"),
        "why": row.get("error") or row.get("note") or "",
        "length": row.get("length"),
        "truncated": bool(row.get("truncated")),
    }
