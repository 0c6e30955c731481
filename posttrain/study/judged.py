"""What a study has come to, in plain values: the judgement of its arms and all that stands beside it.

The scores are greedy pass@1 on the held-out problems at the end of an arm's budget. Arms are judged that have all their
seeds; what is not finished is shown and left out of the tests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any

import numpy as np

from posttrain.evaluation.blocks import against
from posttrain.reading.compare import problems
from posttrain.rundir import reading
from posttrain.study.file import Overrides
from posttrain.study.results import Result, kept, results
from posttrain.study.study import Study
from posttrain.study.tuning import Chosen, changed_runs, chosen

CLEAR = 0.05
"""Arms are told apart where the Holm-adjusted p is below."""

SPENT = ("seconds", "sampled_tokens", "trained_tokens", "flops", "steps")


def judge(study: Study, failed: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Everything that is told of a study, from its directories.

    Args:
        study: The study.
        failed: Names of runs that failed, and why.

    Returns:
        name, recipe, budget ({kind: amount}), seeds, reference;
        arms: a dict an arm: name, settings (its keys), state (`done`, `changed`, `failed`, `tuning`, `running`), tuned
        (point, tried, edges), seeds (a dict a finished run: seed, pass@1, n, spent), pass@1 (mean), spread (standard
        deviation over seeds), spent (means), by ({column: {value: pass@1}}), curve (a list a seed of points: seconds,
        tokens, steps, pass@1), why (of a failed one), changed ({run: [`key: was -> is`]}, not counted);
        differences: each judged arm from the reference (`BlockDifference` as a dict, with told_apart);
        best_two: the same for the two highest, of all their pairs; settings: {key: [value an arm]}; notes: sentences.
    """
    failed = dict(failed or {})
    picked = {arm: chosen(study, arm, failed) for arm in study.arms}
    found: dict[str, dict[int, Result]] = {
        arm: results(study, arm, each.point) if each.point is not None else {} for arm, each in picked.items()
    }
    arms = [_arm(study, arm, picked[arm], found[arm], failed) for arm in study.arms]
    judged = [each["name"] for each in arms if each["state"] == "done"]
    scores = _scores(study, {arm: found[arm] for arm in judged})
    differences: list[dict[str, Any]] = []
    best_two: dict[str, Any] | None = None
    if study.reference in scores and len(scores) > 1:
        differences = [_told(each) for each in against(scores, study.reference)]
    if len(scores) > 1:
        first, second = sorted(scores, key=lambda arm: -_mean(scores[arm]))[:2]
        # Which two are the best was found by looking: as many comparisons are made as there are others
        others = [arm for arm in scores if arm != first]
        best_two = next(_told(each) for each in against(scores, first, others) if each.arm == second)
    kind, amount = study.budget
    return {
        "name": study.name,
        "recipe": study.file.recipe,
        "budget": {kind: amount},
        "seeds": list(study.file.seeds),
        "reference": study.reference,
        "arms": arms,
        "differences": differences,
        "best_two": best_two,
        "settings": study.settings(),
        "notes": [*_notes(study, arms, scores), *_tuned_on_judged(study, found)],
    }


def _scores(study: Study, found: Mapping[str, Mapping[int, Result]]) -> dict[str, list[np.ndarray]]:
    """Results by arm and seed over the problems that all arms of a seed share."""
    if not found:
        return {}
    shared = {
        seed: [
            each
            for each in next(iter(found.values()))[seed].rows
            if all(each in of[seed].rows for of in found.values())
        ]
        for seed in study.file.seeds
    }
    return {
        arm: [
            np.array([bool(of[seed].rows[each].get("passed")) for each in shared[seed]], dtype=float)
            for seed in study.file.seeds
        ]
        for arm, of in found.items()
        if all(shared.values())
    }


def _mean(scores: Sequence[np.ndarray]) -> float:
    return fmean(float(seed.mean()) for seed in scores)


def _told(difference: Any) -> dict[str, Any]:
    return asdict(difference) | {"told_apart": difference.p_holm < CLEAR}


