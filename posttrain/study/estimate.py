"""How many runs a study is, and about how long they take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from posttrain.errors import PosttrainError
from posttrain.recipe.recipe import Recipe
from posttrain.study.queue import Queue
from posttrain.study.results import chosen, is_done
from posttrain.study.study import Job, Study
from posttrain.watching.progress import duration


@dataclass(frozen=True)
class Estimate:
    """What is to be done.

    Attributes:
        counts: Runs by kind, those that are done apart.
        done: Runs that are done.
        seconds: Of all hybrid stages, by their budget or by the plan's cost model; None: not known.
        around: Of warm-ups and evaluations, by the cost model; None: not known.
    """

    counts: dict[str, int]
    done: int
    seconds: float | None
    around: float | None

    def in_words(self, jobs: int) -> list[str]:
        """A sentence or two."""
        total = sum(self.counts.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.counts.items() if count)
        said = [f"{total} runs to make ({kinds})" + (f", {self.done} are done" if self.done else "")]
        if self.seconds is None:
            return [*said, "how long they take is not known: the plan's cost model does not know the model"]
        at_once = min(jobs, max(total, 1))
        around = "" if self.around is None else f", and about {duration(self.around / at_once)} around them"
        said.append(
            f"about {duration(self.seconds / at_once)} of hybrid stages, {at_once} at once{around}; loading apart"
        )
        return said


def estimate(study: Study, queue: Queue) -> Estimate:
    """What is to be done, by the study's directories.

    A budget of seconds is taken as it is; on CPUs it is of CPU time, of which a run on several threads has more a
    second. Budgets of tokens and operations are not told ahead.
    """
    jobs = _all(study, queue)
    left = [job for job in jobs if not is_done(study.layout(job))]
    kind, amount = study.budget
    counts = dict(Counter(job.kind for job in left))
    spending: list[float | None] = []
    around: list[float | None] = []
    for job in left:
        hybrid, rest = _planned(job.recipe)
        around.append(rest)
        if not job.recipe.hybrid.steps:
            continue
        spending.append(amount if kind == "seconds" else hybrid if kind == "steps" else None)
    return Estimate(counts, len(jobs) - len(left), _sum(spending), _sum(around))


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


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return math.fsum(value for value in known if value is not None) if None not in known else None


def _planned(recipe: Recipe) -> tuple[float | None, float | None]:
    """Seconds of a run's hybrid stage, and of the rest, by the plan's cost model."""
    return None, None


__all__ = ["Estimate", "PosttrainError", "estimate", "suppress"]
