"""Attention in a packed sequence: each span causally within itself, completions on the prompt of their group as well.

A model is switched to it once and for all (`TREE`, registered with transformers): the layout arrives as the keyword
`tree` with a forward pass, and recomputing under gradient checkpointing finds it again. Without a `tree` the function
is transformers' SDPA, or under `TREE_EAGER` the model's own eager attention.

A layer that sees a window sees that many tokens of a row, itself included, whose prompt comes right before its
completion: a completion's first tokens see the end of the prompt, the later ones no more of it.

On a CPU there are no scores of N x N positions, no masks and no copies of a prompt for its rows: a completion's own
part and its prompt's are computed apart, each with its log-sum-exp, and merged by these. The backward pass gives each
part the merged result, from which its gradients come out right, for a part's probabilities are
exp(score - merged log-sum-exp). On other devices SDPA is asked once a group, with the prompt's keys repeated for its
rows; so are rows that a window cuts. What only eager attention computes, a soft cap of the scores and sinks beside them
(Gemma 2, arXiv 2408.00118; gpt-oss, arXiv 2508.10925), is written out, scores included, as it is in padded rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from posttrain.models.attention_names import EAGER, TREE, TREE_EAGER
from posttrain.packing.tree import Share, Tree
from posttrain.processes.side_by_side import side_by_side

SHARED = 1 << 17
"""Numbers in the queries from which on threads share a sequence: to begin one takes a tenth of a millisecond."""

MOST_SHARES = 4
"""Of more threads torch makes more by sharing each call among them."""


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree: Tree | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function as transformers' models call it: heads (1, H, N, D) in, (1, N, H, D) out.

    As in transformers' SDPA, a `softcap` and sinks are left out.
    """
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
    kind = query.device.type
    if torch.is_autocast_enabled(kind):  # SDPA takes part in autocast; what stands here for it must as well
        dtype = torch.get_autocast_dtype(kind)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    window = sliding_window if sliding_window and sliding_window < tree.longest else None
    if kind == "cpu" and window is None and _forward is not None and _backward is not None:
        out = _Merged.apply(query, key, value, tree, scale)
    else:
        out = masked(query, key, value, tree, scale, window)
    return out.transpose(1, 2).contiguous(), None


