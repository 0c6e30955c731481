"""What a reward pool's workers have to do, and the turns in which they get it and answer."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from multiprocessing.connection import wait

from posttrain.errors import RewardError
from posttrain.scoring.score import Outcome
from posttrain.scoring.worker import FAILED, READY, answers_from, score_from
from posttrain.scoring.worker_process import Job, WorkerProcess

_CHUNK_S = 0.02  # work per message: long against the cost of one, short against a batch
_FIRST_CHUNK = 8  # completions, until it is known how long one takes
_TICK_S = 0.02
_START_S = 120.0  # for the imports of the rewards
_GARBLED = "what its worker process sent is no answer (the reward may write to files that it has not opened)"
_FRUITLESS = 3  # workers lost in a row without a single answer, or failing to start


class Work:
    """Jobs that wait for a worker, by reward, and the workers that they go to.

    Not for several threads at once: who calls it holds the pool's lock.

    Args:
        processes: The workers; an empty list when the pool has been closed.
        time_limit_s: Seconds that one completion may take; where a whole group is read for one, as often as it has
            completions.
    """

    def __init__(self, processes: list[WorkerProcess], time_limit_s: float):
        self.processes, self.time_limit_s = processes, time_limit_s
        self._queues: defaultdict[int, deque[Job]] = defaultdict(deque)
        self._mean_s: dict[int, float] = {}
        self._fruitless = 0

    def add(self, job: Job) -> None:
        """Let a job wait for a worker."""
        self._queues[job.index].append(job)

    def is_left(self) -> bool:
        """Whether anything waits for a worker, or for a worker's answer."""
        return any(self._queues.values()) or any(worker.pending for worker in self.processes)

    def finish(self, jobs: Sequence[Job], first: int) -> None:
        """Go on until each of these jobs has an outcome.

        Args:
            jobs: Jobs that were added.
            first: The reward whose jobs go to workers before those of others.

        Raises:
            RewardError: workers die or fail to start over and over.
        """
        for job in jobs:
            while job.outcome is None:
                self.turn(first)

    def turn(self, first: int = 0, wake: int | None = None) -> None:
        """Give workers jobs, wait a moment for their messages, take them, and replace workers that are lost.

        Args:
            first: As in `finish`.
            wake: A file descriptor; the wait ends when it is readable.
        """
        self._hand_out(first)
        talking = {worker.connection: worker for worker in self.processes if not worker.is_dead()}
        wakers = [] if wake is None else [wake]
        for connection in wait([*talking, *wakers], timeout=_TICK_S if talking else 0):
            if connection == wake:
                continue
            worker = talking[connection]  # type: ignore[index]
            message = worker.receive()
            if message is None:
                continue
            if worker.ready:
                self._take(worker, message)
            elif message.startswith(FAILED):
                raise _cannot_load(message[len(FAILED) :].decode(errors="replace"))
            elif message == READY:
                worker.is_ready()
            else:
                worker.garbled = True
        for worker in self.processes:
            limit_s = self.time_limit_s * worker.reads() if worker.ready else _START_S
            if worker.is_dead() or worker.is_stuck(limit_s):
                self._replace(worker)

    def drop(self) -> None:
        """Give up all jobs. Workers that are at one are ended, and replaced in the next turn: late answers must not
        meet other jobs.
        """
        self._queues.clear()
        for worker in self.processes:
            if worker.pending:
                worker.kill()

    def _hand_out(self, first: int) -> None:
        for worker in self.processes:
            # Only to a worker that waits for it, so that neither side ever blocks the other by writing
            if not worker.ready or worker.pending:
                continue
            queue = self._queues[first] or next(filter(None, self._queues.values()), deque())
            if not queue:
                return
            chunk = self._chunk(queue)
            if not worker.send(chunk):
                queue.extendleft(reversed(chunk))

    def _chunk(self, queue: deque[Job]) -> list[Job]:
        """Take the next jobs for one worker from a reward's queue."""
        mean = self._mean_s.get(queue[0].index)
        wanted = _FIRST_CHUNK if mean is None else int(_CHUNK_S / max(mean, 1e-6))
        most = min(wanted, -(-len(queue) // (2 * len(self.processes))))
        chunk = [queue.popleft()]
        while len(chunk) < most and not (chunk[0].alone or queue[0].alone):
            chunk.append(queue.popleft())
        return chunk

    def _take(self, worker: WorkerProcess, message: bytes) -> None:
        try:
            answers = [Outcome(score_from(plain), error, seconds) for plain, error, seconds in answers_from(message)]
            mean = sum(answer.seconds for answer in answers) / len(answers)
        except Exception:  # whatever a reward wrote there
            worker.garbled = True
            return
        if len(answers) > len(worker.pending):
            worker.garbled = True
            return
        index = worker.pending[0].index
        for answer in answers:
            worker.answer(answer)
        self._mean_s[index] = 0.8 * self._mean_s.get(index, mean) + 0.2 * mean
        self._fruitless = 0

    def _replace(self, worker: WorkerProcess) -> None:
        """Replace a worker that is lost: the job it was at gets an error, the others go back to their queue.

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
                error = self._too_long(jobs[culprit])
            else:
                error = f"ended its worker process ({ending})"
            failed = jobs.pop(culprit)
            failed.outcome = Outcome(error=error, seconds=seconds)
            if failed.reads > 1 and not garbled and ending is None:
                jobs = self._without_group(failed, jobs)
        for job in reversed(jobs):
            self._queues[job.index].appendleft(job)

    def _too_long(self, job: Job) -> str:
        if job.reads == 1:
            return f"took longer than {self.time_limit_s:g} s (time limit)"
        return f"its group of {job.reads} took longer than {self.time_limit_s * job.reads:g} s (time limit)"

    def _without_group(self, failed: Job, jobs: list[Job]) -> list[Job]:
        """Those of `jobs` that are of other groups: each of this one would read it all again, for as long."""
        queue = self._queues[failed.index]
        for job in [*jobs, *queue]:
            if job.index == failed.index and job.payload[1] == failed.payload[1]:
                job.outcome = Outcome(error=self._too_long(job))
        self._queues[failed.index] = deque(job for job in queue if job.outcome is None)
        return [job for job in jobs if job.outcome is None]


def _cannot_load(said: str) -> RewardError:
    return RewardError(
        f"a worker process cannot load {said}",
        where="the reward pool",
        fix="make what the reward needs importable in a fresh process, or set workers: 0 to score in this process",
    )
