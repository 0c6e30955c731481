"""A real small file system for a run: a tmpfs that only the run's own process sees, made without root where it can be.

The process leaves the mount namespace of the test and mounts the tmpfs on the run directory. When the run has ended it
copies what is there beside it, which is the disk with room again.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

NEW_MOUNTS, NEW_USERS = 0x00020000, 0x10000000
READ_ONLY = 1
SIZE = 64 * 2**20
BALLAST = ".ballast"


@cache
def available() -> bool:
    """Whether this machine lets a process mount a tmpfs of its own."""
    code = "import sys; from pathlib import Path; from tests.pipeline.small_disk import mount; mount(Path(sys.argv[1]))"
    here = Path(__file__).parents[2]
    return (
        subprocess.run([sys.executable, "-c", code, str(here / "tests")], cwd=here, capture_output=True).returncode == 0
    )


def mount(folder: Path, *, flags: int = 0) -> None:
    """Mount a tmpfs on `folder` for this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if user == 0:
        _checked(libc.unshare(NEW_MOUNTS))
    else:  # root of a user namespace of its own
        _checked(libc.unshare(NEW_MOUNTS | NEW_USERS))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    private, recursive = 1 << 18, 1 << 14
    _checked(libc.mount(b"none", b"/", None, private | recursive, None))
    _checked(libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", flags, f"size={SIZE}".encode()))


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def on_small_disk(run: Path, *, flags: int = 0) -> Callable[[], Callable[[], None]]:
    """A fault: the run's directory is on a disk of its own; what is on it at the end is put in its place."""
    return partial(_on_small_disk, run, flags)


def _on_small_disk(run: Path, flags: int) -> Callable[[], None]:
    run.mkdir(exist_ok=True)
    mount(run, flags=flags)
    return partial(shutil.copytree, run, run.with_name("kept"), ignore=shutil.ignore_patterns(BALLAST, ".lock"))


def with_room_again(run: Path) -> None:
    """Put what was on the disk in the place that it was mounted on."""
    run.rmdir()
    run.with_name("kept").rename(run)


def fill(run: Path, *, leave: int = 0, leave_like: str | None = None) -> Callable[[], None]:
    """An action: fill the disk up, but for `leave` bytes and the size of the folder `leave_like` in the run."""
    return partial(_fill, run, leave, leave_like)


def _fill(run: Path, leave: int, leave_like: str | None) -> None:
    page = os.sysconf("SC_PAGESIZE")
    if leave_like:
        leave += sum(-(-file.stat().st_size // page) * page for file in (run / leave_like).rglob("*"))
    with (run / BALLAST).open("wb") as file:
        file.write(bytes(shutil.disk_usage(run).free - leave // page * page))
