"""Worker processes that score completions, so that no completion can hang, crash or starve the run.

Ours, because libraries lack one thing or another: the standard library's pools and pebble run the caller's script again
in each worker (or fork beside CUDA) and limit the time of a whole chunk, and loky gives up when one worker dies.
"""

from __future__ import annotations

import mmap
import os
import pickle
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from posttrain.errors import RewardError
from posttrain.scoring.calling import score_completion
from posttrain.scoring.loading import FILE_MODULE
from posttrain.scoring.pool_work import Work
from posttrain.scoring.score import GROUP, Outcome, Reward, describe
from posttrain.scoring.worker import Setup
from posttrain.scoring.worker_process import Job, Payload, WorkerProcess

_MOST_WORKERS = 8
_CLOSE_S = 1.0  # that closing waits for a thread that is at work with the workers


class RewardPool:
    """Scores completions in worker processes, each under a time and a memory limit.

    A completion that takes too long, or ends its worker in whatever way, gets an `Outcome` with an error; its worker is
    replaced and everything else goes on. What rewards print is dropped. A worker has its rewards as they are now: it
    imports the modules they are from (keep heavy imports out of those), but never runs the caller's script, whose
    functions travel by value, and takes a reward's file as it was when the pool was made. A score's `parsed` comes
    back as it is when it is plain data, otherwise as its repr.

    Use it as a context manager, or call `close`. No worker outlives the pool or its owner, nor does a process that a
    reward forks or starts, unless it is put into a process group or session of its own (setsid).

    Args:
        rewards: What `score` numbers. TRL-style rewards, which want a whole batch, are scored in this process.
        workers: Processes; None takes one a CPU that this process may use (shared between the ranks of a host), at
            most 8; 0 scores in this process, without limits.
        time_limit_s: Seconds that one completion may take. A reward that takes a group (`group_completions`) reads all
            of it for each, and has so many seconds for every one of them; what takes longer is an error of the group.
        memory_limit_mb: What a worker may allocate beyond what it starts with; more is a MemoryError of that
            completion. None sets no limit. Only Linux has it.

    Raises:
        RewardError: a reward cannot be sent to a worker, or a worker cannot load it.
    """

    def __init__(
        self,
        rewards: Sequence[Reward],
        *,
        workers: int | None = None,
        time_limit_s: float = 5.0,
        memory_limit_mb: int | None = 4096,
    ):
        self.rewards = list(rewards)
        self.time_limit_s = time_limit_s
        self.memory_limit_mb = memory_limit_mb
        in_workers = any(reward.style == "score" for reward in self.rewards)
        self.workers = (default_workers() if workers is None else workers) if in_workers else 0
        self._lock = threading.Lock()
        self._closing = False
        self._processes: list[WorkerProcess] = []
        self._work = Work(self._processes, time_limit_s)
        self._begun: dict[tuple[int, Payload], Job] = {}
        self._close: Callable[[], Any] = lambda: None
        if self.workers:
            self._start()

    def score(self, index: int, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """Score completions with one reward; equal ones, with equal columns for it, are scored once.

        Those that were begun before (`begin`) are taken as they are, or waited for.

        Args:
            index: Which of `rewards`.
            completions: Length B, as text.
            rows: Length B: each one's columns.

        Returns:
            B outcomes in the order of the completions.

        Raises:
            RewardError: workers die or fail to start over and over, or the pool is closed.
        """
        reward = self.rewards[index]
        if reward.style == "trl" or not self.workers:
            return [score_completion(reward, text, row) for text, row in zip(completions, rows, strict=True)]
        outcomes = [Outcome()] * len(completions)
        places, failures = self._payloads(reward, completions, rows)
        for place, failure in failures.items():
            outcomes[place] = failure
        with self._lock:
            self._check_open()
            jobs = []
            for payload in places:
                job = self._begun.get((index, payload))
                if job is None:
                    self._work.add(job := Job(index, payload, reads=_reads(reward, rows[places[payload][0]])))
                job.wanted = True
                jobs.append(job)
            try:
                self._work.finish(jobs, first=index)
            except BaseException:  # such as KeyboardInterrupt
                self._drop()
                raise
        for job, where in zip(jobs, places.values(), strict=True):
            for place in where:
                outcomes[place] = job.outcome or Outcome()
        return outcomes

    def begin(self, index: int, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Queue completions that `score` will be asked for later, perhaps together with others. Does not wait.

        Workers get them while `advance` is called, or `score`; what failed is for `score` to tell.

        Args:
            index, completions, rows: As for `score`. Of TRL-style rewards, and without workers, nothing is begun.
        """
        reward = self.rewards[index]
        if reward.style == "trl" or not self._processes:
            return
        places, _ = self._payloads(reward, completions, rows)
        with self._lock:
            if self._closing:  # since the look above: nobody would score it
                return
            for payload in places:
                if (index, payload) not in self._begun:
                    job = self._begun[index, payload] = Job(index, payload)
                    self._work.add(job)

    def advance(self, wake: int) -> bool:
        """Let the workers go on with what was begun, for a moment; for a thread beside the one that will `score`.

        Args:
            wake: A file descriptor; the moment ends when it is readable.

        Returns:
            Whether anything is left to do.

        Raises:
            RewardError: As `score`. What was begun is forgotten then, and scored when `score` is asked for it.
        """
        with self._lock:
            if self._closing or not self._processes or not self._work.is_left():
                return False
            try:
                self._work.turn(wake=wake)
            except BaseException:
                self._drop()
                raise
            return self._work.is_left()

    def pids(self) -> list[int]:
        """The process ids of the workers there are."""
        return [worker.pid for worker in self._processes if worker.pid is not None]

    def begun(self) -> list[Job]:
        """What was begun and not forgotten."""
        with self._lock:
            return list(self._begun.values())

    def forget(self) -> None:
        """Give up what was begun and is not scored yet, and let go of the rest."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        self._begun.clear()
        self._work.drop()

    def _check_open(self) -> None:
        if not self._processes:
            raise RewardError("the pool is closed", where="RewardPool.score")

    def _payloads(
        self, reward: Reward, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]
    ) -> tuple[dict[Payload, list[int]], dict[int, Outcome]]:
        """What workers are sent, with the places where it stands in the batch; and what cannot be sent, by place.

        Rows of tasks and sources that are not the reward's are in neither.
        """
        places: dict[Payload, list[int]] = {}
        failures: dict[int, Outcome] = {}
        pickled: dict[Any, bytes] = {}  # by the identities of the values, which the rows of a group often share
        for place, (text, row) in enumerate(zip(completions, rows, strict=True)):
            if not reward.applies_to(row):
                continue
            columns = reward.columns(row)
            same = tuple((key, id(value)) for key, value in columns.items())
            try:
                if same not in pickled:
                    pickled[same] = pickle.dumps(columns, pickle.HIGHEST_PROTOCOL)
            except Exception as error:
                failures[place] = Outcome(error=f"a column cannot be sent to a worker: {describe(error)}")
                continue
            places.setdefault((str(text), pickled[same]), []).append(place)
        return places, failures

    def index(self, reward: Reward) -> int:
        """Where `reward` is among the pool's rewards; a ValueError if it is not."""
        return self.rewards.index(reward)

    def close(self) -> None:
        """End the workers. The pool can't be used any more; closing it again does nothing."""
        self._closing = True
        mine = self._lock.acquire(timeout=_CLOSE_S)
        try:
            self._close()
            self._begun.clear()
        finally:
            if mine:
                self._lock.release()

    def __enter__(self) -> RewardPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- workers ----

    def _start(self) -> None:
        setup = _temporary(pickle.dumps(_setup(self.rewards, self.memory_limit_mb)))
        counters = _temporary(bytes(8 * self.workers))
        shared = mmap.mmap(counters.fileno(), 0)
        started = memoryview(shared).cast("Q")
        self._processes += [WorkerProcess(slot, setup, counters, started) for slot in range(self.workers)]
        # Runs at the interpreter's exit too; must not hold the pool itself, nor do anything in a forked child
        held = (started.release, shared.close, setup.close, counters.close)
        self._close = weakref.finalize(self, _close, os.getpid(), self._processes, held)
        try:
            for worker in self._processes:
                worker.start()
            while not any(worker.ready for worker in self._processes):  # the others may take their time
                self._work.turn()
        except BaseException:
            self.close()
            raise


def _reads(reward: Reward, row: Mapping[str, Any]) -> int:
    """Completions that a reward reads for one."""
    return max(1, len(row.get(GROUP) or ())) if reward.of_group else 1


def default_workers() -> int:
    """One worker a CPU that this process may use, at most 8; the ranks of a host share its CPUs."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cpus // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))))


def _setup(rewards: Sequence[Reward], memory_limit_mb: int | None) -> Setup:
    import cloudpickle

    pickled: list[tuple[str, bytes] | None] = []
    files: dict[str, tuple[str, str, bytes]] = {}
    made = [module for name, module in sys.modules.items() if name.startswith(FILE_MODULE)]
    for reward in rewards:
        if reward.style == "trl":
            pickled.append(None)
            continue
        try:
            payload = cloudpickle.dumps(replace(reward))  # a copy, without what the reward has cached
        except Exception as error:
            raise RewardError(
                f"it cannot be sent to a worker process: {describe(error)}",
                expected="a function that holds no open file, lock, connection or the like",
                where=f"reward {reward.name!r}",
                fix="open what it needs inside the function, or set workers: 0 to score in this process",
            ) from error
        pickled.append((reward.name, payload))
        for module in made:
            # A worker can't import these by name. The function itself may come from a neighbour of the file.
            if module.__name__.encode() in payload or any(each is reward.function for each in vars(module).values()):
                file = str(module.__file__)
                files[file] = (module.__name__, file, Path(file).read_bytes())
    return Setup(tuple(pickled), tuple(files.values()), memory_limit_mb)


def _temporary(content: bytes) -> IO[bytes]:
    """A file without a name that holds `content`."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the pool)
    file.write(content)
    file.flush()
    return file


def _close(owner: int, processes: list[WorkerProcess], resources: Sequence[Callable[[], Any]]) -> None:
    if os.getpid() != owner:
        return
    for worker in processes:
        worker.close()
    processes.clear()
    for release in resources:
        release()
