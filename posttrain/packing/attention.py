"""Attention in a packed sequence: each span causally within itself, completions on the prompt of their group as well.

A model is switched to it once and for all (`TREE`, registered with transformers): the layout arrives as the keyword
`tree` with a forward pass, and recomputing under gradient checkpointing finds it again. Without a `tree` the function
is transformers' SDPA.

On a CPU there are no scores of N x N positions, no masks and no copies of a prompt for its rows: a completion's own
part and its prompt's are computed apart, each with its log-sum-exp, and merged by these. The backward pass gives each
part the merged result, from which its gradients come out right, for a part's probabilities are
exp(score - merged log-sum-exp). On other devices SDPA is asked once a group, with the prompt's keys repeated for its
rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from posttrain.models.attention_names import TREE
from posttrain.packing.tree import Run, Tree


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree: Tree | None = None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function as transformers' models call it: heads (1, H, N, D) in, (1, N, H, D) out."""
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
    kind = query.device.type
    if torch.is_autocast_enabled(kind):  # SDPA takes part in autocast; what stands here for it must as well
        dtype = torch.get_autocast_dtype(kind)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    if kind == "cpu" and _forward is not None and _backward is not None:
        out = _Merged.apply(query, key, value, tree, scale)
    else:
        out = masked(query, key, value, tree, scale)
    return out.transpose(1, 2).contiguous(), None


def register() -> None:
    """Tell transformers of the function; masks for passes without a tree are SDPA's."""
    AttentionInterface.register(TREE, attend)
    AttentionMaskInterface.register(TREE, sdpa_mask)


def masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, tree: Tree, scale: float) -> torch.Tensor:
    """The same by SDPA, for devices without the kernels below: one call for the prompts, one for each group's rows.

    Args:
        query: (1, H, N, D).
        key, value: (1, H / n, N, D).

    Returns:
        (1, H, N, D).
    """
    query, key, value = query[0], key[0], value[0]
    grouped, pieces = query.size(0) != key.size(0), []
    for bundle in tree.bundles:
        shape, shared = bundle.places.shape, slice(*bundle.prompt)
        queries, keys, values = (each[:, bundle.places].transpose(0, 1) for each in (query, key, value))
        mask, offset = None, shared.stop - shared.start
        if offset:
            keys, values = (
                torch.cat([whole[:, shared].expand(shape[0], -1, -1, -1), own], dim=2)
                for whole, own in ((key, keys), (value, values))
            )
            mask = query.new_ones(shape[1], offset + shape[1], dtype=torch.bool).tril(offset)
        out = scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=not offset, scale=scale, enable_gqa=grouped
        )
        pieces.append(out.transpose(0, 1).flatten(1, 2)[:, bundle.kept])
    return torch.cat(pieces, dim=1)[None]


class _Merged(torch.autograd.Function):
    """The parts by torch's flash kernel for CPUs, which also returns the log-sum-exp; SDPA keeps that to itself."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, tree: Tree, scale: float) -> torch.Tensor:
        keys, values = _repeated(key, query), _repeated(value, query)
        out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        sums = query.new_empty(query.shape[:-1], dtype=torch.promote_types(query.dtype, torch.float32))
        for run in tree.runs:
            part = _forward(*(_rows(each, run) for each in (query, keys, values)), 0.0, True, scale=scale)
            for whole, found in zip((out, sums), part, strict=True):
                _rows(whole, run).copy_(found)
        for completions, prompt in tree.branches:
            own, shared = slice(*completions), slice(*prompt)
            part, part_sums = _forward(
                query[:, :, own], keys[:, :, shared], values[:, :, shared], 0.0, False, scale=scale
            )
            weight = torch.sigmoid(part_sums - sums[:, :, own])
            out[:, :, own].lerp_(part, weight[..., None].to(out.dtype))
            sums[:, :, own] = torch.logaddexp(sums[:, :, own], part_sums)
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
        for run in ctx.tree.runs:  # these cover everything once
            found = _backward(
                *(_rows(each, run) for each in (grad, query, keys, values, out, sums)), 0.0, True, scale=ctx.scale
            )
            for total, part in zip(totals, found, strict=True):
                _rows(total, run).copy_(part)
        for completions, prompt in ctx.tree.branches:
            own, shared = slice(*completions), slice(*prompt)
            found = _backward(
                grad[:, :, own], query[:, :, own], keys[:, :, shared], values[:, :, shared],
                out[:, :, own], sums[:, :, own], 0.0, False, scale=ctx.scale,
            )  # fmt: skip
            for total, part, place in zip(totals, found, (own, shared, shared), strict=True):
                total[:, :, place] += part
        return totals[0], _folded(totals[1], key), _folded(totals[2], value), None, None


_KERNEL = "_scaled_dot_product_flash_attention_for_cpu"
"""What SDPA calls on a CPU. The operator is torch's own business: where it is gone, `masked` does its work."""

_forward: Any = getattr(torch.ops.aten, _KERNEL, None)
_backward: Any = getattr(torch.ops.aten, f"{_KERNEL}_backward", None)


def _rows(whole: torch.Tensor, run: Run) -> torch.Tensor:
    """A view (rows, H, width, ...) of the spans of a run in (1, H, N, ...)."""
    return whole[0, :, run.start : run.start + run.rows * run.width].unflatten(1, (run.rows, run.width)).transpose(0, 1)


def _repeated(heads: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Key or value heads (1, H / n, N, D), each for its n query heads."""
    times = query.size(1) // heads.size(1)
    return heads if times == 1 else heads.repeat_interleave(times, dim=1)


def _folded(gradient: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
    """The gradient of repeated heads, summed over the repetitions."""
    return gradient.unflatten(1, (heads.size(1), -1)).sum(2) if gradient.size(1) != heads.size(1) else gradient
