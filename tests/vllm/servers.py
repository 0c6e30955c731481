"""A real vLLM server of posttrain's command on a CPU, to be killed, stopped and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

from posttrain.rollouts.vllm_command import ADAPTER_ENVIRONMENT, SERVER_ENVIRONMENT, serve_command

ON_A_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCH_COMPILE_DISABLE": "1"}


class Server:
    """Serves the model of a folder on a port of its own, which it keeps.

    It is started for NCCL as well, which a CPU cannot do: so the tests see how far the protocol goes.
    """

    def __init__(self, model: Path, log: Path, lora_rank: int | None = None):
        self.model, self.log, self.lora_rank = model, log, lora_rank
        self.process: subprocess.Popen | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers; nothing if it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        command = serve_command(
            self.model,
            port=self.port,
            transfer="nccl",
            lora_rank=self.lora_rank,
            more=["--dtype", "float32", "--enforce-eager", "--host", "127.0.0.1"],
        )
        with self.log.open("a") as out:
            self.process = subprocess.Popen(
                command,
                env=os.environ | SERVER_ENVIRONMENT | ON_A_CPU | (ADAPTER_ENVIRONMENT if self.lora_rank else {}),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
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
