"""Measuring and combining the gradients of two losses, apart from the optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def total_norm(parameters: Iterable[nn.Parameter]) -> float:
    """L2 norm of all gradients together, sharded (FSDP2) or not. Gradients must be reduced already."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        raise ValueError("no parameter has a gradient: it was not reduced yet, or nothing was trained on")
    return whole(nn.utils.get_total_norm(grads)).item()


def whole(value: torch.Tensor) -> torch.Tensor:
    """The tensor over all processes that a shard or partial sum is part of; others as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def take_gradients(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor | None]:
    """Move the gradients out, leaving none behind, as after `zero_grad`."""
    taken = []
    for p in parameters:
        taken.append(p.grad)
        p.grad = None
    return taken


@torch.no_grad()
def add_gradients(
    parameters: Iterable[nn.Parameter], other: list[torch.Tensor | None], *, scale: float, other_scale: float
) -> None:
    """Set every gradient to `scale * own + other_scale * other`, in place; a missing one counts as zero."""
    for p, g in zip(parameters, other, strict=True):
        if p.grad is not None:
            p.grad.mul_(scale)
        if g is None:
            continue
        if p.grad is None:
            p.grad = g.mul_(other_scale)
        else:
            p.grad.add_(g, alpha=other_scale)


@contextmanager
def reduced_now(model: Any, *, later: bool = True) -> Iterator[None]:
    """Reduce gradients over processes in this backward, though DDP or FSDP2 was told to accumulate without reducing.

    Args:
        model: As it was wrapped.
        later: Whether the backwards that follow reduce; FSDP2 does not tell what it was told. DDP goes on as before.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(True)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(later)
        return
    if not hasattr(model, "require_backward_grad_sync"):
        yield
        return
    before, model.require_backward_grad_sync = model.require_backward_grad_sync, True
    try:
        yield
    finally:
        model.require_backward_grad_sync = before
