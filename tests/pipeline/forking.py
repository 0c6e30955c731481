"""Processes that outlive the call that starts them, and what they start, without the imports of a fresh interpreter.

`Started` is used as `subprocess.Popen` is. `forking` is a fault (see tests/pipeline/runs.py) that has a process fork
what it would start by `python -m posttrain`: the runs of a study, a launcher's ranks. Such a child is a process like
any other, with the arguments, environment, working folder, descriptors, session and signals that it was to have, and it
runs what `python -m` runs; only its imports are its parent's. Where they are what is tested, start an interpreter.
"""

from __future__ import annotations

import atexit
import inspect
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from tests.pipeline.runs import begin

_FLAGS = {"-P", "-u"}
_EXECUTE = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]
_kept: set[int] = set()


class Started:
    """`posttrain ARGUMENTS` in a folder, in a process forked ready for it; both its streams go to a file there.

    Attributes:
        pid: Its process id.
        returncode: How it ended, minus the signal that killed it; `None` while it is at work or nobody has looked.
    """

    def __init__(
        self, folder: Path, *arguments: str, fault: Callable[[], Any] | None = None, log_name: str = "log.txt"
    ):
        self._log = folder / log_name
        self._process = begin(folder, arguments, self._log, fault)
        self.pid: int = self._process.pid or 0
        self.returncode: int | None = None

    def poll(self) -> int | None:
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("posttrain", timeout or 0.0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end; what it said on both streams."""
        self.wait(timeout)
        return self._log.read_text(), None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def forking() -> None:
    """From here on this process forks what it would start by `python -m posttrain`."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    _kept.update(_open())
    subprocess.Popen = subprocess_handler.Popen = _ForkingPopen  # type: ignore[misc]


class _ForkingPopen(subprocess.Popen):
    """`Popen`, pipes and waiting included, but that `python -m posttrain` is a fork of this process."""

    def _execute_child(self, *given: Any) -> None:
        how = _EXECUTE.bind(self, *given).arguments
        command = None if how["shell"] or how["preexec_fn"] else _command(how["args"])
        if command is None:
            super()._execute_child(*given)  # type: ignore[misc]
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or the child would say it again
        self.pid = os.fork()
        if self.pid == 0:
            _become(how, *command)
        self._child_created = True
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(how[name] for name in ends))  # type: ignore[attr-defined]


def _command(arguments: Any) -> tuple[set[str], list[str]] | None:
    """Python's flags and the arguments of `posttrain`; `None` for any other command."""
    if isinstance(arguments, str | bytes | os.PathLike):
        return None
    program, *rest = map(os.fsdecode, arguments)
    if program != sys.executable or "-m" not in rest:
        return None
    flags, (module, *given) = set(rest[: rest.index("-m")]), rest[rest.index("-m") + 1 :]
    return (flags, given) if module == "posttrain" and flags <= _FLAGS else None


def _become(how: Mapping[str, Any], flags: set[str], arguments: list[str]) -> NoReturn:
    """Be what `python FLAGS -m posttrain ARGUMENTS` would be, to the end of this process."""
    code = 1
    try:
        weakref.finalize._registry.clear()  # type: ignore[attr-defined]  # its parent's, whose folders it would remove
        _take_on(how)
        if "-P" not in flags and not os.environ.get("PYTHONSAFEPATH"):
            sys.path.insert(0, str(Path.cwd()))
        if "-u" in flags:
            sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        code = _run(arguments)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _run(arguments: Sequence[str]) -> int:
    """Run the module; what an interpreter would end with after it."""
    sys.argv = ["-m", *arguments]
    try:
        runpy.run_module("posttrain", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return (stop.code or 0) & 0xFF
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _take_on(how: Mapping[str, Any]) -> None:
    """Signals, descriptors, session, folder and environment as a program has them that was started so."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):  # what is ignored stays so
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for given, stream in ((how["p2cread"], 0), (how["c2pwrite"], 1), (how["errwrite"], 2)):
        if given != -1:
            os.dup2(given, stream)
    for descriptor in _open() - _kept - set(how["pass_fds"]) - {0, 1, 2}:
        with suppress(OSError):
            os.close(descriptor)
    if how["start_new_session"]:
        os.setsid()
    if how["cwd"] is not None:
        os.chdir(how["cwd"])
    if how["env"] is not None:
        os.environ.clear()
        os.environ.update(how["env"])


def _open() -> set[int]:
    """Descriptors of this process; the one that lists them is closed again, and none of them."""
    listed = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    return {number for number in listed if _is_open(number)}


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
