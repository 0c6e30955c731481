"""The receiving side of weight updates: what we add to vLLM's workers (`worker_extension_cls`). Imports vLLM.

vLLM's own transfers of weights need GPUs and a second process, and engines of one's own in their place would have to
follow an interface that changed in 0.23, 0.25, 0.26 and 0.29. Methods of a worker and the reload of checkpoint weights
below are the same in every version that `posttrain.rollouts.vllm_package` takes, on CPUs and GPUs, in the trainer's
process and on a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from vllm.config import set_current_vllm_config
from vllm.lora.layers import BaseLayerWithLoRA
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

HEAD = "lm_head.weight"


class WeightReceiver:
    """What vLLM makes a base class of its worker, in each process that holds the model or a part of it.

    An update is one call of `posttrain_start`, any number of loads and one call of `posttrain_finish`. One that failed
    is given up by starting another. What is given over a server's `/collective_rpc` and comes back is text.
    """

    # The worker's own
    vllm_config: Any
    get_model: Callable[[], Any]

    posttrain_update: _Update | None = None
    posttrain_mark: str = ""

    def posttrain_start(self) -> None:
        """Make the model ready to take checkpoint weights."""
        if self.posttrain_update is not None:
            self.posttrain_update.give_up()
        self.posttrain_mark = ""
        with set_current_vllm_config(self.vllm_config):
            self.posttrain_update = _Update(self.get_model(), self.vllm_config.model_config)

    def posttrain_load(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take a part of the weights from the same process.

        Args:
            weights: (checkpoint name, whole tensor), each needed until its layer is full.
        """
        assert self.posttrain_update is not None, "posttrain_start comes first"
        with set_current_vllm_config(self.vllm_config):
            self.posttrain_update.load(weights)

    def posttrain_load_file(self, path: str) -> None:
        """Take a part of the weights from a safetensors file, which may be deleted afterwards."""
        self.posttrain_load(_tensors(path))

    def posttrain_finish(self, mark: str = "") -> None:
        """Sample with the new weights from now on.

        Args:
            mark: What `posttrain_has` knows these weights by.

        Raises:
            ValueError: parameters of the model got no value.
        """
        assert self.posttrain_update is not None, "posttrain_start comes first"
        with set_current_vllm_config(self.vllm_config):
            self.posttrain_update.finish()
        self.posttrain_update, self.posttrain_mark = None, mark

    def posttrain_has(self, mark: str) -> str:
        """`yes` where the model's weights are those that were finished with this mark."""
        return "yes" if mark and mark == self.posttrain_mark else ""

    def posttrain_check_adapter(self) -> None:
        """Look whether the adapter that vLLM has taken is added to the model, all of it.

        vLLM passes over the weights of layers that its model does not have.

        Raises:
            ValueError: There are such.
        """
        if self.vllm_config.parallel_config.pipeline_parallel_size > 1:
            return  # each process has some of the layers
        manager = self.get_model().lora_manager
        for adapter in manager.list_adapters().values():
            if absent := sorted(set(adapter.loras) - set(manager.modules)):
                raise ValueError(f"vLLM's model has no layer {absent[0]} for the adapter ({len(absent)} such in all)")


class _Update:
    """A reload of checkpoint weights, packed again layer by layer, with every parameter accounted for.

    Where vLLM takes adapters it has put a layer of its own around each that can have one, which most versions' loading
    of weights does not know: these are set aside until the weights are there.
    """

    def __init__(self, model: Any, model_config: Any):
        self._model, self._model_config = model, model_config
        self._around = [
            (parent, name, child)
            for parent in list(model.modules())
            for name, child in parent._modules.items()
            if isinstance(child, BaseLayerWithLoRA)
        ]
        for parent, name, child in self._around:
            setattr(parent, name, child.base_layer)
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
        self.give_up()
        if self._missing:
            some = ", ".join(sorted(self._missing)[:5])
            raise ValueError(f"no weights came for {some} ({len(self._missing)} in all)")

    def give_up(self) -> None:
        """Put the layers back that were set aside."""
        for parent, name, child in self._around:
            setattr(parent, name, child)


def _tensors(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - safe_open is no mapping
            yield name, opened.get_tensor(name)


def _has_tied_head(model: Any) -> bool:
    head, config = getattr(model, "lm_head", None), getattr(model, "config", None)
    return getattr(head, "quant_method", None) is not None and bool(getattr(config, "tie_word_embeddings", False))
