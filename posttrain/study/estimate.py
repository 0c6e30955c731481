"""How many runs a study is, and about how long they take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from posttrain.planning.amounts import evaluations
from posttrain.planning.machine import this_machine
from posttrain.planning.plan import make_plan
from posttrain.planning.seconds import Time
from posttrain.study.queue import Queue
from posttrain.study.study import Job, Study
from posttrain.study.tuning import chosen
from posttrain.watching.progress import duration

LOADING_S = 10.0
"""Of a run's process, before it trains: imports, rows, workers; on 2 CPU cores."""


@dataclass(frozen=True)
class Estimate:
    """What is to be done.

    Attributes:
        counts: Runs by kind, those that are done apart.
        done: Runs that are done.
        hybrid: Seconds of all hybrid stages, by their budget or by the plan's cost model; None: not known.
        around: Of loading, warm-ups and evaluations, by the cost model; None: not known.
        by: What `hybrid` is told by.
    """

    counts: dict[str, int]
    done: int
    hybrid: float | None
    around: float | None
    by: str

    def in_words(self, jobs: int) -> list[str]:
        """A sentence or two."""
        total = sum(self.counts.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.counts.items() if count)
        said = [
            (f"{total} runs to make ({kinds})" if total else "no runs to make")
            + (f"; {self.done} are done" if self.done else "")
        ]
        if not total:
            return said
        at_once = min(jobs, total)
        if self.hybrid is None:
            return [*said, f"how long their hybrid stages take is not known {self.by}"]
        around = "" if self.around is None else f", and about {duration(self.around / at_once)} of loading, warm-ups "
        around += "and evaluations" if around else ""
        said.append(f"about {duration(self.hybrid / at_once)} of hybrid stages ({self.by}), {at_once} at once{around}")
        return said


def estimate(study: Study, queue: Queue) -> Estimate:
    """What is to be done, by the study's directories.

    A budget of seconds is taken as it is; on CPUs it is of CPU time, of which a run on several threads has more a
    second. What is around it is that of the first arm with a hybrid stage, for all arms.
    """
    jobs = _all(study, queue)
    left = [job for job in jobs if not study.is_done(job)]
    kind, amount = study.budget
    stages = [job for job in left if job.recipe.hybrid.steps]
    counts = dict(Counter(job.kind for job in left))
    plans = {job.arm: _time(job) for job in stages[:1]}
    if kind == "steps":
        plans |= {job.arm: _time(job) for job in stages if job.arm not in plans}
    first = plans[stages[0].arm] if stages else None
    if kind == "seconds":
        hybrid: float | None = amount * len(stages)
    elif kind == "steps":
        hybrid = _sum(_hybrid(job, plans[job.arm], amount) for job in stages)
    else:
        hybrid = None
    around = None if first is None else _sum(_around(job, first) for job in left)
    by = {"seconds": "by the budget", "steps": "by the plan's cost model"}.get(kind, f"of a budget of {kind}")
    return Estimate(counts, len(jobs) - len(left), hybrid, around, by)


def _all(study: Study, queue: Queue) -> list[Job]:
    """All runs, those of an arm that is not tuned yet as if by the first point of its grid."""
    jobs = {job.name: job for job in queue.wanted()}
    for arm in study.arms:
        if (queue.only and arm not in queue.only) or chosen(study, arm).point is not None:
            continue
        point = study.points(arm)[0]
        jobs |= {job.name: job for job in (study.final(arm, seed, point) for seed in study.file.seeds)}
    warm = {job.name: job for job in map(study.warmup_of, list(jobs.values())) if job}
    return [*warm.values(), *jobs.values()]


def _time(job: Job) -> Time:
    recipe = job.recipe
    return make_plan(recipe, this_machine(recipe, processes=1, per_node=1, config="single", cpu=False)).time


def _hybrid(job: Job, time: Time, amount: float) -> float | None:
    """Seconds of a hybrid stage of so many steps, by the plan's share of it, if the mix stays as it begins."""
    around = _around(job, time, warmup=True)
    if time.begun is None or around is None:
        return None
    return (time.begun - around + LOADING_S) * amount / job.recipe.hybrid.steps


def _around(job: Job, time: Time, *, warmup: bool = False) -> float | None:
    """Seconds of loading and evaluations of a run, and of the warm-up where it makes one."""
    seconds, recipe = LOADING_S, job.recipe
    begun = job.begins_from is not None and not warmup
    counts = {"evaluation": evaluations(recipe) - 2 * begun, "warmup": 0 if begun else recipe.warmup.steps}
    for name, count in counts.items():
        each = time.phases[name].seconds if name in time.phases else 0.0
        if count and each is None:
            return None
        seconds += count * (each or 0.0)
    return seconds


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return math.fsum(value for value in known if value is not None) if None not in known else None
