"""A real vLLM server of posttrain's command on a CPU, to be killed, stopped and started again.

It is three processes, each of which imports torch and vLLM before it does what they are here for. So most are forked
where that has been done, with the command's arguments and environment; one that is started as the command stands is
what they are compared with (tests/vllm/test_adapters_on_a_server.py).
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from functools import partial, partialmethod
from pathlib import Path

from posttrain.rollouts.vllm_command import ADAPTER_ENVIRONMENT, SERVER_ENVIRONMENT, serve_command
from tests.pipeline.forking import Started

ON_A_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCH_COMPILE_DISABLE": "1"}


class Server:
    """Serves the model of a folder on a port of its own, which it keeps.

    It is started for NCCL as well, which a CPU cannot do: so the tests see how far the protocol goes.
    """

    def __init__(self, model: Path, log: Path, lora_rank: int | None = None):
        self.model, self.log, self.lora_rank = model, log, lora_rank
        self.process: subprocess.Popen | Started | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self, *, interpreter: bool = False) -> None:
        """Start it and wait until it answers; nothing if it runs.

        Args:
            interpreter: By the command itself, not forked.
        """
        if self.process is not None and self.process.poll() is None:
            return
        command = serve_command(
            self.model,
            port=self.port,
            transfer="nccl",
            lora_rank=self.lora_rank,
            more=["--dtype", "float32", "--enforce-eager", "--host", "127.0.0.1"],
        )
        environment = os.environ | SERVER_ENVIRONMENT | ON_A_CPU | (ADAPTER_ENVIRONMENT if self.lora_rank else {})
        if interpreter:
            with self.log.open("w") as out:
                self.process = subprocess.Popen(
                    command, env=environment, stdout=out, stderr=out, start_new_session=True
                )
        else:
            fault = partial(_be, command, environment)
            self.process = Started(self.log.parent, fault=fault, log_name=self.log.name)
        deadline = time.monotonic() + 240
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.3)

    def kill(self) -> None:
        """End it and its workers as by the kernel's hand."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def hang(self) -> None:
        """Stop it: it takes requests and answers none."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Undo `hang`."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False


def _be(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Be what `python -m MODULE ARGUMENTS` would be, in a session of its own, to the end of this process."""
    _, flag, module, *arguments = command
    assert flag == "-m"
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    from vllm import envs
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    # vLLM's CPU build has them spawned, for the sake of threads that it binds to cores, which it is told not to do here
    envs.environment_variables["VLLM_WORKER_MULTIPROC_METHOD"] = lambda: "fork"
    # A worker would spin for a second after all that it is asked for, on a core that others could use
    SpinCondition.__init__ = partialmethod(SpinCondition.__init__, busy_loop_s=0.05)  # type: ignore[method-assign]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()
