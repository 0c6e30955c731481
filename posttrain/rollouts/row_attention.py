"""Attention of packed tokens to what their rows and prompts hold.

TorchScript compiles these functions for `fused`, so that they are written in what it knows of Python; in this file it
also looks at the annotations, which therefore are no strings.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

KERNEL: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
"""What SDPA calls on a CPU, and keeps the log-sum-exp of to itself. The operator is torch's own business."""


class Part(NamedTuple):
    """N packed tokens side by side in B blocks of at most K, each block with keys of its own.

    Attributes:
        blocks, most: B and K.
        place_N: Where each token stands in B * K; None: at its own number, for all blocks are full and in order.
        mask: What is added to scores [B, 1, heads of a key * K, T].
    """

    blocks: int
    most: int
    place_N: torch.Tensor | None
    mask: torch.Tensor


def part_of(
    block_N: Sequence[int], seen_N: Sequence[int], blocks: int, longest: int, shared: int, dtype: torch.dtype
) -> Part:
    """The part of tokens each of which sees the first keys of its block.

    Args:
        block_N: The block of each token.
        seen_N: Keys that it sees, at least 1.
        blocks: B; of one without a token only the place is there.
        longest: T.
        shared: Query heads of a key.
        dtype: Of the mask; the kernel takes none but the queries'.
    """
    counts, numbers = [0] * blocks, list[int]()
    for block in block_N:
        numbers.append(counts[block])
        counts[block] += 1
    most = max(counts)
    places = [block * most + number for block, number in zip(block_N, numbers, strict=True)]
    # A place without a token sees one key, for a softmax over nothing is not a number
    visible = [1] * (blocks * most)
    for place, keys in zip(places, seen_N, strict=True):
        visible[place] = keys
    hidden = torch.arange(longest) >= torch.tensor(visible).view(blocks, 1, most, 1)
    mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf).repeat(1, 1, shared, 1)
    in_order = places == list(range(blocks * most))
    return Part(blocks, most, None if in_order else torch.tensor(places), mask)


def write(buffer: torch.Tensor, slot_N: torch.Tensor, states_N: torch.Tensor) -> None:
    """Put keys or values [N, heads, D] into their slots of a buffer [B, capacity, heads, D]."""
    buffer.view(-1, buffer.shape[2], buffer.shape[3]).index_copy_(0, slot_N, states_N)


def attend(
    query_N: torch.Tensor, part: Part, keys: torch.Tensor, values: torch.Tensor, scale: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of packed queries [N, H, D] to keys [B, H / n, T, D]; the result and its log-sum-exp [N, H]."""
    blocks, most, place_N, mask = part
    heads, size = query_N.shape[1], query_N.shape[2]
    if place_N is not None:
        query_N = query_N.new_zeros(blocks * most, heads, size).index_copy_(0, place_N, query_N)
    # The query heads that share a key are read as more queries of it
    groups, shared = keys.shape[1], heads // keys.shape[1]
    side_by_side = query_N.view(blocks, most, groups, shared, size).permute(0, 2, 3, 1, 4).flatten(2, 3)
    out, sums = KERNEL(side_by_side, keys, values, 0.0, False, attn_mask=mask, scale=scale)
    out = out.view(blocks, groups, shared, most, size).permute(0, 3, 1, 2, 4).reshape(blocks * most, heads, size)
    sums = sums.view(blocks, groups, shared, most).permute(0, 3, 1, 2).reshape(blocks * most, heads)
    if place_N is not None:
        out, sums = out.index_select(0, place_N), sums.index_select(0, place_N)
    return out, sums


def attend_to_both(
    query_N: torch.Tensor,
    said: Part,
    said_keys: torch.Tensor,
    said_values: torch.Tensor,
    prompts: Part,
    prompt_keys: torch.Tensor,
    prompt_values: torch.Tensor,
    scale: float | None = None,
) -> torch.Tensor:
    """What queries [N, H, D] read from what their rows have said and from their prompts, as one softmax over both."""
    out, sums = attend(query_N, said, said_keys, said_values, scale)
    read, its_sums = attend(query_N, prompts, prompt_keys, prompt_values, scale)
    return out.lerp(read, torch.sigmoid(its_sums - sums).unsqueeze(-1).to(out.dtype))


def prompt_by_prompt(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: list[tuple[int, int]], scale: float | None
) -> torch.Tensor:
    """Causal attention within each span, which needs no mask; (1, H, N, D) in, (1, N, H, D) out."""
    grouped = query.shape[1] != key.shape[1]
    pieces = [
        scaled_dot_product_attention(
            query[:, :, start:stop],
            key[:, :, start:stop],
            value[:, :, start:stop],
            is_causal=True,
            scale=scale,
            enable_gqa=grouped,
        )
        for start, stop in spans
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2)