def attend_eagerly(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree: Tree | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **more: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The same for models whose eager attention caps its scores (`softcap`) or has sinks (`s_aux`, (H,))."""
    if tree is None:
        own = _eager(module)
        kept = {"softcap": softcap, "s_aux": s_aux, "sliding_window": sliding_window}
        given = {name: value for name, value in kept.items() if value is not None}
        return own(module, query, key, value, attention_mask, scaling=scaling, **given, **more)
    scale = query.size(-1) ** -0.5 if scaling is None else scaling

    def written_out(queries: Any, keys: Any, values: Any, mask: Any) -> torch.Tensor:
        times = queries.size(1) // keys.size(1)
        keys, values = keys.repeat_interleave(times, dim=1), values.repeat_interleave(times, dim=1)
        scores = queries @ keys.transpose(2, 3) * scale
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        if s_aux is not None:
            sinks = s_aux.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
            scores = torch.cat([scores, sinks], dim=-1)
        shares = scores.softmax(-1, dtype=torch.float32)[..., : keys.size(2)]
        return shares.to(values.dtype) @ values

    out = _by_bundle(query, key, value, tree, sliding_window, written_out)
    return out.transpose(1, 2).contiguous(), None


def register() -> None:
    """Tell transformers of the functions; masks for passes without a tree are SDPA's and eager attention's."""
    AttentionInterface.register(TREE, attend)
    AttentionMaskInterface.register(TREE, sdpa_mask)
    AttentionInterface.register(TREE_EAGER, attend_eagerly)
    AttentionMaskInterface.register(TREE_EAGER, eager_mask)


def stand_in(attention: str) -> str:
    """The name of what takes the place of an attention, both as `config._attn_implementation` has it."""
    return TREE_EAGER if attention in EAGER else TREE


def masked(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, tree: Tree, scale: float, window: int | None = None
) -> torch.Tensor:
    """The same by SDPA, for windows and devices without the kernels below: one call for prompts, one for each group.

    Args:
        query: (1, H, N, D).
        key, value: (1, H / n, N, D).
        window: Tokens of its row that a token sees, itself included; `None`: all before it.

    Returns:
        (1, H, N, D).
    """
    grouped = query.size(1) != key.size(1)

    def by_sdpa(queries: Any, keys: Any, values: Any, mask: Any) -> torch.Tensor:
        causal = keys.size(2) == queries.size(2) and (window is None or window >= queries.size(2))
        return scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=None if causal else mask,
            is_causal=causal,
            scale=scale,
            enable_gqa=grouped,
        )

    return _by_bundle(query, key, value, tree, window, by_sdpa)


def _by_bundle(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tree: Tree,
    window: int | None,
    attention: Callable[[Any, Any, Any, Any], torch.Tensor],
) -> torch.Tensor:
    """An attention over (rows, H, ..., D) and a mask, for each bundle of a tree, with what of its prompt is in view."""
    pieces = []
    for block, (start, stop) in tree.bundles:
        shared = slice(start if window is None else max(start, stop - window + 1), stop)
        queries, keys, values = map(block.take, (query, key, value))
        offset = shared.stop - shared.start
        if offset:
            keys, values = (
                torch.cat([whole[:, :, shared].expand(block.rows, -1, -1, -1), own], dim=2)
                for whole, own in ((key, keys), (value, values))
            )
        mask = query.new_ones(block.width, offset + block.width, dtype=torch.bool).tril(offset)
        if window is not None:
            mask = mask.triu(offset - window + 1)
        pieces.append(block.of_own(attention(queries, keys, values, mask)))
    return torch.cat(pieces).transpose(0, 1)[None]


def _eager(module: torch.nn.Module) -> Any:
    """The eager attention of the file that an attention module's class is from."""
    return inspect.unwrap(type(module).forward).__globals__["eager_attention_forward"]


class _Merged(torch.autograd.Function):
    """The parts by torch's flash kernel for CPUs, which also returns the log-sum-exp; SDPA keeps that to itself."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, tree: Tree, scale: float) -> torch.Tensor:
        keys, values = _repeated(key, query), _repeated(value, query)
        out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        sums = query.new_empty(query.shape[:-1], dtype=torch.promote_types(query.dtype, torch.float32))

        def read(share: Share) -> None:
            for block in share.blocks:
                part = _forward(*map(block.take, (query, keys, values)), 0.0, True, scale=scale)
                for whole, found in zip((out, sums), part, strict=True):
                    block.put(whole, found)
            for completions, prompt in share.branches:
                own, shared = slice(*completions), slice(*prompt)
                part, part_sums = _forward(
                    query[:, :, own], keys[:, :, shared], values[:, :, shared], 0.0, False, scale=scale
                )
                weight = torch.sigmoid(part_sums - sums[:, :, own])
                out[:, :, own].lerp_(part, weight[..., None].to(out.dtype))
                sums[:, :, own] = torch.logaddexp(sums[:, :, own], part_sums)

        _by_share(tree, query, read)
        # As saved tensors, not attributes: gradient checkpointing lets go of those alone
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.tree, ctx.scale = tree, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        query, key, value, out, sums = ctx.saved_tensors
        keys, values, grad = _repeated(key, query), _repeated(value, query), grads[0]
        grad = grad if grad.stride(-1) == 1 else grad.contiguous()  # the kernel reads whole heads
        totals = tuple(torch.empty_like(each) for each in (query, keys, values))

        def read(share: Share) -> None:
            for block in share.blocks:  # these cover everything once
                kept = map(block.take, (query, keys, values, out, sums))
                found = _backward(block.take(grad, zero_padded=True), *kept, 0.0, True, scale=ctx.scale)
                for total, part in zip(totals, found, strict=True):
                    block.put(total, part)
            for completions, prompt in share.branches:
                own, shared = slice(*completions), slice(*prompt)
                found = _backward(
                    grad[:, :, own], query[:, :, own], keys[:, :, shared], values[:, :, shared],
                    out[:, :, own], sums[:, :, own], 0.0, False, scale=ctx.scale,
                )  # fmt: skip
                for total, part, place in zip(totals, found, (own, shared, shared), strict=True):
                    total[:, :, place] += part

        _by_share(ctx.tree, query, read)
        return totals[0], _folded(totals[1], key), _folded(totals[2], value), None, None


def _by_share(tree: Tree, query: torch.Tensor, read: Callable[[Share], None]) -> None:
    """Call it for all shares, in threads side by side where they are long enough for that."""
    threads = torch.get_num_threads()
    shares = tree.shares(threads if threads <= MOST_SHARES and query.numel() >= SHARED else 1)
    side_by_side([partial(torch.no_grad()(read), share) for share in shares])


_KERNEL = "_scaled_dot_product_flash_attention_for_cpu"
"""What SDPA calls on a CPU. The operator is torch's own business: where it is gone, `masked` does its work."""

_forward: Any = getattr(torch.ops.aten, _KERNEL, None)
_backward: Any = getattr(torch.ops.aten, f"{_KERNEL}_backward", None)


def _repeated(heads: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Key or value heads (1, H / n, N, D), each for its n query heads."""
    times = query.size(1) // heads.size(1)
    return heads if times == 1 else heads.repeat_interleave(times, dim=1)


def _folded(gradient: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
    """The gradient of repeated heads, summed over the repetitions."""
    return gradient.unflatten(1, (heads.size(1), -1)).sum(2) if gradient.size(1) != heads.size(1) else gradient
