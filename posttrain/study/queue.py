"""Carrying out a study's runs, several at a time, from wherever an earlier start got to.

A run is a process of `posttrain run` (or of `posttrain launch`). It follows this one: when this process is killed, its
runs are told to save and stop, and the next start goes on with them. What a run's process ended with says little, for
one that was stopped in time ends well; what counts is whether its directory says that it is done.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from posttrain.errors import Interrupted, ResumeError
from posttrain.processes.interrupting import answering
from posttrain.processes.launched import LAUNCHER
from posttrain.rundir.facts import write_recipe
from posttrain.storage.lock import Lock, at_work
from posttrain.study.study import Job, Study
from posttrain.study.tuning import chosen, tuning_runs
from posttrain.watching.progress import duration

POLL_S = 0.2
LAST_LINES = 3
"""Of a failed run's log that are said."""


@dataclass
class Running:
    """A job at work, on which of the places for one, since when."""

    job: Job
    process: subprocess.Popen[bytes]
    place: int
    since: float


@dataclass
class Queue:
    """The runs of a study.

    Args:
        study: The study.
        jobs: Runs at once.
        only: Arms that are run; empty: all.
        launch: Arguments of `posttrain launch` for each run; `None` is `posttrain run`.
        say: Takes a line for the user.
        changed: Called when a run has ended.

    Attributes:
        failed: Name of each run that failed in this session, and the end of its log.
    """

    study: Study
    jobs: int = 1
    only: Sequence[str] = ()
    launch: str | None = None
    say: Callable[[str], None] = print
    changed: Callable[[], None] = lambda: None
    failed: dict[str, str] = field(default_factory=dict)
    _running: list[Running] = field(default_factory=list)
    _took: dict[str, list[float]] = field(default_factory=dict)
    _asked: int | None = None
    _said_waiting: set[str] = field(default_factory=set)

    def wanted(self) -> Iterator[Job]:
        """The runs that are known to be needed, in the order in which they are to be made, warm-ups aside.

        An arm's final runs are known once its tuning is done.
        """
        for arm in self.study.arms:
            if self.only and arm not in self.only:
                continue
            yield from tuning_runs(self.study, arm, self.failed)
            point = chosen(self.study, arm, self.failed).point
            if point is not None:
                finals = [self.study.final(arm, seed, point) for seed in self.study.file.seeds]
                yield from finals
                yield from self._evaluations(finals)

    def _evaluations(self, finals: Sequence[Job]) -> Iterator[Job]:
        """Those on the second held-out set of runs that are done, and of the warm-ups that they began from."""
        if not self.study.file.forgetting:
            return
        for job in finals:
            if self.study.is_done(job) and not self.study.changes(job):
                warmup = self.study.warmup_of(job)
                before = [warmup] if warmup and not self.study.changes(warmup) else []
                yield from map(self.study.forgetting, [*before, job])

    def left(self) -> int:
        """Runs that are still to be made, warm-ups among them; those at work count."""
        study, arms = self.study, [arm for arm in self.study.arms if not self.only or arm in self.only]
        known = [job for job in self.wanted() if not self._is_over(job)]
        open_arms = [arm for arm in arms if self._is_open(arm)]
        needed = {job.begins_from for job in known if job.begins_from}
        warm = [job for job in map(study.warmup_of, known) if job and job.name in needed and not self._is_over(job)]
        return len(known) + len({job.name for job in warm}) + len(open_arms) * len(study.file.seeds)

    def _is_open(self, arm: str) -> bool:
        """Whether an arm's setting is still to be chosen, so that its final runs are not known."""
        return any(not self._is_over(job) for job in tuning_runs(self.study, arm, self.failed))

    def run(self) -> None:
        """Make all runs that can be made.

        Raises:
            ResumeError: An arm has changed since its runs began, or another process works on the study.
            Interrupted: A stop was asked for; the runs at work have saved.
        """
        folder = self.study.folder
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder)
        try:
            wanted = list(self.wanted())
            self.study.check_unchanged([*wanted, *filter(None, map(self.study.warmup_of, wanted))])
            with self._listening():
                self._work()
        finally:
            self._stop_all()
            lock.release()

    def _work(self) -> None:
        look = True  # what is ready changes only when a run has ended
        while True:
            if self._asked is None and look:
                for job in self._ready():
                    self._start(job)
            if not self._running:
                break
            time.sleep(POLL_S)
            ended = [each for each in self._running if each.process.poll() is not None]
            for each in ended:
                self._running.remove(each)
                self._ended(each)
            look = bool(ended)
        if self._asked is not None:
            stop = Interrupted("stopped as asked; runs at work have saved. To go on: the same command", where="study")
            stop.signal = self._asked
            raise stop

    # ---- which ----

    def _ready(self) -> list[Job]:
        """Runs that can start now, as many as there are free places."""
        found: dict[str, Job] = {}
        at_work_here = {each.job.name for each in self._running}
        for job in self.wanted():
            if len(at_work_here) + len(found) >= self.jobs:
                break
            warmup = self.study.warmup_of(job)
            self._refuse_changed(job, warmup)
            if self._is_over(job):
                continue
            if warmup and warmup.name in self.failed:
                self.failed[job.name] = f"its warm-up failed: {self.failed[warmup.name]}"
                continue
            if warmup and not self.study.is_done(warmup):
                job = warmup
            if job.name in at_work_here or job.name in found or self._held(job):
                continue
            found[job.name] = job
        return list(found.values())

    def _refuse_changed(self, *jobs: Job | None) -> None:
        """Count runs as failed that are done, of another recipe: which setting is wanted is known only after tuning."""
        for job in jobs:
            if job is None or job.kind == "forgetting" or job.name in self.failed or not self.study.is_done(job):
                continue
            try:
                self.study.check_unchanged([job])
            except ResumeError as error:
                self.failed[job.name] = " / ".join(line.strip() for line in str(error).splitlines())
                self.say(f"REFUSED {job.name}: {self.failed[job.name]}")

    def _is_over(self, job: Job) -> bool:
        return job.name in self.failed or self.study.is_done(job)

    def _held(self, job: Job) -> bool:
        """Whether a process that an earlier start left behind is still saving."""
        holder = at_work(self.study.layout(job).path)
        while holder is not None and self._asked is None:
            if job.name not in self._said_waiting:
                self._said_waiting.add(job.name)
                self.say(f"{job.name}: waiting for process {holder}, which is at work there")
            time.sleep(POLL_S)
            holder = at_work(self.study.layout(job).path)
        return holder is not None

    # ---- starting and ending ----

    def _start(self, job: Job) -> None:
        folder = self.study.folder
        file, log = folder / "recipes" / f"{job.name}.yaml", self.log_of(job)
        for each in (file, log):
            each.parent.mkdir(parents=True, exist_ok=True)
        resolved = job.recipe.resolved()
        resolved["run"]["dir"] = str(self.study.layout(job).path)
        write_recipe(file, resolved)
        place = min(set(range(self.jobs)) - {each.place for each in self._running})
        command = [sys.executable, "-m", "posttrain", *self._command(), str(file)]
        if job.kind == "forgetting":
            second = self.study.evaluation(job)
            second.begin()
            model, out = str(second.run.model), str(second.file)
            command = [*command[:3], "eval", str(file), "--model", model, "--out", out]
        if job.begins_from:
            command += ["--warmup-from", str(folder / job.begins_from)]
        with log.open("ab") as said:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
                env=self._environment(job, place), start_new_session=True,
            )  # fmt: skip
        self._running.append(Running(job, process, place, time.monotonic()))
        self.say(f"started {job.name}{_in_words(job)}")

    def _command(self) -> list[str]:
        return ["run"] if self.launch is None else ["launch", *shlex.split(self.launch)]

    def _environment(self, job: Job, place: int) -> dict[str, str]:
        """A run's variables: it follows this process, computes on its threads, and of several GPUs has one."""
        added = {LAUNCHER: str(os.getpid()), "PYTHONSAFEPATH": "1"}
        if job.recipe.run.threads and "OMP_NUM_THREADS" not in os.environ:
            added["OMP_NUM_THREADS"] = str(job.recipe.run.threads)
        if self.launch is not None and self.jobs > 1:
            added["CUDA_VISIBLE_DEVICES"] = gpu_of(place, os.environ)
        return {**os.environ, **added}

    def _ended(self, each: Running) -> None:
        job, took = each.job, time.monotonic() - each.since
        if self.study.is_done(job):
            self._took.setdefault(job.kind, []).append(took)
            self.say(f"done {job.name} in {duration(took)}{self._to_go()}")
        elif self._asked is not None:
            self.say(f"stopped {job.name}")
        else:
            self.failed[job.name] = said = self._last_words(job)
            self.say(f"FAILED {job.name} (exit code {each.process.returncode}): {said}")
        with suppress(OSError):
            self.changed()

    def _to_go(self) -> str:
        left = self.left()
        known = [seconds for kind in ("tuning", "final") for seconds in self._took.get(kind, [])]
        if not left or not known:
            return f", {left} to go" if left else ""
        return f", {left} to go, about {duration(fmean(known) * left / self.jobs)}"

    def log_of(self, job: Job) -> Path:
        """Where a run's output goes."""
        return self.study.folder / "logs" / f"{job.name}.txt"

    def _last_words(self, job: Job) -> str:
        file = self.log_of(job)
        lines = [line.strip() for line in file.read_text(errors="replace").splitlines() if line.strip()]
        errors = [number for number, line in enumerate(lines) if line.startswith("error")]
        last = lines[errors[-1] :][:LAST_LINES] if errors else lines[-1:]
        return f"{' / '.join(last)} (all of it: {file})"

    # ---- stopping ----

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """At SIGINT and SIGTERM have the runs save and stop; at a second SIGINT end them at once."""

        def ask(number: int, frame: object) -> None:
            again, self._asked = self._asked is not None, number
            if not again:
                self.say("stopping: the runs at work save first; press Ctrl-C again to end them at once")
            for each in self._running:
                with suppress(ProcessLookupError):
                    each.process.send_signal(signal.SIGKILL if again and number == signal.SIGINT else signal.SIGTERM)

        with answering(ask):
            yield

    def _stop_all(self) -> None:
        """Leave no run behind, whatever ended the queue."""
        for each in self._running:
            with suppress(ProcessLookupError):
                each.process.terminate()
        for each in self._running:
            each.process.wait()
        self._running.clear()


def gpu_of(place: int, environ: Mapping[str, str]) -> str:
    """The GPU of one of several runs at once: of those that are visible, the one at its place."""
    visible = [each for each in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    return visible[place % len(visible)] if visible else str(place)


def _in_words(job: Job) -> str:
    said = ", ".join(f"{key}={value}" for key, value in job.point.items())
    return f" ({said})" if said and job.kind == "tuning" else ""
