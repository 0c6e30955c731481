"""Each arm's best setting: what is tried on the tuning seed, in which order, and what comes of it.

A grid comes first. Where its best value of a key of `tune.further` is the least or the greatest of those tried, the
best point is tried with the next value beyond, at the same ratio, and so on until a value inside is best: a baseline
whose best setting is at the edge of its grid has not been tuned. Like all of a study this is read off the directories
of the runs, so that a study which was killed comes to the same runs again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

from posttrain.errors import ConfigError
from posttrain.reading.compare import problems
from posttrain.recipe.contradictions import check
from posttrain.rundir import reading
from posttrain.rundir.layout import Layout
from posttrain.study.study import Job, Point, Study

_NUMBER = re.compile(r"-\d+$")


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


def score_of(layout: Layout) -> tuple[float, float]:
    """pass@1 and the mean score of a finished run's last evaluation."""
    rows = problems(reading.eval_results(layout, "final"))
    scores = [float(row.get("score") or 0.0) for row in rows.values()]
    return fmean(bool(row.get("passed")) for row in rows.values()), fmean(scores)


def tuning_runs(study: Study, arm: str, failed: Iterable[str] = ()) -> list[Job]:
    """An arm's runs on the tuning seed that are known to be needed: its grid, and what follows from the finished ones.

    Args:
        study: The study.
        arm: Whose.
        failed: Names of runs that failed, which are not waited for.
    """
    return _tuned(study, arm, set(failed))[0]


def _tuned(study: Study, arm: str, lost: set[str]) -> tuple[list[Job], _Seen]:
    """An arm's runs that are known to be needed, and what they show."""
    jobs = study.grid_of(arm)
    seen = _look(study, jobs, lost)
    while jobs and not seen.open:
        further = list(_further(study, arm, jobs, seen.tried))
        if not further:
            break
        for point in further:
            jobs.append(_numbered(study, arm, point, {job.name for job in jobs}))
        seen = _look(study, jobs, lost)
    return jobs, seen


def _numbered(study: Study, arm: str, point: Point, taken: set[str]) -> Job:
    """The run of a point beyond the grid: the one that is there already, else under the next number that is free.

    What follows a grid depends on which of its runs failed, and one that failed may end well at the next start. So a
    number does not say which point, and another point's run is left where it is.

    Args:
        study, arm, point: Whose.
        taken: Names of the runs that are known to be needed.
    """
    folder = study.layout(study.grid_of(arm)[0]).path.parent
    there = {int(path.name.rpartition("-")[2]) for path in folder.glob(f"{arm}-*") if _NUMBER.search(path.name)}
    first = len(study.grid_of(arm)) + 1
    jobs = {number: study.tried(arm, number, point) for number in range(first, max([first, *there]) + len(taken) + 2)}
    free = [number for number, job in jobs.items() if job.name not in taken]
    begun = [number for number in free if study.layout(jobs[number]).recipe_file.exists()]
    same = [number for number in begun if not study.changes(jobs[number])]
    return jobs[next(iter([*same, *(number for number in free if number not in begun)]))]


def chosen(study: Study, arm: str, failed: Iterable[str] = ()) -> Chosen:
    """What tuning chose for an arm: the highest pass@1, by the mean score where several have it.

    Args:
        study: The study.
        arm: Whose.
        failed: Names of runs that failed, which are not waited for.
    """
    jobs, seen = _tuned(study, arm, set(failed))
    if not jobs:
        return Chosen({})
    best = _best(seen.tried)
    if best is None or seen.open:
        return Chosen(None, seen.tried, changed=seen.changed)
    return Chosen(best, seen.tried, [key for key in best if _edge(key, best, seen.tried)], seen.changed)


class _Seen(NamedTuple):
    """What runs show: each point with its score, those of another recipe, and whether one is still to come."""

    tried: list[Tried]
    changed: dict[str, list[str]]
    open: bool


def _look(study: Study, jobs: Sequence[Job], lost: set[str]) -> _Seen:
    changed = changed_runs(study, jobs)
    counts = [study.is_done(job) and job.name not in changed for job in jobs]
    tried = [
        Tried(job.point, *score_of(study.layout(job))) if known else Tried(job.point, None, None)
        for job, known in zip(jobs, counts, strict=True)
    ]
    return _Seen(
        tried, changed, any(job.name not in lost for job, known in zip(jobs, counts, strict=True) if not known)
    )


def _best(tried: Sequence[Tried]) -> Point | None:
    known = [each for each in tried if each.score is not None]
    return max(known, key=lambda each: (each.score, each.reward)).point if known else None


def _further(study: Study, arm: str, jobs: Sequence[Job], tried: Sequence[Tried]) -> Iterator[Point]:
    """The best point with the next value of each key that has its best one at an edge and may go on."""
    best = _best(tried)
    for key, allowed in study.further(arm).items():
        values = {job.point[key] for job in jobs}
        beyond = len(values) - len({job.point[key] for job in study.grid_of(arm)})
        edge = _edge(key, best, tried) if best else None
        if best is None or edge is None or beyond >= allowed:
            continue
        beyond_it = next_value(sorted(values), up=edge == "greatest")
        if beyond_it in values:  # of whole numbers nothing is below 1
            continue
        point = {**best, key: beyond_it}
        try:
            check(study.tried(arm, len(jobs) + 1, point).recipe)
        except ConfigError:  # no recipe takes the value: the edge is one of what there is
            continue
        yield point


def next_value(values: Sequence[float], *, up: bool) -> float:
    """The value beyond a rising row of at least two positive ones, at the ratio of the last two on that side.

    Of whole numbers it is whole.
    """
    last, before = (values[-1], values[-2]) if up else (values[0], values[1])
    value = float(f"{last * last / before:.6g}")
    return max(1, round(value)) if all(isinstance(each, int) for each in values) else value


def changed_runs(study: Study, jobs: Iterable[Job]) -> dict[str, list[str]]:
    """Of runs that are done with another recipe than the study has now: name, and `key: was -> is`."""
    found = {job.name: study.changes(job) for job in jobs if study.is_done(job)}
    return {name: lines for name, lines in found.items() if lines}


def _edge(key: str, best: Point, tried: Sequence[Tried]) -> str | None:
    """Whether the best point's value of a key is the `least` or the `greatest` of those tried, which are numbers."""
    values = [each.point[key] for each in tried]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return None
    if len(set(values)) < 2 or best[key] not in (min(values), max(values)):
        return None
    return "least" if best[key] == min(values) else "greatest"
