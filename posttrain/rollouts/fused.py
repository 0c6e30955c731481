"""Which models `llama_pass` stands in for, and their weights as it wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from torch.nn.modules.module import _has_any_global_hook
from transformers import LlamaForCausalLM
from transformers.activations import SiLUActivation
from transformers.models.llama import modeling_llama as llama

from posttrain.models import products
from posttrain.models.scored import keep_scored
from posttrain.rollouts.kv_buffers import key_heads
from posttrain.rollouts.llama_pass import Buffers, Layer, Weights, in_one_call
from posttrain.rollouts.row_buffers import Layout, RowBuffers

__all__ = ["Fused", "fused", "is_replaced"]

COPIED = 16_000_000
"""Parameters up to which the weights are copied once a call; of larger models the copy would take a while."""


PLAIN = {
    kind: kind.forward
    for kind in (
        torch.nn.Embedding, torch.nn.Linear, torch.nn.ModuleList, torch.nn.SiLU, SiLUActivation, llama.LlamaModel,
        llama.LlamaAttention, llama.LlamaDecoderLayer, llama.LlamaMLP, llama.LlamaRMSNorm, llama.LlamaRotaryEmbedding,
        LlamaForCausalLM,
    )
    if kind.forward.__module__.startswith(("torch.", "transformers."))
}  # fmt: skip
"""What the fused pass stands in for. An adapter's or a patched module would be passed over without a word."""


def fused(model: Any) -> Fused | None:
    """The fused pass of a model; None where it is no Llama all of whose parts are transformers' own, or is not in
    float32 on a CPU. The forward() of the whole, which trainers replace, is not looked at: `is_replaced` tells.
    """
    if type(model) is not LlamaForCausalLM or torch.is_autocast_enabled("cpu") or _has_any_global_hook():
        return None
    if any(each.device.type != "cpu" or each.dtype != torch.float32 for each in model.parameters()):
        return None
    config, inner, head = model.config, model.model, model.lm_head
    parts = [*inner.modules(), head]
    if (
        config.hidden_act != "silu"
        or type(head) is not torch.nn.Linear
        or any(is_replaced(each) or getattr(each, "bias", None) is not None for each in parts)
        or any(map(_is_hooked, [model, *parts]))
        or inner.rotary_emb.rope_type != "default"
    ):
        return None
    return Fused(model)


def is_replaced(module: Any) -> bool:
    """Whether a module's forward() is other than that of a kind which the fused pass stands in for."""
    kind = type(module)
    return kind.forward is not PLAIN.get(kind) or ("forward" in vars(module) and not products.installed(module))


def _is_hooked(module: Any) -> bool:
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return any(each is not keep_scored for each in hooks)  # which is for packed passes


class Fused:
    """The weights of a model as they are now, laid out for `logits`.

    Args:
        model: One that `fused` takes.

    Attributes:
        is_small: Calls, not arithmetic, are most of what a pass costs.
    """

    def __init__(self, model: Any):
        inner, config = model.model, model.config
        size = sum(each.numel() for each in [*inner.layers.parameters(), model.lm_head.weight])
        copied = self.is_small = size <= COPIED

        def laid_out(*layers: torch.nn.Linear) -> list[torch.Tensor]:
            return products.laid_out(*(each.weight for each in layers), copied=copied)

        self._weights = Weights(
            inner.embed_tokens.weight.detach(),
            [
                Layer(
                    layer.input_layernorm.weight.detach(),
                    laid_out(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                    laid_out(layer.self_attn.o_proj),
                    layer.post_attention_layernorm.weight.detach(),
                    laid_out(layer.mlp.gate_proj, layer.mlp.up_proj),
                    laid_out(layer.mlp.down_proj),
                )
                for layer in inner.layers
            ],
            inner.norm.weight.detach(),
            laid_out(model.lm_head),
            inner.rotary_emb.inv_freq,
            config.rms_norm_eps,
            config.num_attention_heads,
            inner.layers[0].self_attn.head_dim,
            products.available(),
        )
        self._no_states = self._weights.embedding.new_empty(1, key_heads(config), 0, self._weights.size)
        self._call = in_one_call()

    def logits(
        self, ids_N: torch.Tensor, layout: Layout, buffers: Sequence[RowBuffers], wanted: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits [N, V] after each token of a packed sequence.

        Args:
            ids_N: Token ids.
            layout: Where they stand.
            buffers: Of each layer, which attention writes and reads.
            wanted: The tokens that logits are given for; None: all.
        """
        weights = self._weights
        for each in buffers:
            if not each.is_initialized:
                each.lazy_initialization(self._no_states, self._no_states)
        wanted = torch.arange(len(ids_N)) if wanted is None else wanted
        prompts = [each.prompt for each in buffers if each.prompt is not None]
        held = Buffers(
            [each.keys for each in buffers],
            [each.values for each in buffers],
            [keys for keys, _ in prompts],
            [values for _, values in prompts],
        )
        return self._call(
            weights, held, _padded(ids_N), _padded(layout.positions_N), layout.slot_N, layout.longest, layout.parts,
            layout.spans or [], _padded(wanted), len(wanted),
        )  # fmt: skip


def _padded(number_N: torch.Tensor) -> torch.Tensor:
    """With zeros up to `products.padded_length`."""
    return pad(number_N, (0, products.padded_length(len(number_N)) - len(number_N)))
