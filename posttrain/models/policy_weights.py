"""The policy's weights as a stream of (name, tensor), named as in a checkpoint, for engines that sample from it.

Nothing is changed in the policy and no second copy of it is made. A LoRA adapter is added to its layer's weight one
tensor at a time, aside: merging in place and unmerging again would not give back the same bits.

Weights that FSDP2 shards are gathered one unit (a decoder layer, the LM head) at a time and come as they are computed
with, in the dtype of mixed precision. Gathering is collective: every process walks at the same time, to the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from peft.utils.other import ModulesToSaveWrapper
from torch import nn
from torch.distributed.fsdp import FSDPModule

from posttrain.errors import ConfigError
from posttrain.models.four_bit import dequantised, is_quantised

REFERENCE = "ref"
"""The name of the adapter that TRL keeps as the reference of a KL penalty; never part of the policy."""

TRANSPARENT = ("_checkpoint_wrapped_module", "_orig_mod")
"""Children that gradient checkpointing and `torch.compile` put around a module, and that checkpoints do not name."""


def base_model(model: nn.Module) -> Any:
    """The transformers model under a PEFT wrapper, or the model itself, with or without adapters of its own."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def is_tied(model: nn.Module) -> bool:
    """Whether the LM head and the embedding are one tensor in effect. An adapter on either of them parts the two.

    Two copies that train as a whole are one where PEFT ties them (`ensure_weight_tying`).
    """
    base = base_model(model)
    embedding, head = (_in_effect(each) for each in (base.get_input_embeddings(), base.get_output_embeddings()))
    if embedding is None or head is None or is_wrapped(embedding) or is_wrapped(head):
        return False
    return embedding.weight is head.weight


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 spreads the weights over the processes, so that walking them is collective."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


