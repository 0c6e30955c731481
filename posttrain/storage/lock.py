"""One process in a run directory."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import warnings
from pathlib import Path

from posttrain.errors import ResumeError

_FLOCK = "hhlli0l"  # Linux's struct flock: type, whence, start, length, pid
_held: set[Path] = set()  # POSIX locks do not keep a process from itself


class Lock:
    """An exclusive lock on a run directory, which the kernel releases when the process ends, however it ends.

    A POSIX record lock, not flock: children that a killed trainer leaves behind do not inherit it, so that they
    can't keep the run from being resumed. A file system without locks is warned about and let through.

    Raises:
        ResumeError: this process or another one holds the lock.
    """

    def __init__(self, path: Path):
        self.file = (path / ".lock").resolve()
        if self.file in _held:
            raise self._refusal(path, os.getpid())
        self._descriptor: int | None = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 20).decode(errors="replace").strip()
            os.close(self._descriptor)
            self._descriptor = None
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise self._refusal(path, holder or "unknown") from error
            warnings.warn(f"{path}: this file system has no locks ({error}); going on without", stacklevel=2)
            return
        if self.is_lost():  # between opening and locking, another process moved the directory aside
            os.close(self._descriptor)
            self._descriptor = None
            raise self._refusal(path, "unknown")
        _held.add(self.file)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def is_lost(self) -> bool:
        """Whether what is locked is no longer what is there: the directory was removed or moved away."""
        if self._descriptor is None:
            return False
        try:
            there, held = self.file.stat(), os.fstat(self._descriptor)
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino)

    @staticmethod
    def _refusal(path: Path, holder: object) -> ResumeError:
        return ResumeError(
            f"another process (pid {holder}) is at work in this directory",
            expected="one process in a run directory",
            where=str(path),
            fix="wait for it or stop it, or train elsewhere by run.dir=...",
        )

    def release(self) -> None:
        """Let others in; releasing twice is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self.file)


def at_work(path: Path) -> int | None:
    """The process that holds the lock of a run directory, None where none does, or where nobody can tell.

    It only asks: nothing is locked and nothing written, so that a run that is about to start is not in the way.
    """
    file = (path / ".lock").resolve()
    if file in _held:
        return os.getpid()
    if sys.platform != "linux":
        return None  # struct flock is laid out otherwise there
    try:
        with file.open("rb") as opened:
            answer = fcntl.fcntl(opened, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError:  # no such file, or a file system without locks
        return None
    kind, _, _, _, holder = struct.unpack(_FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else holder
