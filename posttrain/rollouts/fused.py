"""A Llama's forward pass over packed tokens in few, large calls, for models so small that calls are what a pass costs.

transformers' pass makes some sixty calls a layer; at a million parameters they take longer than the arithmetic. Here a
layer takes about twenty: query, key and value are one product, gate and up another. The numbers are those of
transformers' own pass but for the last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import linear, rms_norm, silu
from transformers import LlamaForCausalLM
from transformers.activations import SiLUActivation
from transformers.models.llama import modeling_llama as llama

__all__ = ["Attend", "Fused", "fused"]

Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Takes a layer's number, its queries [N, H, D], keys and values [N, H / n, D], and gives what is read [N, H, D]."""

LARGEST = 16_000_000
"""Parameters; the weights are copied once a call, and from about here on arithmetic is what a pass costs."""


PLAIN = {
    torch.nn.Embedding, torch.nn.Linear, torch.nn.ModuleList, torch.nn.SiLU, SiLUActivation, llama.LlamaModel,
    llama.LlamaAttention, llama.LlamaDecoderLayer, llama.LlamaMLP, llama.LlamaRMSNorm, llama.LlamaRotaryEmbedding,
}  # fmt: skip
"""What the fused pass stands in for. An adapter's or a patched module would be passed over without a word."""


def fused(model: Any) -> Fused | None:
    """The fused pass of a model; None where it is no Llama all of whose parts are transformers' own, is large, or is
    not in float32 on a CPU.
    """
    if type(model) is not LlamaForCausalLM or model.device.type != "cpu" or model.dtype != torch.float32:
        return None
    config = model.config
    inner = model.model
    if (
        config.hidden_act != "silu"
        or any(
            type(module) not in PLAIN or "forward" in vars(module) or _is_hooked(module) for module in inner.modules()
        )
        or any(getattr(module, "bias", None) is not None for module in [*inner.modules(), model.lm_head])
        or type(model.lm_head) is not torch.nn.Linear
        or "forward" in vars(model.lm_head)
        or any(map(_is_hooked, (model, model.lm_head)))
        or inner.rotary_emb.rope_type != "default"
        or sum(each.numel() for each in inner.layers.parameters()) > LARGEST
    ):
        return None
    return Fused(model)


def _is_hooked(module: Any) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


class Fused:
    """The weights of a model as they are now, laid out for `logits`.

    Args:
        model: One that `fused` takes.
    """

    def __init__(self, model: Any):
        inner, config = model.model, model.config
        self._embedding, self._head = inner.embed_tokens.weight, model.lm_head.weight
        self._norm, self._eps = inner.norm.weight, config.rms_norm_eps
        self._inverse = inner.rotary_emb.inv_freq
        self._heads, self._size = config.num_attention_heads, inner.layers[0].self_attn.head_dim
        self._layers = [
            (
                layer.input_layernorm.weight,
                torch.cat([getattr(layer.self_attn, f"{name}_proj").weight for name in "qkv"]),
                layer.self_attn.o_proj.weight,
                layer.post_attention_layernorm.weight,
                torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight]),
                layer.mlp.down_proj.weight,
            )
            for layer in inner.layers
        ]

    def logits(self, ids_N: torch.Tensor, positions_N: torch.Tensor, attend: Attend) -> torch.Tensor:
        """Logits [N, V] after each token of a packed sequence.

        Args:
            ids_N: Token ids.
            positions_N: Of each token in its row.
            attend: Attention of tokens to what their rows hold, themselves included.
        """
        angles = positions_N[:, None].float() * self._inverse
        angles = torch.cat([angles, angles], dim=-1)[:, None]
        cos, sin = angles.cos(), angles.sin()
        size, half = (self._size,), self._size // 2
        width = self._embedding.shape[1:]
        hidden = self._embedding.index_select(0, ids_N)
        for number, (before, qkv, out, between, gate_up, down) in enumerate(self._layers):
            states = linear(rms_norm(hidden, width, before, self._eps), qkv).unflatten(-1, (-1, *size))
            keys_of = (states.shape[1] - self._heads) // 2
            turned = states[:, : self._heads + keys_of]
            swapped = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
            turned = (turned * cos).addcmul_(swapped, sin)
            read = attend(number, turned[:, : self._heads], turned[:, self._heads :], states[:, -keys_of:])
            hidden = torch.addmm(hidden, read.flatten(1), out.t())
            gate, up = linear(rms_norm(hidden, width, between, self._eps), gate_up).chunk(2, dim=-1)
            hidden = torch.addmm(hidden, silu(gate).mul_(up), down.t())
        return linear(rms_norm(hidden, width, self._norm, self._eps), self._head)