@torch.no_grad()  # not a block inside: left by another order than entered, two walks at a time would keep it on
def named_weights(model: nn.Module, *, with_adapters: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight of the policy with its active adapter added, layer by layer; a tied LM head only as embedding.

    A weight without an adapter is the parameter's own memory: use it before the next training step. One that was
    gathered is a copy, since its unit is sharded again while an engine may still wait for the rest of a layer. One that
    is held in 4 bits comes as what these stand for, one at a time.

    Args:
        model: The policy.
        with_adapters: False leaves the adapter out: the weights are those of its base.

    Raises:
        ConfigError: an adapter that is no plain LoRA, or weights that are quantised otherwise than to 4 bits.
    """
    base = base_model(model)
    tied_head = base.get_output_embeddings() if is_tied(model) else None
    with _whole(*[model] if model is not base else []):  # what FSDP2 wraps is PEFT's model
        yield from _walk(base, "", tied_head, gathered=isinstance(model, FSDPModule), adapters=with_adapters)


@contextmanager
def walked_to_the_end(weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[Iterable[tuple[str, torch.Tensor]]]:
    """Run the block with the weights; where it fails halfway, go through the rest for the processes that walk along.

    A gathering that one process leaves out would hang all the others.
    """
    stream = iter(weights)
    try:
        yield stream
    except Exception:
        with suppress(Exception):  # the block's own error is the one to tell
            deque(stream, maxlen=0)
        raise


def check_weights(model: nn.Module) -> None:
    """Raise what `named_weights` would raise, without adding any adapter."""
    for prefix, module in base_model(model).named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            _check_parameter(f"{prefix}.{name}", parameter)
        if is_wrapped(module):
            _check_adapter(module, prefix)


def _walk(
    module: nn.Module, prefix: str, tied_head: nn.Module | None, *, gathered: bool = False, adapters: bool = True
) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights of a module and what is in it; `gathered` where the module belongs to a unit that is whole now."""
    gathered = gathered or isinstance(module, FSDPModule)
    with _whole(module):
        if is_wrapped(module):
            yield from _adapted(module, prefix, tied_head, gathered=gathered, adapters=adapters)
            return
        for name, parameter in module.named_parameters(recurse=False):
            if module is tied_head and name == "weight":
                continue
            _check_parameter(prefix + name, parameter)
            if is_quantised(parameter):
                yield prefix + name, dequantised(parameter)
                continue
            yield prefix + name, parameter.detach().clone() if gathered else parameter.detach()
        for name, child in module.named_children():
            inner = prefix if name in TRANSPARENT else f"{prefix}{name}."
            yield from _walk(child, inner, tied_head, gathered=gathered, adapters=adapters)


@contextmanager
def _whole(*modules: nn.Module) -> Iterator[None]:
    """Run the block with the weights of these units gathered; units inside them keep theirs sharded."""
    units = [module for module in modules if isinstance(module, FSDPModule)]
    for unit in units:
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()


def is_wrapped(module: nn.Module) -> bool:
    """Whether PEFT has put this module around one of the model's own."""
    return hasattr(module, "base_layer") or hasattr(module, "original_module")


def _in_effect(module: Any) -> Any:
    """What a module that may train as a whole computes with: its trained copy, or what the model had; else itself."""
    if not isinstance(module, ModulesToSaveWrapper):
        return module
    active = [name for name in module.active_adapters if name in module.modules_to_save and name != REFERENCE]
    return module.modules_to_save[active[0]] if active and not module.disable_adapters else module.original_module


def _adapted(
    layer: Any, prefix: str, tied_head: nn.Module | None, *, gathered: bool, adapters: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights of what PEFT has wrapped: a layer with LoRA, or a module that trains as a whole."""
    _check_adapter(layer, prefix)
    if hasattr(layer, "original_module"):
        trained = _in_effect(layer)
        yield from _walk(trained, prefix, trained if layer is tied_head else tied_head, gathered=gathered)
        return
    added = _adapters_to_add(layer) if adapters else []
    for name, weight in _walk(layer.base_layer, prefix, tied_head, gathered=gathered):
        yield name, _plus_adapters(layer, weight, added) if name == f"{prefix}weight" else weight


def _adapters_to_add(layer: Any) -> list[str]:
    if layer.disable_adapters:
        return []
    present = {*layer.lora_A, *layer.lora_embedding_A} - {REFERENCE, *layer.merged_adapters}
    return [name for name in layer.active_adapters if name in present]


def _plus_adapters(layer: Any, weight: torch.Tensor, adapters: list[str]) -> torch.Tensor:
    """The weight with the adapters added, summed in float32 and rounded once."""
    if not adapters:
        return weight
    merged = weight.to(torch.float32, copy=True)
    inside = [module for name, module in layer.named_modules() if name and not name.startswith("base_layer")]
    with _whole(*inside):  # where an adapter is a unit of its own
        for name in adapters:
            merged += layer.get_delta_weight(name)
    return merged.to(weight.dtype)


def _check_parameter(name: str, parameter: nn.Parameter) -> None:
    if not parameter.is_floating_point() and not is_quantised(parameter):
        raise ConfigError(
            f"{name} is quantised ({parameter.dtype})",
            expected="weights of floating point numbers",
            where="model",
            fix="load the model without quantisation, or set rollout.engine: transformers",
        )


def _check_adapter(layer: Any, prefix: str) -> None:
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    if isinstance(layer, ModulesToSaveWrapper):
        return
    kinds: list[str] = []
    if not isinstance(layer, LoraLayer) or isinstance(layer, ParamWrapper):
        kinds = [type(layer).__name__]
    else:
        for name in _adapters_to_add(layer):
            kinds += [type(layer.lora_variant[name]).__name__] if name in layer.lora_variant else []
            kinds += ["LoRA with a bias"] if layer.lora_bias.get(name) else []
    if kinds:
        raise ConfigError(
            f"{prefix.removesuffix('.')} has an adapter of a kind that cannot be added to its weight: {kinds[0]}",
            expected="plain LoRA, and modules_to_save",
            where="peft",
            fix="train a plain LoRA adapter, or set rollout.engine: transformers",
        )
