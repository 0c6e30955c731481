"""The command that starts a vLLM server for `ServerEngine`, and how weights get to it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from posttrain.errors import ConfigError
from posttrain.recipe.adapter_serving import vllm_rank
from posttrain.rollouts.vllm_nccl import SERVER_FLAGS
from posttrain.rollouts.vllm_package import WORKER_EXTENSION

SERVER_ENVIRONMENT = {"VLLM_SERVER_DEV_MODE": "1"}
"""What the server's environment needs: without it vLLM lets nobody reach its workers."""

ADAPTER_ENVIRONMENT = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
"""What the environment of a server needs beside that to take adapters while it runs."""

FLAGS = {
    "--worker-extension-cls": WORKER_EXTENSION,
    "--logprobs-mode": "processed_logprobs",
    "--generation-config": "vllm",
    "--load-format": "dummy",
}
"""What the server's command needs, besides the model and two switches."""

SWITCHES = ("--tokens-only", "--skip-tokenizer-init")

TRANSFERS = ("auto", "files", "nccl")
"""How weights travel."""


def serve_command(
    model: str | Path,
    *,
    port: int = 8000,
    transfer: str = "files",
    lora_rank: int | None = None,
    more: Sequence[str] = (),
) -> list[str]:
    """The command that starts a server for `ServerEngine`; its environment needs `SERVER_ENVIRONMENT` too.

    Args:
        model: A hub id, or a folder with the model's config.json; weights are not read, the trainer sends them.
        port: Where to listen.
        transfer: `nccl` makes the server take weights over NCCL too.
        lora_rank: Room for an adapter of this rank, which then travels alone; the environment needs
            `ADAPTER_ENVIRONMENT`, too.
        more: Arguments for vLLM, such as `--dtype bfloat16`, `--max-model-len 4096` and `--tensor-parallel-size 2`.
    """
    flags = [part for pair in FLAGS.items() for part in pair]
    # Not `vllm serve`: vLLM's CPU build is packaged under another name, which that command cannot bear
    module = ["-m", "vllm.entrypoints.openai.api_server"]
    over_nccl = SERVER_FLAGS if transfer == "nccl" else ()
    adapters = ["--enable-lora", "--max-lora-rank", str(vllm_rank(lora_rank))] if lora_rank else []
    own = [*flags, *SWITCHES, *over_nccl, *adapters]
    return [sys.executable, *module, "--model", str(model), "--port", str(port), *own, *more]


def chosen_transfer(asked: str, *, on_cuda: bool, server_takes_nccl: bool) -> str:
    """`files` or `nccl`, for one of `TRANSFERS`.

    Raises:
        ConfigError: A name that is none of them.
    """
    if asked not in TRANSFERS:
        raise ConfigError(repr(asked), expected=" or ".join(TRANSFERS), where="rollout.weights_transfer")
    if asked != "auto":
        return asked
    return "nccl" if on_cuda and server_takes_nccl else "files"
