"""How a launch ends: accelerate's launcher in this process, and one exit code for all it started. Loads no torch."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from posttrain.processes.launched import EXIT_CODES, LAUNCHER


def run_accelerate(
    given: list[str], workers: int, last_checkpoint: Callable[[], Path | None], *, all_logs: bool = False
) -> int:
    """Run `accelerate launch` in this process.

    Args:
        given: What follows `accelerate launch`.
        workers: Processes that it starts here.
        last_checkpoint: Finds the one that the run goes on from.
        all_logs: Whether torch's launcher logs what it does beside what is said here.

    Returns:
        The exit code.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if not all_logs:
        _quiet_elastic()
    with tempfile.TemporaryDirectory(prefix="posttrain-launch-") as folder:
        os.environ |= {EXIT_CODES: folder, LAUNCHER: str(os.getpid())}
        try:
            launch_command(launch_command_parser().parse_args(given))
        except ChildFailedError as failed:
            killed = [found for found in failed.failures.items() if found[1].exitcode == -signal.SIGKILL]
            rank, first = killed[0] if killed else failed.get_first_failure()
            end = how_it_ended(first.exitcode, last_checkpoint() if first.exitcode < 0 else None)
            print(f"error: process {rank} was the first to fail, {end}", file=sys.stderr)
            return exit_code([first.exitcode])
        except SignalException as stop:
            return exit_code(left_codes(Path(folder), workers), stopped_by=stop.sigval)
        finally:
            for name in (EXIT_CODES, LAUNCHER):
                os.environ.pop(name, None)
    return 0


def _quiet_elastic() -> None:
    """Errors of torch's launcher reach us as exceptions; its log would tell of every stop as of a failure."""
    import torch.distributed.launcher.api  # noqa: F401  (it makes the loggers, each with a level of its own)

    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


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


def how_it_ended(code: int, checkpoint: Path | None) -> str:
    """How a process ended, why that may be, and what the run goes on from."""
    why = " (often the kernel's, out of memory: see dmesg)" if code == -signal.SIGKILL else ""
    fresh = " without --restart" if "--restart" in sys.argv else ""
    on = f"; the same command{fresh} goes on from {checkpoint}" if checkpoint else ""
    return in_words(code) + why + on


def in_words(code: int) -> str:
    """How a process ended."""
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def left_codes(folder: Path, workers: int) -> list[int | None]:
    """What the workers left behind, by local rank."""
    files = [folder / str(rank) for rank in range(workers)]
    return [int(file.read_text()) if file.is_file() else None for file in files]
