"""A worker process of `posttrain.scoring.pool.RewardPool`: scores what it is sent until the connection closes.

It imports what rewards need and nothing more. The pool kills it when a completion takes too long, so nothing here has
to end in order. What it owes the pool is to say which completion it is at: it counts the completions it begins in
memory that both share, which costs no system call, and can send its answers many at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import inspect
import io
import mmap
import os
import pickle
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from posttrain.errors import RewardError
from posttrain.processes.importing import importing
from posttrain.scoring.calling import score_completion
from posttrain.scoring.loading import module_from_file
from posttrain.scoring.score import Outcome, Reward, Score, describe

READY, FAILED = b"ready", b"failed"
_FLUSH_S = 0.005  # how long an answer may wait for others; it is also the work that a killed worker can lose
_PLAIN_DEPTH = 50


@dataclass(frozen=True)
class Setup:
    """What every worker of a pool starts with.

    Args:
        rewards: Name and cloudpickle of each of the pool's rewards; None for TRL-style ones, which stay at home.
        files: Name, path and text of each module that was made from a reward's file.
        memory_limit_mb: What a worker may allocate beyond what it needs to start.
    """

    rewards: tuple[tuple[str, bytes] | None, ...]
    files: tuple[tuple[str, str, bytes], ...]
    memory_limit_mb: int | None

    def load(self) -> list[Reward | None]:
        """The rewards, as this process can call them.

        Raises:
            RewardError: one can't be loaded here.
        """
        what = ""
        try:
            for name, what, source in self.files:
                module_from_file(name, what, source)
            rewards: list[Reward | None] = []
            for entry in self.rewards:
                what = f"reward {entry[0]!r}" if entry else ""
                reward = pickle.loads(entry[1]) if entry else None
                _prepare(reward)
                rewards.append(reward)
        except BaseException as error:
            raise RewardError(f"{what}: {describe(error)}") from error
        return rewards


def _prepare(reward: Reward | None) -> None:
    """Call what a reward has to do before its first completion, with its kwargs if it asks for them."""
    prepare = getattr(reward.function, "prepare", None) if reward else None
    if not prepare or not reward:
        return
    try:
        asks = "kwargs" in inspect.signature(prepare).parameters
    except (TypeError, ValueError):  # it has no readable signature
        asks = False
    prepare(**({"kwargs": reward.kwargs} if asks else {}))


def main(connection_fd: int, lifeline_fd: int, setup_fd: int, counters_fd: int, slot: int) -> None:
    """Load the rewards, report that, and score until the pool hangs up.

    Args:
        connection_fd: A socket to the pool.
        lifeline_fd: The reading end of a pipe whose other end only the pool holds.
        setup_fd: A file with the pickled `Setup`.
        counters_fd: A file with one 64-bit counter per worker.
        slot: Which of them is this one's.
    """
    for fd in (connection_fd, lifeline_fd, setup_fd, counters_fd):
        os.set_inheritable(fd, False)  # a program that a reward starts must not hold them open
    _die_with(lifeline_fd)
    connection, own = Connection(connection_fd), os.getpid()
    # The length is said, because the file grows where a reward writes to descriptors that aren't its own
    started = memoryview(mmap.mmap(counters_fd, 8 * (slot + 1))).cast("Q")[slot:]
    setup = pickle.loads(mmap.mmap(setup_fd, 0, access=mmap.ACCESS_READ))
    for fd in (setup_fd, counters_fd):
        os.close(fd)
    try:
        with importing():
            rewards = setup.load()
    except Exception as error:
        _leave_if_forked(own)
        connection.send_bytes(FAILED + describe(error).encode(errors="replace"))
    else:
        _leave_if_forked(own)
        _limit_memory(setup.memory_limit_mb)
        connection.send_bytes(READY)
        _silence()
        with contextlib.suppress(EOFError, OSError):  # the pool hung up
            _serve(connection, rewards, started)
    os._exit(0)  # threads that a reward started have no say


def _serve(connection: Connection, rewards: list[Reward | None], started: memoryview) -> None:
    own = os.getpid()
    while True:
        index, jobs = pickle.loads(connection.recv_bytes())
        reward = rewards[index]
        assert reward is not None
        answers: list[tuple[Any, ...]] = []
        flushed = time.monotonic()
        for job in jobs:
            started[0] += 1
            answers.append(_answer(reward, job))
            _leave_if_forked(own)
            os.fstat(connection.fileno())  # a reward that closes what isn't its own is found out before the next
            out_of_memory = (answers[-1][1] or "").startswith("MemoryError")
            now = time.monotonic()
            if now - flushed > _FLUSH_S or out_of_memory:
                connection.send_bytes(pickle.dumps(answers, pickle.HIGHEST_PROTOCOL))
                answers, flushed = [], now
            if out_of_memory:
                return  # what filled the memory may still be in it: leave the rest to a fresh worker
        if answers:
            connection.send_bytes(pickle.dumps(answers, pickle.HIGHEST_PROTOCOL))


def _leave_if_forked(own: int) -> None:
    """End a process that a reward has forked and let return: only the worker, `own`, talks to the pool."""
    if os.getpid() != own:
        os._exit(0)


def _answer(reward: Reward, job: tuple[str, bytes]) -> tuple[Any, ...]:
    """Score one (completion, pickled row): the score as plain data or None, the error, the seconds."""
    began = time.perf_counter()
    try:
        completion, row = job
        outcome = score_completion(reward, completion, pickle.loads(row))  # its own: a reward may change it
        return _plain_score(outcome), outcome.error, outcome.seconds
    except BaseException as error:  # KeyboardInterrupt raised by the reward, a `parsed` whose repr raises, ...
        failure = error.with_traceback(None)  # lets go of what the frames hold
    return None, describe(failure), time.perf_counter() - began


def _plain_score(outcome: Outcome) -> tuple[Any, ...] | None:
    score = outcome.score
    if score is None:
        return None
    parsed = score.parsed if _is_plain(score.parsed) else repr(score.parsed)
    return score.value, score.parts, parsed, str(score.note), score.bounded


def score_from(plain: tuple[Any, ...] | None) -> Score | None:
    """The score that `_answer` took apart."""
    return None if plain is None else Score(*plain)


def answers_from(message: bytes) -> Any:
    """What a worker sent, as plain data: the training process runs nothing for what a reward may have written there.

    Raises:
        pickle.UnpicklingError: The message names a class or a function, or is no pickle.
    """
    return _PlainData(io.BytesIO(message)).load()


class _PlainData(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


def _is_plain(value: Any, depth: int = _PLAIN_DEPTH) -> bool:
    """Whether `value` can be unpickled without importing anything, as the training process should not have to."""
    kind = type(value)
    if value is None or kind in (str, int, float, bool):
        return True
    if depth and kind in (list, tuple):
        return all(_is_plain(item, depth - 1) for item in value)
    if depth and kind is dict:
        return all(_is_plain(key, depth - 1) and _is_plain(item, depth - 1) for key, item in value.items())
    return False


def _die_with(lifeline_fd: int) -> None:
    """Let the kernel end this process, and what it started, as soon as the pool's end of the pipe closes.

    A reward that hangs inside C code runs no Python any more, neither threads nor signal handlers; SIGIO's default
    action needs none. (A parent-death signal would come when the *thread* that started the worker ends.)
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, fcntl.fcntl(lifeline_fd, fcntl.F_GETFL) | os.O_ASYNC)


def _limit_memory(limit_mb: int | None) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            used = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return  # the kernel's limit counts address space, and only Linux says how much of it is taken
    if limit_mb is not None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = used + limit_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))


def _silence() -> None:
    """What rewards print goes nowhere; until here standard error was kept, to tell why a worker did not start."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.__stderr__.fileno() if sys.__stderr__ else 2)
