"""What a process says when the others of its run are gone: the errors of gloo and NCCL name sockets, not causes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.distributed import DistError

from posttrain.errors import PosttrainError, TrainingError
from posttrain.processes.ranks import Ranks

_SAID = re.compile(r"gloo|nccl|connection (closed|reset)|timed out waiting|process group", re.IGNORECASE)


class ConnectionLost(TrainingError):
    """Another process of the run has ended, or has not answered for `run.process_timeout_s`."""

    lost_connection = True


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error is what torch raises when another process does not take part in a collective any more."""
    if isinstance(error, PosttrainError):
        return False
    if isinstance(error, DistError):  # of the backend, the network or the store
        return True
    return isinstance(error, RuntimeError) and bool(_SAID.search(str(error)))


@contextmanager
def explained(ranks: Ranks, last_checkpoint: Callable[[], Path | None]) -> Iterator[None]:
    """Turn a lost connection in the block into an error that says where to look.

    Args:
        ranks: The processes of the run.
        last_checkpoint: Finds the one to go on from.

    Raises:
        ConnectionLost: Another process has ended or hangs.
    """
    try:
        yield
    except Exception as error:
        if ranks.count == 1 or not is_lost_connection(error):
            raise
        checkpoint = last_checkpoint()
        raise ConnectionLost(
            "lost contact with another process of this run, which has ended, or hangs",
            expected=f"an answer from each of {ranks.count} processes within run.process_timeout_s",
            fix="look for the cause in what the other processes printed, then go on by --resume: "
            + (f"{checkpoint} is whole" if checkpoint else "there is no checkpoint yet"),
        ) from error
