"""The policy's weights as a stream of (name, tensor), named as in a checkpoint, for engines that sample from it.

Nothing is changed in the policy and no second copy of it is made. A LoRA adapter is added to its layer's weight one
tensor at a time, aside: merging in place and unmerging again would not give back the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from posttrain.errors import ConfigError

REFERENCE = "ref"
"""The name of the adapter that TRL keeps as the reference of a KL penalty; never part of the policy."""


def base_model(model: nn.Module) -> Any:
    """The transformers model under a PEFT wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore[operator]


def is_tied(model: nn.Module) -> bool:
    """Whether the LM head and the embedding are one tensor in effect. An adapter on either of them parts the two."""
    base = base_model(model)
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    if embedding is None or head is None or _is_wrapped(embedding) or _is_wrapped(head):
        return False
    return embedding.weight is head.weight


def named_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight of the policy with its active adapter added, layer by layer; a tied LM head only as embedding.

    A weight without an adapter is the parameter's own memory: use it before the next training step.

    Raises:
        ConfigError: an adapter that is no plain LoRA, or weights that are quantised.
    """
    base = base_model(model)
    tied_head = base.get_output_embeddings() if is_tied(model) else None
    with torch.no_grad():
        yield from _walk(base, "", tied_head)


def check_weights(model: nn.Module) -> None:
    """Raise what `named_weights` would raise, without adding any adapter."""
    for prefix, module in base_model(model).named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            _check_parameter(f"{prefix}.{name}", parameter)
        if _is_wrapped(module):
            _check_adapter(module, prefix)


def _walk(module: nn.Module, prefix: str, tied_head: nn.Module | None) -> Iterator[tuple[str, torch.Tensor]]:
    if _is_wrapped(module):
        yield from _adapted(module, prefix, tied_head)
        return
    for name, parameter in module.named_parameters(recurse=False):
        if module is tied_head and name == "weight":
            continue
        _check_parameter(prefix + name, parameter)
        yield prefix + name, parameter.detach()
    for name, child in module.named_children():
        yield from _walk(child, f"{prefix}{name}.", tied_head)


def _is_wrapped(module: nn.Module) -> bool:
    """Whether PEFT has put this module around one of the model's own."""
    return hasattr(module, "base_layer") or hasattr(module, "original_module")


def _adapted(layer: Any, prefix: str, tied_head: nn.Module | None) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights of what PEFT has wrapped: a layer with LoRA, or a module that trains as a whole."""
    _check_adapter(layer, prefix)
    if hasattr(layer, "original_module"):
        active = [name for name in layer.active_adapters if name in layer.modules_to_save and name != REFERENCE]
        trained = layer.modules_to_save[active[0]] if active and not layer.disable_adapters else layer.original_module
        yield from _walk(trained, prefix, tied_head)
        return
    adapters = _adapters_to_add(layer)
    for name, weight in _walk(layer.base_layer, prefix, tied_head):
        yield name, _plus_adapters(layer, weight, adapters) if name == f"{prefix}weight" else weight


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
    for name in adapters:
        merged += layer.get_delta_weight(name)
    return merged.to(weight.dtype)


def _check_parameter(name: str, parameter: nn.Parameter) -> None:
    if not parameter.is_floating_point():
        raise ConfigError(
            f"{name} is quantised ({parameter.dtype})",
            expected="weights of floating point numbers",
            where="model",
            fix="load the model without quantisation, or set rollout.engine: transformers",
        )


def _check_adapter(layer: Any, prefix: str) -> None:
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper
    from peft.utils.other import ModulesToSaveWrapper

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
