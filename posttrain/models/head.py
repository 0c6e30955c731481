"""Log-probabilities behind a model's backbone on a CPU, in place of TRL's fused head where that has no kernel.

TRL's head computes [N, V] logits piece by piece, throws them away and computes them again in the backward pass, on a
CPU in torch's separate operations over pieces of half a gigabyte. Here pieces stay in the processor's caches, products
are oneDNN's, and a small batch's probabilities are kept for the backward pass. The numbers are TRL's but for the last
bits; what is not plain float32 on a CPU goes to TRL's. Only packed passes come here (`expected`): TRL's own trainers in
the same process keep their head.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from posttrain.models import products
from posttrain.models.products import multiplied

REPLACED = "_ChunkedLogProbFunction"
"""What TRL's head calls, in `trl.trainer.utils`; its own business. Without it everything is as it was."""

OUTPUTS = {"log_probs", "entropy", "is_top1"}
"""What is computed here; TRL's head has more."""

TILE = 2**21
"""Logits of a piece, 8 MiB."""

KEPT = 2**23
"""Probabilities up to which those of a pass are kept for its backward pass, 32 MiB."""

_passes = threading.local()


def install() -> None:
    """Let TRL's head come here for the passes that are `expected`. Doing so again changes nothing."""
    from trl.trainer import utils

    theirs = getattr(utils, REPLACED, None)
    if theirs is not None and not isinstance(theirs, _Head):
        setattr(utils, REPLACED, _Head(theirs))


def expected() -> None:
    """The next head in this thread is that of a packed pass."""
    _passes.expected = True


class _Head:
    """Stands where TRL looks for its autograd function."""

    def __init__(self, theirs: Any):
        self._theirs = theirs

    def apply(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        temperature: float,
        chunk_size: int,
        softcap: float | None,
        scale: float,
        outputs: tuple[str, ...],
        *more: Any,
    ) -> tuple[torch.Tensor | None, ...]:
        packed, _passes.expected = getattr(_passes, "expected", False), False
        plain = bias is None and softcap is None and not more and set(outputs) <= OUTPUTS
        if not (packed and plain and products.fits(hidden, weight)):
            return self._theirs.apply(
                hidden, weight, bias, targets, temperature, chunk_size, softcap, scale, outputs, *more
            )
        scores, entropies, top1 = LogProbs.apply(
            hidden, weight, targets, scale / temperature, "entropy" in outputs, "is_top1" in outputs
        )
        return scores, entropies, None, None, top1


class LogProbs(torch.autograd.Function):
    """log softmax(s h W')[target] of rows h [N, D] and a head W [V, D], and the entropies of these distributions."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        scale: float,
        entropy: bool,
        top1: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Log-probabilities [N] in nats, entropies [N] or None, and whether targets are the likeliest token or None."""
        ctx.set_materialize_grads(False)  # an entropy that is only shown has no gradient
        scores, sums = hidden.new_empty(len(hidden)), hidden.new_empty(len(hidden))
        entropies = hidden.new_empty(len(hidden)) if entropy else None
        is_top1 = torch.empty_like(targets, dtype=torch.bool) if top1 else None
        keeps = any(ctx.needs_input_grad) and len(hidden) * len(weight) <= KEPT
        kept = []
        for rows in _pieces(hidden, weight):
            logits = _logits(hidden[rows], weight, scale)
            chosen = logits.gather(1, targets[rows, None])[:, 0]
            most = logits.amax(1, keepdim=True)
            if is_top1 is not None:
                is_top1[rows] = logits.argmax(1) == targets[rows]
            p = (logits - most if entropy else logits.sub_(most)).exp_()
            total = p.sum(1)
            sums[rows] = most[:, 0] + total.log()
            scores[rows] = chosen - sums[rows]
            if entropies is not None:  # in TRL's order: bands cut between entropies that are nearly equal
                entropies[rows] = sums[rows] - logits.mul_(p).sum(1) / total
            if keeps:
                kept.append(p.div_(total[:, None]))
        ctx.save_for_backward(hidden, weight, targets, sums, entropies, *kept)
        ctx.scale = scale
        if is_top1 is not None:
            ctx.mark_non_differentiable(is_top1)
        return scores, entropies, is_top1

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_scores: torch.Tensor | None, of_entropies: torch.Tensor | None, _: Any
    ) -> tuple[torch.Tensor | None, ...]:
        """d log p(target) / d z = 1[target] - p, and d H / d z = -p (log p + H), z being the scaled logits."""
        hidden, weight, targets, sums, entropies, *kept = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        # Turned, for oneDNN copies the first factor where that is: here the hidden states, and not the logits
        of_weight = weight.new_zeros(weight.t().shape) if ctx.needs_input_grad[1] else None
        of_scores = ctx.scale * (torch.zeros_like(sums) if of_scores is None else of_scores)
        for number, rows in enumerate(_pieces(hidden, weight)):
            p = kept[number] if kept else _logits(hidden[rows], weight, ctx.scale).sub_(sums[rows, None]).exp_()
            of_logits = p * -of_scores[rows, None]
            of_logits.scatter_add_(1, targets[rows, None], of_scores[rows, None])
            if of_entropies is not None:
                surprise = torch.special.xlogy(p, p).addcmul_(p, entropies[rows, None])
                of_logits.addcmul_(surprise, of_entropies[rows, None], value=-ctx.scale)
            if of_hidden is not None:
                of_hidden[rows] = multiplied(of_logits, weight.t())
            if of_weight is not None:
                of_weight += multiplied(hidden[rows].t(), of_logits.t())
        return of_hidden, None if of_weight is None else of_weight.t(), None, None, None, None


def _pieces(hidden: torch.Tensor, weight: torch.Tensor) -> Iterator[slice]:
    size = min(1024, max(128, TILE // len(weight)))
    for start in range(0, len(hidden), size):
        yield slice(start, min(start + size, len(hidden)))


def _logits(hidden: torch.Tensor, weight: torch.Tensor, scale: float) -> torch.Tensor:
    logits = multiplied(hidden, weight)
    return logits if scale == 1.0 else logits.mul_(scale)
