"""Weights from the trainer's GPU to a vLLM server's GPUs over NCCL, by TRL's client (`trl.generation.vllm_client`).

The client makes the trainer's main process one more rank beside the server's workers and streams the weights to them.
Both ends need CUDA, and the server the flags of `SERVER_FLAGS`; a port of the trainer (51216) must be open to it.

This module follows the client as TRL's own trainers use it. What a CPU can show of it is tested against a real server:
how the two find each other, what is asked over HTTP and where the client refuses. The stream itself was not run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from posttrain.errors import ConfigError, PosttrainError, TrainingError
from posttrain.rollouts.time_limit import time_limit

SERVER_FLAGS = ("--weight-transfer-config", '{"backend": "nccl"}')
"""What the server's command needs; `posttrain serve --weights-transfer nccl` adds it."""

Metadata = list[tuple[str, str, list[int]]]
"""Name, dtype and shape of every weight, in the order of the stream."""


def takes_nccl(vllm_config: Mapping[str, Any]) -> bool:
    """Whether a server of this configuration was started for weights over NCCL."""
    return (vllm_config.get("weight_transfer_config") or {}).get("backend") == "nccl"


def metadata_of(weights: Iterable[tuple[str, torch.Tensor]]) -> Metadata:
    """What the server must know of the weights before the first one comes."""
    return [(name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)) for name, tensor in weights]


class NcclSender:
    """The main process's end of the transfer.

    Args:
        base_url: Of the server.
        device: The trainer's. Only CUDA works.
        time_limit_s: For joining the server and for each transfer. A transfer that is stuck in NCCL cannot be
            interrupted: the process ends with an error on stderr.

    Raises:
        ConfigError: The client refuses this device or this server.
        TrainingError: The server did not answer.
    """

    def __init__(self, base_url: str, *, device: torch.device | str, time_limit_s: float):
        from trl.generation.vllm_client import VLLMClient

        self.device, self.time_limit_s = torch.device(device), time_limit_s
        with time_limit(time_limit_s, "joining the vLLM server over NCCL"):
            try:
                self._client = VLLMClient(base_url=base_url, connection_timeout=min(10.0, time_limit_s))
                self._client.init_communicator(device=self.device)
            except (NotImplementedError, RuntimeError, ImportError) as error:  # no CUDA, a server without it, no vLLM
                raise ConfigError(
                    f"weights cannot go to {base_url} over NCCL: {error}",
                    expected="CUDA in the trainer and on the server",
                    where="rollout.weights_transfer",
                    fix="start the server with `posttrain serve MODEL --weights-transfer nccl`, or set files",
                ) from error
            except Exception as error:
                raise _failed(base_url, error) from error

    def send(self, metadata: Metadata, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Send all weights; the server samples with them from then on.

        Raises:
            TrainingError: The server failed or took other weights than these.
        """
        stream = ((name, tensor.to(self.device)) for name, tensor in weights)
        with time_limit(self.time_limit_s, "sending the policy's weights over NCCL"):
            try:
                self._client.update_named_params(metadata, stream)
                self._client.reset_prefix_cache()
            except PosttrainError:
                raise
            except Exception as error:
                raise _failed(self._client.base_url, error) from error

    def close(self) -> None:
        """Leave the server's group."""
        with contextlib.suppress(Exception):
            self._client.close_communicator()


def _failed(base_url: str, error: BaseException) -> TrainingError:
    return TrainingError(
        f"the transfer of weights to the vLLM server at {base_url} failed: {type(error).__name__}: {error}",
        where="rollout.weights_transfer",
        fix="look at the server's log, start it again and then this run: the last checkpoint is whole; files goes "
        "without NCCL",
    )
