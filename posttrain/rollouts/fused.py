"""A Llama's forward pass over packed tokens in few, large calls, for models so small that calls are what a pass costs.

transformers' pass makes some sixty calls a layer; at a million parameters they take longer than the arithmetic. Here a
layer takes about twenty: query, key and value are one product, gate and up another. The numbers are those of
transformers' own pass but for the last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import pad, rms_norm, silu
from torch.nn.modules.module import _has_any_global_hook
from transformers import LlamaForCausalLM
from transformers.activations import SiLUActivation
from transformers.models.llama import modeling_llama as llama

from posttrain.models import products
from posttrain.models.products import Product
from posttrain.models.scored import keep_scored

__all__ = ["Attend", "Fused", "fused", "is_replaced"]

Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Takes a layer's number, its queries [N, H, D], keys and values [N, H / n, D], and gives what is read [N, H, D]."""

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

        def product(*layers: torch.nn.Linear) -> Product:
            return Product(*(each.weight for each in layers), copied=copied)

        self._embedding, self._head = inner.embed_tokens.weight, product(model.lm_head)
        self._norm, self._eps = inner.norm.weight, config.rms_norm_eps
        self._inverse = inner.rotary_emb.inv_freq
        self._heads, self._size = config.num_attention_heads, inner.layers[0].self_attn.head_dim
        self._layers = [
            (
                layer.input_layernorm.weight,
                product(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                product(layer.self_attn.o_proj),
                layer.post_attention_layernorm.weight,
                product(layer.mlp.gate_proj, layer.mlp.up_proj),
                product(layer.mlp.down_proj),
            )
            for layer in inner.layers
        ]

    def logits(
        self, ids_N: torch.Tensor, positions_N: torch.Tensor, attend: Attend, wanted: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits [N, V] after each token of a packed sequence.

        Args:
            ids_N: Token ids.
            positions_N: Of each token in its row.
            attend: Attention of tokens to what their rows hold, themselves included.
            wanted: The tokens that logits are given for; None: all.
        """
        count, more = len(ids_N), products.padded_length(len(ids_N)) - len(ids_N)
        ids_N, positions_N = pad(ids_N, (0, more)), pad(positions_N, (0, more))
        angles = positions_N[:, None].float() * self._inverse
        angles = torch.cat([angles, angles], dim=-1)[:, None]
        cos, sin = angles.cos(), angles.sin()
        size, half = (self._size,), self._size // 2
        width = self._embedding.shape[1:]
        hidden = self._embedding.index_select(0, ids_N)
        for number, (before, qkv, out, between, gate_up, down) in enumerate(self._layers):
            states = qkv(rms_norm(hidden, width, before, self._eps)).unflatten(-1, (-1, *size))
            keys_of = (states.shape[1] - self._heads) // 2
            turned = states[:, : self._heads + keys_of]
            swapped = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
            turned = (turned * cos).addcmul_(swapped, sin)
            read = attend(
                number, turned[:count, : self._heads], turned[:count, self._heads :], states[:count, -keys_of:]
            )
            hidden = out.added_to(hidden, pad(read.flatten(1), (0, 0, 0, more)))
            gate, up = gate_up(rms_norm(hidden, width, between, self._eps)).chunk(2, dim=-1)
            hidden = down.added_to(hidden, silu(gate).mul_(up))
        if wanted is not None:
            count = len(wanted)
            hidden = hidden.index_select(0, pad(wanted, (0, products.padded_length(count) - count)))
        return self._head(rms_norm(hidden, width, self._norm, self._eps))[:count]
