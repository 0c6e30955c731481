"""A process that a launcher started: what it is told by its environment, and how it ends. Loads no torch."""

from __future__ import annotations

import atexit
import ctypes
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

EXIT_CODES = "POSTTRAIN_EXIT_CODES"
"""Names the folder that a launched process leaves its exit code in."""

LAUNCHER = "POSTTRAIN_LAUNCHER"
"""Holds the process id of the launcher, in the processes that it starts."""

COMMAND = "POSTTRAIN_LAUNCHED_BY"
"""Holds the command that goes on with a launched run."""

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def follow_launcher() -> None:
    """Have this process stopped, so that it saves and ends, when the launcher that started it dies; Linux only.

    Without one that `posttrain launch` names, nothing happens. SIGTERM is what a launcher that ends in time sends.
    """
    launcher = os.environ.pop(LAUNCHER, "")  # what this process starts follows nobody
    if not launcher or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(launcher):  # dead already
        os.kill(os.getpid(), signal.SIGTERM)


def resuming(arguments: Sequence[str]) -> str:
    """The command that goes on with what these arguments of `posttrain` started."""
    kept = [part for part in arguments if part not in ("--restart", "--resume")]
    return shlex.join(["posttrain", *kept, "--resume"])


def leave_code(code: int) -> None:
    """Tell the launcher, if there is one, what this process is about to end with."""
    folder = os.environ.get(EXIT_CODES)
    if folder and Path(folder).is_dir():
        (Path(folder) / os.environ.get("LOCAL_RANK", "0")).write_text(str(code))


def end(code: int) -> NoReturn:
    """End this process, of several or alone, and tell the launcher with what.

    Of several, gloo's threads may outlive the interpreter, which then ends by SIGABRT after all is done and saved
    (pytorch/pytorch#190489). So what is registered for the end is run here, and nothing after it.
    """
    leave_code(code)
    if processes() > 1:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def sharded_by(environ: Mapping[str, str]) -> str | None:
    """What `accelerate launch` has its processes cut the model up by; `None` where each has it whole."""
    if environ.get("ACCELERATE_USE_FSDP") == "true":
        return "FSDP"
    return "DeepSpeed" if environ.get("ACCELERATE_USE_DEEPSPEED") == "true" else None


def processes() -> int:
    """How many processes a launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))
