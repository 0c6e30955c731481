"""The receiving side of weight updates: weight-transfer engines of ours in vLLM's factory. Imports vLLM.

vLLM's own engines need GPUs and a second process. `InProcessTransfer` lives in the trainer's process and takes the
trainer's tensors as they are, one parameter after the other; `SharedFileTransfer` lives in a server and reads them from
files in a folder that both sides see. Both work on CPUs and GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

Update = TypeVar("Update", bound=WeightTransferUpdateInfo)
HEAD = "lm_head.weight"


@dataclass
class Nothing(WeightTransferInitInfo):
    """There is nothing to connect."""


@dataclass
class Stream(WeightTransferUpdateInfo):
    """Weights of one update.

    Attributes:
        weights: (checkpoint name, whole tensor), each needed until its layer is full.
    """

    weights: Iterable[tuple[str, torch.Tensor]]


@dataclass
class Files(WeightTransferUpdateInfo):
    """Weights of one update, or of a part of it.

    Attributes:
        files: Paths of safetensors files. They may be deleted when the update returns.
    """

    files: list[str]


class _Reload(WeightTransferEngine[Nothing, Update]):
    """An update as a reload of checkpoint weights, with every parameter accounted for."""

    init_info_cls = Nothing

    def init_transfer_engine(self, init_info: Nothing) -> None:
        """Nothing to do."""

    def start_weight_update(self) -> None:
        """Make the model ready to take checkpoint weights; packed ones are built again, layer by layer."""
        initialize_layerwise_reload(self.model)
        self._tied = _has_tied_head(self.model)
        self._missing = {name for name, _ in self.model.named_parameters()} - ({HEAD} if self._tied else set())

    def load(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Load a part of the weights."""
        model: Any = self.model
        loaded = model.load_weights(self._checked(weights))
        self._missing = self._missing - loaded if loaded is not None else set()

    def _checked(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in weights:
            if self._tied and name == HEAD:
                raise ValueError("an LM head of its own came for a model whose head is its embedding")
            yield name, tensor

    def finish_weight_update(self) -> None:
        """Finish the layers that are left; build a tied LM head again from the embedding.

        On a CPU vLLM keeps a packed copy of the LM head's weight. A tied head is sent no weight of its own, so vLLM
        leaves the packed copy of before in place and goes on sampling with it.

        Raises:
            ValueError: parameters of the model got no value.
        """
        finalize_layerwise_reload(self.model, self.model_config)
        if self._tied:
            head: Any = self.model.lm_head
            head.quant_method.process_weights_after_loading(head)
        if self._missing:
            some = ", ".join(sorted(self._missing)[:5])
            raise ValueError(f"no weights came for {some} ({len(self._missing)} in all)")

    def shutdown(self) -> None:
        """Nothing to do."""


class InProcessTransfer(_Reload[Stream]):
    """Takes a stream of tensors from the same process."""

    update_info_cls = Stream

    def receive_weights(self, update_info: Stream) -> None:
        """Load the stream."""
        self.load(update_info.weights)


class SharedFileTransfer(_Reload[Files]):
    """Reads tensors from files that the trainer has written."""

    update_info_cls = Files

    def receive_weights(self, update_info: Files) -> None:
        """Load the files."""
        self.load(_tensors(update_info.files))


def _tensors(files: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import safe_open

    for path in files:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - safe_open is no mapping
                yield name, opened.get_tensor(name)


def _has_tied_head(model: Any) -> bool:
    head, config = getattr(model, "lm_head", None), getattr(model, "config", None)
    return getattr(head, "quant_method", None) is not None and bool(getattr(config, "tie_word_embeddings", False))
