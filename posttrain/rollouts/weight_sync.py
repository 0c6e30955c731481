"""The receiving side of weight updates: what we add to vLLM's workers (`worker_extension_cls`). Imports vLLM.

vLLM's own transfers of weights need GPUs and a second process, and engines of one's own in their place would have to
follow an interface that changed in 0.23, 0.25, 0.26 and 0.29. Methods of a worker and the reload of checkpoint weights
below are the same in every version that `posttrain.rollouts.vllm_build` takes, on CPUs and GPUs, in the trainer's
process and on a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from vllm.config import set_current_vllm_config
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

HEAD = "lm_head.weight"


class WeightReceiver:
    """What vLLM makes a base class of its worker, in each process that holds the model or a part of it.

    An update is one call of `posttrain_start`, any number of loads and one call of `posttrain_finish`. One that failed
    is given up by starting another.
    """

    # The worker's own
    vllm_config: Any
    get_model: Callable[[], Any]

    posttrain_update: _Update

    def posttrain_start(self) -> None:
        """Make the model ready to take checkpoint weights."""
        with set_current_vllm_config(self.vllm_config):
            self.posttrain_update = _Update(self.get_model(), self.vllm_config.model_config)

    def posttrain_load(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take a part of the weights from the same process.

        Args:
            weights: (checkpoint name, whole tensor), each needed until its layer is full.
        """
        with set_current_vllm_config(self.vllm_config):
            self.posttrain_update.load(weights)

    def posttrain_load_file(self, path: str) -> None:
        """Take a part of the weights from a safetensors file, which may be deleted afterwards."""
        self.posttrain_load(_tensors(path))

    def posttrain_finish(self) -> None:
        """Sample with the new weights from now on.

        Raises:
            ValueError: parameters of the model got no value.
        """
        with set_current_vllm_config(self.vllm_config):
            self.posttrain_update.finish()


class _Update:
    """A reload of checkpoint weights, packed again layer by layer, with every parameter accounted for."""

    def __init__(self, model: Any, model_config: Any):
        self._model, self._model_config = model, model_config
        initialize_layerwise_reload(model)
        self._tied = _has_tied_head(model)
        self._missing = {name for name, _ in model.named_parameters()} - ({HEAD} if self._tied else set())

    def load(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        loaded = self._model.load_weights(self._checked(weights))
        self._missing = self._missing - loaded if loaded is not None else set()
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the weights' memory is the caller's again

    def _checked(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in weights:
            if self._tied and name == HEAD:
                raise ValueError("an LM head of its own came for a model whose head is its embedding")
            yield name, tensor

    def finish(self) -> None:
        """Finish the layers that are left; build a tied LM head again from the embedding.

        On a CPU vLLM keeps a packed copy of the LM head's weight. A tied head is sent no weight of its own, so vLLM
        leaves the packed copy of before in place and goes on sampling with it.
        """
        finalize_layerwise_reload(self._model, self._model_config)
        if self._tied:
            head = self._model.lm_head
            head.quant_method.process_weights_after_loading(head)
        if self._missing:
            some = ", ".join(sorted(self._missing)[:5])
            raise ValueError(f"no weights came for {some} ({len(self._missing)} in all)")


def _tensors(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - safe_open is no mapping
            yield name, opened.get_tensor(name)


def _has_tied_head(model: Any) -> bool:
    head, config = getattr(model, "lm_head", None), getattr(model, "config", None)
    return getattr(head, "quant_method", None) is not None and bool(getattr(config, "tie_word_embeddings", False))
