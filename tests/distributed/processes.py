"""Several processes of one run, forked from a server that has imported torch and TRL, on CPU with gloo.

`ranks` calls a function in each of them and returns what they return; `accelerate launch` itself starts fresh
interpreters and is used where the launcher is what is tested.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.sparing import spare


class Failed(AssertionError):
    """A process ended otherwise than expected; the message has what all of them said."""


def ranks(
    count: int,
    function: Callable[..., Any],
    *arguments: Any,
    folder: Path,
    time_limit_s: float = 240.0,
    fsdp: bool = False,
    environment: dict[str, str] | None = None,
    expected: list[int] | None = None,
) -> list[Any]:
    """Call `function(*arguments)` in `count` processes that make up one run; their results in the order of ranks.

    Args:
        function: Importable by name. With `count` 1 it runs in one process without torch.distributed.
        folder: For the processes' output (`rank0.txt`, ...) and results.
        time_limit_s: After which all are killed and the call fails with what they said.
        fsdp: Shard with FSDP2, which accelerate offers on GPUs only; the sharding itself is torch's and runs on gloo.
        environment: Set in the processes before anything runs.
        expected: Exit codes, by rank; all 0 if `None`. A process that does not end with 0 has the result `None`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    port = _free_port()
    processes = [
        context.Process(target=_child, args=(rank, count, port, folder, fsdp, environment or {}, function, arguments))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + time_limit_s
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    late = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    codes = [process.exitcode for process in processes]
    if late or codes != (expected or [0] * count):
        said = "\n".join(f"--- rank {rank}\n{output(folder, rank)[-4000:]}" for rank in range(count))
        raise Failed(f"exit codes {codes}, still at work after {time_limit_s} s: {late}\n{said}")
    return [_result(folder, rank) if code == 0 else None for rank, code in enumerate(codes)]


def output(folder: Path, rank: int) -> str:
    """What a process printed, on both streams."""
    file = folder / f"rank{rank}.txt"
    return file.read_text() if file.exists() else ""


def _result(folder: Path, rank: int) -> Any:
    return pickle.loads((folder / f"rank{rank}.pickle").read_bytes())


def _child(
    rank: int,
    count: int,
    port: int,
    folder: Path,
    fsdp: bool,
    environment: dict[str, str],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    spare()
    descriptor = os.open(folder / f"rank{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    (folder / f"rank{rank}.pickle").unlink(missing_ok=True)
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", ACCELERATE_USE_CPU="true")
    if count > 1:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count),
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        )  # fmt: skip
    os.environ.update(environment)
    import torch

    torch.set_num_threads(1)
    if fsdp:
        _shard_on_cpu()
    code = 0
    try:
        result = function(*arguments)
        (folder / f"rank{rank}.pickle").write_bytes(pickle.dumps(result))
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _shard_on_cpu() -> None:
    """Accelerate shards where it finds several GPUs; tell it so, and leave the device and gloo as they are."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    os.environ.update(
        ACCELERATE_USE_FSDP="true", FSDP_VERSION="2", FSDP_AUTO_WRAP_POLICY="TRANSFORMER_BASED_WRAP",
        FSDP_STATE_DICT_TYPE="SHARDED_STATE_DICT", FSDP_RESHARD_AFTER_FORWARD="true",
    )  # fmt: skip
    original = PartialState.__init__

    def init(self: PartialState, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = init  # type: ignore[method-assign]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def kill_self() -> None:
    """Die as by the kernel's hand."""
    os.kill(os.getpid(), signal.SIGKILL)
