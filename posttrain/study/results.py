"""What a study's finished runs that are judged show: what each arm scored and spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posttrain.reading.compare import Problem, problems
from posttrain.rundir import reading
from posttrain.rundir.layout import Layout
from posttrain.study.study import Point, Study


@dataclass(frozen=True)
class Result:
    """A run that is judged.

    Attributes:
        arm, seed: Whose.
        layout: Its directory.
        line: Its final line of eval.jsonl.
        rows: Its final greedy completions, by problem.
        spent: By the hybrid stage: steps, seconds, sampled_tokens, trained_tokens, flops.
    """

    arm: str
    seed: int
    layout: Layout
    line: dict[str, Any]
    rows: dict[Problem, dict[str, Any]]
    spent: dict[str, Any]


def results(study: Study, arm: str, point: Point) -> dict[int, Result]:
    """The finished runs of an arm that are judged, by seed; those of another recipe are none of them."""
    found = {}
    for seed in study.file.seeds:
        job = study.final(arm, seed, point)
        if study.is_done(job) and not study.changes(job):
            found[seed] = result(arm, seed, study.layout(job))
    return found


def kept(study: Study, arm: str, point: Point) -> dict[int, dict[str, float | None]]:
    """pass@1 on the second held-out set by seed: `after` the arm, and `before`, of its warm-up where it has one."""
    found: dict[int, dict[str, float | None]] = {}
    for seed in study.file.seeds if study.file.forgetting else ():
        job = study.final(arm, seed, point)
        if study.changes(job):
            continue
        begun = study.warmup_of(job)
        warmup = begun if begun and not study.changes(begun) else None
        after, before = (study.evaluation(study.forgetting(each)).score() if each else None for each in (job, warmup))
        if after is not None:
            found[seed] = {"after": after, "before": before}
    return found


def result(arm: str, seed: int, layout: Layout) -> Result:
    """What a finished run shows."""
    line = reading.last_evals(reading.evals(layout))["final"]
    steps = reading.steps(layout, "hybrid")
    spent = (steps[-1].get("spent") or {}) if steps else {}
    nothing = {"seconds": 0.0, "sampled_tokens": 0, "trained_tokens": 0, "flops": 0.0}
    rows = problems(reading.eval_results(layout, "final"))
    return Result(arm, seed, layout, line, rows, {"steps": len(steps), **(spent or nothing)})
