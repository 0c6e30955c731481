"""How a launch ends: accelerate's launcher in this process, and one exit code for all it started. Loads no torch."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

EXIT_CODES = "POSTTRAIN_EXIT_CODES"
"""Names the folder that a launched process leaves its exit code in."""

COMMAND = "POSTTRAIN_LAUNCHED_BY"
"""Holds the command that goes on with a launched run."""


def run_accelerate(given: list[str], workers: int) -> int:
    """Run `accelerate launch` in this process.

    Args:
        given: What follows `accelerate launch`.
        workers: Processes that it starts here.

    Returns:
        The exit code.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    with tempfile.TemporaryDirectory(prefix="posttrain-launch-") as folder:
        os.environ[EXIT_CODES] = folder
        try:
            launch_command(launch_command_parser().parse_args(given))
        except ChildFailedError as failed:
            rank, first = failed.get_first_failure()
            code = exit_code([first.exitcode])
            print(f"error: process {rank} was the first to fail, {in_words(first.exitcode)}", file=sys.stderr)
            return code
        except SignalException as stop:
            return exit_code(left_codes(Path(folder), workers), stopped_by=stop.sigval)
        finally:
            os.environ.pop(EXIT_CODES, None)
    return 0


def exit_code(codes: Sequence[int | None], stopped_by: int | None = None) -> int:
    """One exit code for all workers.

    Args:
        codes: The workers' own; negative for a signal that ended one, None for one that said nothing before its end.
        stopped_by: The signal that the launcher got, if any.

    Returns:
        0 if all of them ended with 0. Else the first other code, 128 and its number for a signal.
    """
    for code in codes:
        if code is None:
            return 128 + int(stopped_by or signal.SIGKILL)
        if code:
            return 128 - code if code < 0 else code
    return 0


def in_words(code: int) -> str:
    """How a process ended."""
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def leave_code(code: int) -> None:
    """Tell the launcher, if there is one, what this process is about to end with."""
    folder = os.environ.get(EXIT_CODES)
    if folder and Path(folder).is_dir():
        (Path(folder) / os.environ.get("LOCAL_RANK", "0")).write_text(str(code))


def left_codes(folder: Path, workers: int) -> list[int | None]:
    """What the workers left behind, by local rank."""
    files = [folder / str(rank) for rank in range(workers)]
    return [int(file.read_text()) if file.is_file() else None for file in files]