def _arm(
    study: Study, arm: str, picked: Chosen, found: Mapping[int, Result], failed: Mapping[str, str]
) -> dict[str, Any]:
    passes = [_pass(each) for each in found.values()]
    settings: Overrides = study.arms[arm]
    why = [said for name, said in failed.items() if _is_of(study, arm, picked, name)]
    missing = len(study.file.seeds) - len(found)
    changed = dict(picked.changed)
    if picked.point is not None:
        changed |= changed_runs(study, [study.final(arm, seed, picked.point) for seed in study.file.seeds])
    state = "failed" if why else "tuning" if picked.point is None else "running"
    state = "changed" if changed else state if missing else "done"
    return {
        "name": arm,
        "settings": settings,
        "state": state,
        "why": why[0] if why and missing and not changed else "",
        "changed": changed,
        "tuned": {"point": picked.point, "tried": [asdict(each) for each in picked.tried], "edges": picked.edges},
        "seeds": [
            {"seed": seed, "pass@1": _pass(each), "n": len(each.rows), "spent": each.spent}
            for seed, each in found.items()
        ],
        "pass@1": fmean(passes) if passes else None,
        "spread": stdev(passes) if len(passes) > 1 else None,
        "spent": {name: _mean_of([each.spent.get(name) for each in found.values()]) for name in SPENT},
        "by": _slices([each.line.get("by") or {} for each in found.values()]),
        "curve": [_curve(each) for each in found.values()],
        "second": _second(kept(study, arm, picked.point) if picked.point is not None else {}),
    }


def _is_of(study: Study, arm: str, picked: Chosen, name: str) -> bool:
    runs = {f"runs/{arm}-seed{seed}" for seed in study.file.seeds}
    return name in runs or (picked.point is None and re.fullmatch(rf"tuning/{re.escape(arm)}-\d+", name) is not None)


def _second(found: Mapping[int, Mapping[str, float | None]]) -> dict[str, float | None] | None:
    if not found:
        return None
    return {name: _mean_of([each[name] for each in found.values()]) for name in ("before", "after")}


def _pass(result: Result) -> float:
    return fmean(bool(row.get("passed")) for row in result.rows.values())


def _mean_of(values: Sequence[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _slices(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean pass@1 by column and value, over the seeds that have it."""
    seen: dict[str, dict[str, list[float]]] = {}
    for by in lines:
        for column, slices in by.items():
            for value, part in slices.items():
                seen.setdefault(column, {}).setdefault(value, []).append(part["pass@1"])
    return {column: {value: fmean(of) for value, of in slices.items()} for column, slices in seen.items()}


def _curve(result: Result) -> list[dict[str, float]]:
    """A run's evaluations, from the warm-up to its end, over what the stage had spent by then."""
    spent = {line["step"]: line.get("spent") or {} for line in reading.steps(result.layout, "hybrid")}
    points = []
    for line in reading.evals(result.layout):
        if line["stage"] not in ("warmup", "hybrid", "final"):
            continue
        step = 0 if line["stage"] == "warmup" else line["step"]
        at = spent.get(step, {})
        tokens = at.get("sampled_tokens", 0) + at.get("trained_tokens", 0)
        points.append({"seconds": at.get("seconds", 0.0), "tokens": tokens, "steps": step, "pass@1": line["pass@1"]})
    return points


def _notes(study: Study, arms: Sequence[Mapping[str, Any]], scores: Mapping[str, Any]) -> list[str]:
    said = []
    if len(study.file.seeds) == 1:
        said.append("one seed: the intervals are over problems alone, and another seed may move the arms by more")
    for arm in arms:
        for name, lines in arm["changed"].items():
            said.append(f"{name} is of another recipe (was -> is), and not counted: {'; '.join(lines)}")
        for key in arm["tuned"]["edges"]:
            said.append(f"{arm['name']}: the best {key}, {arm['tuned']['point'][key]:g}, is at the edge of its grid")
        lost = sum(each["score"] is None for each in arm["tuned"]["tried"])
        if lost and arm["tuned"]["point"] is not None:
            said.append(f"{arm['name']}: {lost} of {len(arm['tuned']['tried'])} tuning runs failed")
    if arms and any(arm["state"] == "done" for arm in arms) and not scores:
        said.append("the arms share no held-out problems, so that nothing can be told of them")
    if study.reference not in scores and scores:
        said.append(f"the reference {study.reference} is not finished, so that nothing is compared with it yet")
    return said


def _tuned_on_judged(study: Study, found: Mapping[str, Mapping[int, Result]]) -> list[str]:
    """Whether an arm was tuned on problems that it is judged by."""
    tuning = next((job for arm in study.arms for job in study.grid_of(arm) if study.is_done(job)), None)
    judged = {prompt for of in found.values() for result in of.values() for prompt, _ in result.rows}
    if tuning is None or not judged:
        return []
    tuned = [prompt for prompt, _ in problems(reading.eval_results(study.layout(tuning), "final", ["passed"]))]
    shared = sum(prompt in judged for prompt in tuned)
    if not shared:
        return []
    return [
        f"{shared} of the {len(tuned)} problems that settings were chosen by are among those that arms are judged by: "
        "draw others, by tune.overrides"
    ]
