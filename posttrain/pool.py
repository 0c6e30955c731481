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
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, Any

from posttrain.errors import RewardError
from posttrain.reward import FILE_MODULE, Outcome, Reward, score_completion
from posttrain.reward_process import Job, WorkerProcess
from posttrain.reward_worker import FAILED, READY, Setup, answers_from, score_from
from posttrain.score import describe

_MOST_WORKERS = 8
_CHUNK_S = 0.02  # work per message: long against the cost of one, short against a batch
_FIRST_CHUNK = 8  # completions, until it is known how long one takes
_TICK_S = 0.02
_START_S = 120.0  # for the imports of the rewards
_GARBLED = "what its worker process sent is no answer (the reward may write to files that it has not opened)"
_FRUITLESS = 3  # workers lost in a row without a single answer, or failing to start


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
        time_limit_s: Seconds that one completion may take.
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
        self._mean_s: dict[int, float] = {}
        self._fruitless = 0
        self._processes: list[WorkerProcess] = []
        self._close: Callable[[], Any] = lambda: None
        if self.workers:
            self._start()

    def score(self, index: int, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """Score completions with one reward; equal ones, with equal columns for it, are scored once.

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
        jobs: dict[bytes, Job] = {}
        for place, (text, row) in enumerate(zip(completions, rows, strict=True)):
            if not reward.applies_to(row):
                continue
            try:
                payload = pickle.dumps((text, reward.columns(row)), pickle.HIGHEST_PROTOCOL)
            except Exception as error:
                outcomes[place] = Outcome(error=f"a column cannot be sent to a worker: {describe(error)}")
                continue
            jobs.setdefault(payload, Job(payload, [])).places.append(place)
        with self._lock:
            self._score(index, list(jobs.values()))
        for job in jobs.values():
            for place in job.places:
                outcomes[place] = job.outcome or Outcome()
        return outcomes

    def index(self, reward: Reward) -> int:
        """Where `reward` is among the pool's rewards; a ValueError if it is not."""
        return self.rewards.index(reward)

    def close(self) -> None:
        """End the workers. The pool can't be used any more; closing it again does nothing."""
        self._close()

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
                self._turn(0, deque())
        except BaseException:
            self.close()
            raise

    def _score(self, index: int, jobs: list[Job]) -> None:
        """Get every job an outcome."""
        if not self._processes:
            raise RewardError("the pool is closed", where="RewardPool.score")
        queue, left = deque(jobs), len(jobs)
        try:
            while left:
                for worker in self._processes:
                    # Only to a worker that waits for it, so that neither side ever blocks the other by writing
                    if queue and worker.ready and not worker.pending:
                        chunk = self._chunk(index, queue)
                        if not worker.send(index, chunk):
                            queue.extendleft(reversed(chunk))
                left -= self._turn(index, queue)
        finally:  # after an exception, such as KeyboardInterrupt: late answers must not meet the next batch
            for worker in self._processes:
                if worker.pending:
                    worker.kill()

    def _chunk(self, index: int, queue: deque[Job]) -> list[Job]:
        """Take the next jobs for one worker from the queue."""
        mean = self._mean_s.get(index)
        wanted = _FIRST_CHUNK if mean is None else int(_CHUNK_S / max(mean, 1e-6))
        most = min(wanted, -(-len(queue) // (2 * self.workers)))
        chunk = [queue.popleft()]
        while len(chunk) < most and not (chunk[0].alone or queue[0].alone):
            chunk.append(queue.popleft())
        return chunk

    def _turn(self, index: int, queue: deque[Job]) -> int:
        """Wait for messages, take them, and replace lost workers; the number of jobs that got an outcome."""
        finished = 0
        talking = {worker.connection: worker for worker in self._processes if not worker.is_dead()}
        for connection in wait(list(talking), timeout=_TICK_S if talking else 0):
            worker = talking[connection]  # type: ignore[index]
            message = worker.receive()
            if message is None:
                continue
            if worker.ready:
                finished += self._take(index, worker, message)
            elif message.startswith(FAILED):
                raise _cannot_load(message[len(FAILED) :].decode(errors="replace"))
            elif message == READY:
                worker.is_ready()
            else:
                worker.garbled = True
        for worker in self._processes:
            if worker.is_dead() or worker.is_stuck(self.time_limit_s if worker.ready else _START_S):
                finished += self._replace(worker, queue)
        return finished

    def _take(self, index: int, worker: WorkerProcess, message: bytes) -> int:
        try:
            answers = [Outcome(score_from(plain), error, seconds) for plain, error, seconds in answers_from(message)]
            mean = sum(answer.seconds for answer in answers) / len(answers)
        except Exception:  # whatever a reward wrote there
            worker.garbled = True
            return 0
        if len(answers) > len(worker.pending):
            worker.garbled = True
            return 0
        for answer in answers:
            worker.answer(answer)
        self._mean_s[index] = 0.8 * self._mean_s.get(index, mean) + 0.2 * mean
        self._fruitless = 0
        return len(answers)

    def _replace(self, worker: WorkerProcess, queue: deque[Job]) -> int:
        """Replace a worker that is lost: the job it was at gets an error, the others go back to the queue.

        Of a worker that sent something else than answers it is not known at which of its jobs, so they are all sent
        again, one at a time.
        """
        seconds, ready, culprit, jobs = worker.seconds_here(), worker.ready, worker.current(), list(worker.pending)
        garbled = worker.garbled
        ending = worker.kill()
        if garbled and jobs:
            culprit = 0 if len(jobs) == 1 else None
            for job in jobs:
                job.alone = True
        elif culprit is None and (jobs or not ready):  # no completion's doing: going on as before may be for ever
            self._fruitless += 1
            if self._fruitless >= _FRUITLESS or (not ready and ending is None and seconds > _START_S):
                raise RewardError(
                    f"a worker process {'scored nothing' if ready else 'did not start'}: "
                    + (_GARBLED if garbled else ending or f"nothing came of it in {seconds:.0f} s")
                    + f"\n{worker.last_words()}".rstrip(),
                    where="the reward pool",
                    fix="set workers: 0 to score in this process, without limits",
                )
        worker.start()
        if culprit is not None:
            if garbled:
                error = _GARBLED
            elif ending is None:
                error = f"took longer than {self.time_limit_s:g} s (time limit)"
            else:
                error = f"ended its worker process ({ending})"
            jobs.pop(culprit).outcome = Outcome(error=error, seconds=seconds)
        queue.extendleft(reversed(jobs))
        return int(culprit is not None)


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


def _cannot_load(said: str) -> RewardError:
    return RewardError(
        f"a worker process cannot load {said}",
        where="the reward pool",
        fix="make what the reward needs importable in a fresh process, or set workers: 0 to score in this process",
    )


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
        worker.kill()
    processes.clear()
    for release in resources:
        release()
