"""A policy as its base and one LoRA adapter apart, for engines that add the adapter themselves while they sample.

The adapter's weights come by the names that PEFT saves them under, with each layer's scaling multiplied into B: what an
engine reads of a rank, an alpha or a kind of scaling beside them is 1, whatever the layer has.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from posttrain.models.policy_weights import REFERENCE, TRANSPARENT, base_model, is_sharded, is_wrapped

PREFIX = "base_model.model."
"""Before the name of a layer in an adapter that PEFT has saved."""

EXPERTS = {"experts", "gate", "router"}
"""Parts of the names of layers that belong to a mixture of experts."""


def why_together(model: nn.Module) -> str | None:
    """Why a policy is not its base and one adapter that an engine can add; `None` if it is.

    That is so where nothing but the adapter trains and the adapter is plain LoRA on linear layers.
    """
    base = base_model(model)
    if not has_adapter(model):
        return "it has no adapter that is on"
    head = base.get_output_embeddings()
    for name, layer in base.named_modules():
        if is_wrapped(layer) and (reason := _why_not_plain(name, layer, head)):
            return f"{name} {reason}"
    beside = [name for name, each in base.named_parameters() if each.requires_grad and ".lora_" not in name]
    return f"{beside[0]} trains beside the adapter" if beside else None


def has_adapter(model: Any) -> bool:
    """Whether a policy has an adapter that is on."""
    if not isinstance(model, nn.Module):
        return False
    return any(_active(layer) for layer in base_model(model).modules() if hasattr(layer, "lora_A"))


def rank_of(model: nn.Module) -> int:
    """The largest rank of the adapter in any layer; 0 without one."""
    layers = [layer for layer in base_model(model).modules() if hasattr(layer, "lora_A")]
    return max((layer.r[name] for layer in layers for name in _active(layer)), default=0)


@torch.no_grad()
def adapter_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Both factors of each layer's adapter as copies on the CPU: `lora_A` (rank, in), `lora_B` (out, rank).

    The layer's scaling is multiplied into B, in float32. Of a policy that FSDP2 shards the adapter alone is gathered;
    that is collective: every process walks at the same time, to the end.

    Args:
        model: A policy for which `why_together` gives no reason.
    """
    for path, layer in base_model(model).named_modules():
        for name in _active(layer) if hasattr(layer, "lora_A") else ():
            named = PREFIX + ".".join(part for part in path.split(".") if part not in TRANSPARENT)
            yield f"{named}.lora_A.weight", _whole(layer.lora_A[name].weight)
            yield f"{named}.lora_B.weight", _whole(layer.lora_B[name].weight).float() * layer.scaling[name]


class BaseMark:
    """Tells the bases of policies apart: a mark stays the same for as long as a policy's base does.

    Weights that were set anew or changed in place make another base; a change through `.data` cannot be seen.
    """

    def __init__(self) -> None:
        self._of: weakref.ref[Any] | None = None
        self._state: list[tuple[Any, ...]] = []
        self._number = 0

    def of(self, model: nn.Module) -> int:
        """The mark of a policy's base."""
        base, weights = base_model(model), _weights_of_base(model)
        if self._of is None or self._of() is not base or not self._same(weights):
            self._of = weakref.ref(base)
            self._state = [(weakref.ref(each), each.data_ptr(), each._version) for each in weights]
            self._number += 1
        return self._number

    def _same(self, weights: list[nn.Parameter]) -> bool:
        return len(weights) == len(self._state) and all(
            of() is each and memory == each.data_ptr() and version == each._version
            for each, (of, memory, version) in zip(weights, self._state, strict=True)
        )

    def forget(self) -> None:
        """The next mark is another one."""
        self._of = None


def _weights_of_base(model: nn.Module) -> list[nn.Parameter]:
    if is_sharded(model):  # which moves the parameters at each step; that none of them trains has been seen
        return []
    return [each for name, each in base_model(model).named_parameters() if ".lora_" not in name]


def _active(layer: Any) -> list[str]:
    if layer.disable_adapters:
        return []
    present = {*layer.lora_A, *layer.lora_embedding_A} - {REFERENCE}
    return [name for name in layer.active_adapters if name in present]


def _why_not_plain(name: str, layer: Any, head: Any) -> str | None:
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    if hasattr(layer, "original_module"):
        return "trains as a whole"
    if not isinstance(layer, LoraLayer) or isinstance(layer, ParamWrapper):
        return f"has a {type(layer).__name__}"
    if hasattr(layer, "lora_E"):
        return "has a budget of ranks (AdaLoRA)"
    if not isinstance(layer.base_layer, nn.Linear):
        return "has an adapter, and is no linear layer"
    if layer is head:
        return "is the LM head, for which vLLM takes adapters of some families only"
    if set(name.split(".")) & EXPERTS:
        return "is part of a mixture of experts, whose adapters were not compared under vLLM"
    active = _active(layer)
    if layer.merged_adapters:
        return "has an adapter that is merged into its weight"
    if len(active) > 1:
        return f"has {len(active)} adapters at a time"
    if variants := [layer.lora_variant[each] for each in active if each in layer.lora_variant]:
        return f"has an adapter of a kind of its own ({type(variants[0]).__name__})"
    return "has an adapter with a bias" if any(layer.lora_bias.get(each) for each in active) else None


def _whole(weight: torch.Tensor) -> torch.Tensor:
    whole = weight.full_tensor() if isinstance(weight, DTensor) else weight
    return whole.detach().to("cpu", copy=True).contiguous()
