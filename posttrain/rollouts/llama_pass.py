"""A Llama's forward pass over packed tokens, in few, large calls, and all of them as one call of TorchScript.

transformers' pass makes some sixty calls a layer; at a million parameters they take longer than the arithmetic. Here
query, key and value are one product, gate and up another, and a layer makes about twenty beside its attention.
TorchScript makes them without Python between them, and without the interpreter's lock, so that threads with a pass each
do not wait for one another. The kernels are the same as where Python makes the calls, and so are the bits; those of
transformers' own pass are others at the end.

Functions are written in what TorchScript knows of Python, annotations included, which therefore are no strings.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad, rms_norm, silu

from posttrain.models.products import product, product_added
from posttrain.rollouts.row_attention import Part, attend_to_both, prompt_by_prompt, write

__all__ = ["Buffers", "Layer", "Weights", "in_one_call", "logits"]


class Layer(NamedTuple):
    """Weights of a decoder layer, in the order of their use; those of products as `products.laid_out` has them."""

    before: torch.Tensor
    qkv: list[torch.Tensor]
    out: list[torch.Tensor]
    between: torch.Tensor
    gate_up: list[torch.Tensor]
    down: list[torch.Tensor]


class Weights(NamedTuple):
    """A model's.

    Attributes:
        embedding: [V, width].
        layers: Of each its weights.
        norm: The last one's weight.
        head: [V, width], as `products.laid_out` has it.
        inverse: Frequencies of the rotary embedding [D / 2].
        eps: Of the norms.
        heads, size: H and D.
        onednn: What multiplies.
    """

    embedding: torch.Tensor
    layers: list[Layer]
    norm: torch.Tensor
    head: list[torch.Tensor]
    inverse: torch.Tensor
    eps: float
    heads: int
    size: int
    onednn: bool


class Buffers(NamedTuple):
    """What `RowBuffers` of all layers hold; `said` by row, `prompt` by prompt."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    prompt_keys: list[torch.Tensor]
    prompt_values: list[torch.Tensor]


def logits(
    weights: Weights,
    buffers: Buffers,
    ids_N: torch.Tensor,
    positions_N: torch.Tensor,
    slot_N: torch.Tensor,
    longest: int,
    parts: tuple[Part, Part] | None,
    spans: list[tuple[int, int]],
    wanted: torch.Tensor,
    count: int,
) -> torch.Tensor:
    """Logits [N, V] after tokens of a packed sequence, whose keys and values are written into the buffers.

    Args:
        weights: The model's.
        buffers: Read and written.
        ids_N: Token ids, padded to a number of rows that products like; so are `positions_N` and `wanted`.
        positions_N: Of each token in its row.
        slot_N: Where the keys of the tokens go, without those that pad.
        longest: Keys of a row at most.
        parts: As `Layout` has them.
        spans: Of prompts, where `parts` are None.
        wanted: Numbers of the tokens that logits are given for.
        count: How many of these do not pad, N.
    """
    tokens, size, heads, onednn = slot_N.shape[0], weights.size, weights.heads, weights.onednn
    more, half, width = ids_N.shape[0] - tokens, size // 2, [weights.embedding.shape[1]]
    angles = positions_N.unsqueeze(1).float() * weights.inverse
    angles = torch.cat([angles, angles], dim=-1).unsqueeze(1)
    cos, sin = angles.cos(), angles.sin()
    hidden = weights.embedding.index_select(0, ids_N)
    for number, layer in enumerate(weights.layers):
        states = product(rms_norm(hidden, width, layer.before, weights.eps), layer.qkv, onednn)
        states = states.unflatten(-1, [-1, size])
        keys_of = (states.shape[1] - heads) // 2
        turned = states[:, : heads + keys_of]
        swapped = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
        turned = (turned * cos).addcmul_(swapped, sin)
        query, key, value = turned[:tokens, :heads], turned[:tokens, heads:], states[:tokens, heads + keys_of :]
        keys, values = buffers.keys[number], buffers.values[number]
        write(keys, slot_N, key)
        write(values, slot_N, value)
        if parts is None:
            query, key, value = [each.unsqueeze(0).transpose(1, 2) for each in (query, key, value)]
            read = prompt_by_prompt(query, key, value, spans, None)[0]
        else:
            said, prompts = parts
            read = attend_to_both(
                query.contiguous(),
                said,
                keys[: said.blocks, :longest].transpose(1, 2),
                values[: said.blocks, :longest].transpose(1, 2),
                prompts,
                buffers.prompt_keys[number],
                buffers.prompt_values[number],
            )
        hidden = product_added(hidden, pad(read.flatten(1), [0, 0, 0, more]), layer.out, onednn)
        gate_up = product(rms_norm(hidden, width, layer.between, weights.eps), layer.gate_up, onednn)
        gate, up = gate_up.chunk(2, dim=-1)
        hidden = product_added(hidden, silu(gate).mul_(up), layer.down, onednn)
    hidden = rms_norm(hidden.index_select(0, wanted), width, weights.norm, weights.eps)
    return product(hidden, weights.head, onednn)[:count]


@functools.cache
def in_one_call() -> Callable[..., torch.Tensor]:
    """`logits`, compiled where torch can: once a process, in some 50 milliseconds."""
    script: Any = getattr(torch.jit, "script", None)
    if script is None:
        return logits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit goes, some day
        try:
            compiled = script(logits)
        except (RuntimeError, OSError):  # an operator that this torch lacks, or no source to compile
            return logits

    def call(*arguments: Any) -> torch.Tensor:
        with torch.jit.optimized_execution(False):  # as it is written: nothing fused, whose bits would be others
            return compiled(*arguments)

    return call
