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

ROWS = 128
"""Tokens of a pass that packed weights are laid out for; any number is computed."""

COPIED = 16_000_000
"""Parameters up to which the weights are copied once a call; of larger models the copy would take a while."""


PLAIN = {
    torch.nn.Embedding, torch.nn.Linear, torch.nn.ModuleList, torch.nn.SiLU, SiLUActivation, llama.LlamaModel,
    llama.LlamaAttention, llama.LlamaDecoderLayer, llama.LlamaMLP, llama.LlamaRMSNorm, llama.LlamaRotaryEmbedding,
}  # fmt: skip
"""What the fused pass stands in for. An adapter's or a patched module would be passed over without a word."""


def fused(model: Any) -> Fused | None:
    """The fused pass of a model; None where it is no Llama all of whose parts are transformers' own, or is not in
    float32 on a CPU.
    """
    if type(model) is not LlamaForCausalLM or model.device.type != "cpu" or model.dtype != torch.float32:
        return None
    if torch.is_autocast_enabled("cpu"):
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
    ):
        return None
    return Fused(model)


def _is_hooked(module: Any) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
PACK: Any = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
"""What torch's compiler has a CPU multiply with. The operators are torch's own business."""


class Product:
    """x W' for float32 rows, by oneDNN where torch has it.

    `linear` goes to MKL, which on processors other than Intel's does without AVX-512: less than half of oneDNN's speed.
    Its result for a row also changes with the number of rows; oneDNN's was the same for every number tried.

    Args:
        weights: W, [out, in], in parts of its rows.
        copied: Lay them out as one in oneDNN's own order, which is faster and takes as much memory again.
    """

    def __init__(self, *weights: torch.Tensor, copied: bool):
        self._onednn = ONEDNN is not None and PACK is not None and torch.backends.mkldnn.enabled
        self._weights = [each.detach() for each in weights]
        if copied:
            whole = torch.cat(self._weights) if len(weights) > 1 else self._weights[0]
            self._weights = [PACK(whole, ROWS) if self._onednn else whole]

    def __call__(self, x_N: torch.Tensor) -> torch.Tensor:
        """[N, in] to [N, out]."""
        if self._onednn:
            parts = [ONEDNN(x_N, each, None, "none", [], "") for each in self._weights]
        else:
            parts = [linear(x_N, each) for each in self._weights]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def added_to(self, y_N: torch.Tensor, x_N: torch.Tensor) -> torch.Tensor:
        """The product plus y [N, out]; of one part."""
        if self._onednn:
            return ONEDNN.binary(x_N, y_N, self._weights[0], None, "add")
        return torch.addmm(y_N, x_N, self._weights[0].t())


class Fused:
    """The weights of a model as they are now, laid out for `logits`.

    Args:
        model: One that `fused` takes.
    """

    def __init__(self, model: Any):
        inner, config = model.model, model.config
        copied = sum(each.numel() for each in inner.layers.parameters()) <= COPIED

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
            read = attend(number, turned[:, : self._heads], turned[:, self._heads :], states[:, -keys_of:])
            hidden = out.added_to(hidden, read.flatten(1))
            gate, up = gate_up(rms_norm(hidden, width, between, self._eps)).chunk(2, dim=-1)
            hidden = down.added_to(hidden, silu(gate).mul_(up))
        if wanted is not None:
            hidden = hidden.index_select(0, wanted)
        return self._head(rms_norm(hidden, width, self._norm, self._eps))
