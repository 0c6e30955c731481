"""The pool's side of one worker process: starting it, talking to it, and knowing what it is at."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import IO

from posttrain.scoring.score import Outcome

# -P keeps the working directory from shadowing the standard library before sys.path is the caller's
_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from posttrain.scoring.worker import main; main(*map(int, sys.argv[2:]))"
)
# One worker a core leaves no core for threads; and what a reward sees of hash order should not depend on the worker
_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
_DEFAULT_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
_SEND_S = 10  # for a message to a worker that is known to wait for it
_RECEIVE_S = 2  # for more of a message that has begun; the whole pool waits meanwhile
_LONGEST = 2**27  # bytes of a message: longer than answers are, shorter than any text means when read as a length
_LAST_WORDS = 2000  # characters of what a worker that did not start wrote to standard error


Payload = tuple[str, bytes]
"""A completion, and its pickled columns; those that share their columns share the object, so that it is sent once."""


@dataclass(eq=False)
class Job:
    """A completion to score, once for all the places of the batch where it stands.

    Attributes:
        index: With which of the pool's rewards.
        alone: It is sent without others, so that it is clear whose doing it is when the worker sends no answer but
            something else.
        wanted: Somebody waits for the outcome, or has it; otherwise it was begun for later.
        reads: Completions that are looked at for it: those of its group, where the reward takes these.
    """

    index: int
    payload: Payload
    alone: bool = False
    wanted: bool = False
    reads: int = 1
    outcome: Outcome | None = None


class WorkerProcess:
    """One worker, and after its death the next in its place.

    Args:
        slot: Its number in the pool.
        setup: The file with the pickled `Setup`.
        counters, started: A file of 64-bit counters and its view in this process: how many completions each worker
            has begun.

    Attributes:
        ready: It has loaded the rewards.
        pending: The jobs it was sent and has not answered, in order.
        connection: Readable when it has something to say.
        garbled: What it has sent is no answer, so it is of no more use.
    """

    def __init__(self, slot: int, setup: IO[bytes], counters: IO[bytes], started: memoryview):
        self._slot, self._setup, self._counters, self._started = slot, setup, counters, started
        self.ready = False
        self.pending: deque[Job] = deque()
        self.connection: Connection
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._stderr: IO[bytes] | None = None
        self._answered = self._seen = 0
        self._since = 0.0
        self._hung_up = self.garbled = False

    @property
    def pid(self) -> int | None:
        """Of the process; `None` where there is none."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start a process; the one before must have been killed."""
        self.ready = self._hung_up = self.garbled = False
        self._answered = self._seen = 0
        self._started[self._slot] = 0
        ours, theirs = socket.socketpair()
        for option, seconds in ((socket.SO_SNDTIMEO, _SEND_S), (socket.SO_RCVTIMEO, _RECEIVE_S)):
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))
        held, self._lifeline = os.pipe()
        self.connection = Connection(ours.detach())
        self._forget_words()  # of the one before
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the worker is ready, or by `close`)
        fds = (theirs.fileno(), held, self._setup.fileno(), self._counters.fileno())
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _COMMAND, json.dumps(sys.path), *map(str, fds), str(self._slot)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=fds,
                env=_DEFAULT_ENVIRONMENT | os.environ | _ENVIRONMENT,
                start_new_session=True,  # Ctrl-C reaches the owner only, and killing the group takes what stays in it
            )
        finally:
            theirs.close()
            os.close(held)
        self._since = time.monotonic()

    def is_ready(self) -> None:
        """It has said that it can score."""
        self.ready = True
        self._forget_words()

    def send(self, jobs: list[Job]) -> bool:
        """Give it work for one reward; False when it does not take any."""
        self._since = time.monotonic()
        try:
            message = (jobs[0].index, [job.payload for job in jobs])
            self.connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
        except OSError:
            self._hung_up = True
            return False
        self.pending.extend(jobs)
        return True

    def receive(self) -> bytes | None:
        """Its next message; None when there will be no more."""
        try:
            return self.connection.recv_bytes(_LONGEST)
        except (EOFError, ConnectionError):
            self._hung_up = True
        except OSError:  # it stops within a message, or the length is beyond all measure
            self.garbled = True
        return None

    def answer(self, outcome: Outcome) -> None:
        """It has scored the first of its jobs."""
        self.pending.popleft().outcome = outcome
        self._answered += 1

    def current(self) -> int | None:
        """The place in `pending` of the job that it has begun and not answered, None when there is none."""
        begun = min(self._started[self._slot] - self._answered, len(self.pending))
        return begun - 1 if begun > 0 else None

    def seconds_here(self) -> float:
        """How long it has been at what it is at, as far as `is_stuck` has noticed."""
        return time.monotonic() - self._since

    def reads(self) -> int:
        """Completions that are looked at for the job that it is at."""
        at = self.current()
        return 1 if at is None else self.pending[at].reads

    def is_stuck(self, limit_s: float) -> bool:
        """Whether it has been at one job, or at its start, for longer than `limit_s`."""
        if self.ready and not self.pending:
            return False
        begun = self._started[self._slot]
        if begun != self._seen:
            self._seen, self._since = begun, time.monotonic()
        # The last look is for an owner that was itself held up, while the answer was on its way
        return self.seconds_here() > limit_s and not self.connection.poll()

    def is_dead(self) -> bool:
        """Whether it has ended, and all that it said has been received."""
        if self._process is None or self._hung_up or self.garbled:
            return True
        return self._process.poll() is not None and not self.connection.poll()

    def kill(self) -> str | None:
        """End it and what it started in its process group; how it had ended before, or None when it had not."""
        process, self._process = self._process, None
        if process is None:
            return None
        if self._hung_up:  # a moment lies between closing files and having an exit code
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
        code = process.poll()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.connection.close()
        os.close(self._lifeline)
        self.pending.clear()
        return None if code is None else _ending(code)

    def close(self) -> None:
        """End it for good."""
        self.kill()
        self._forget_words()

    def _forget_words(self) -> None:
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    def last_words(self) -> str:
        """What a worker that did not start wrote to standard error."""
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace").strip()[-_LAST_WORDS:]


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, perhaps for lack of memory" if name == "SIGKILL" else name
