"""What a study's run directories show: which runs are done, what tuning chose, and what each arm scored and spent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from posttrain.reading.compare import Problem, problems
from posttrain.rundir import reading
from posttrain.rundir.layout import Layout
from posttrain.study.study import Job, Point, Study


@dataclass(frozen=True)
class Tried:
    """A point of an arm's grid and what became of it.

    Attributes:
        point: Dotted keys and values.
        score: pass@1 on the tuning seed's held-out problems; `None` while it is not done.
        reward: Mean score there.
    """

    point: Point
    score: float | None
    reward: float | None


@dataclass(frozen=True)
class Chosen:
    """What tuning chose for an arm.

    Attributes:
        point: The best that was tried; empty of an arm that is not tuned; `None` while that is open.
        tried: All points.
        edges: Keys whose best value is the least or the greatest that was tried.
        changed: Of tuning runs that are done with another recipe, and so not counted: name, and what differs.
    """

    point: Point | None
    tried: list[Tried] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    changed: dict[str, list[str]] = field(default_factory=dict)


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


def score_of(layout: Layout) -> tuple[float, float]:
    """pass@1 and the mean score of a finished run's last evaluation."""
    rows = problems(reading.eval_results(layout, "final"))
    scores = [float(row.get("score") or 0.0) for row in rows.values()]
    return fmean(bool(row.get("passed")) for row in rows.values()), fmean(scores)


def chosen(study: Study, arm: str, failed: Iterable[str] = ()) -> Chosen:
    """What tuning chose for an arm: the highest pass@1, by the mean score where several have it.

    Args:
        study: The study.
        arm: Whose.
        failed: Names of runs that failed, which are not waited for.
    """
    jobs = [job for job in study.tuning if job.arm == arm]
    if not jobs:
        return Chosen({})
    changed = changed_runs(study, jobs)
    tried, open_, failed = [], False, set(failed)
    for job in jobs:
        if study.is_done(job) and job.name not in changed:
            tried.append(Tried(job.point, *score_of(study.layout(job))))
        else:
            open_ = open_ or job.name not in failed
            tried.append(Tried(job.point, None, None))
    known = [each for each in tried if each.score is not None]
    if open_ or not known:
        return Chosen(None, tried, changed=changed)
    best = max(known, key=lambda each: (each.score, each.reward)).point
    edges = [key for key in best if _at_edge(key, best, [job.point for job in jobs])]
    return Chosen(best, tried, edges, changed)


def changed_runs(study: Study, jobs: Iterable[Job]) -> dict[str, list[str]]:
    """Of runs that are done with another recipe than the study has now: name, and `key: was -> is`."""
    found = {job.name: study.changes(job) for job in jobs if study.is_done(job)}
    return {name: lines for name, lines in found.items() if lines}


def _at_edge(key: str, best: Point, points: list[Point]) -> bool:
    values = [point[key] for point in points]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return False
    return len(set(values)) > 1 and best[key] in (min(values), max(values))


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
