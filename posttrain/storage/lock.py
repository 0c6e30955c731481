"""One process in a run directory."""

from __future__ import annotations

import errno
import fcntl
import os
import warnings
from pathlib import Path

from posttrain.errors import ResumeError

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
