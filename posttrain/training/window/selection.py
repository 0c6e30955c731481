"""GRPO on the tokens at which a completion might have gone another way: those with the highest entropies of it.

Of a completion's n tokens the ceil(share * n) with the highest entropies are selected, the earlier ones where entropies
are equal: the fork tokens of arXiv 2506.01939, selected response by response as SPINE does (arXiv 2511.17938). All
others have the advantage 0 and, with `kl_too`, no KL penalty; what a loss is divided by stays as it is, the number of
all tokens. TRL's `top_entropy_quantile` takes the quantile over all completions of a micro-batch and its processes, so
that what is trained on depends on how a step is cut, and leaves the KL on every token; here each completion has its own
and the gradient is the same in any micro-batches, packed or padded, on one process or several.

SPINE's band keeps the entropies H of the selected tokens between two quantiles of them, held fixed:
coef * (max(0, H - high) + max(0, low - H)), a loss beside GRPO's that is divided as GRPO's is. It acts on all
completions, whatever their advantage. The paper's coefficient is not known here, so that there is no default.

Entropies are those of the pass that is trained on, at the sampling temperature: where a window is trained on several
times the selection follows the policy. Shapes: B rows, C columns of a completion.
"""

from __future__ import annotations

import math

import torch

from posttrain.training.ledger import Ledger
from posttrain.training.losses import per_rollout
from posttrain.training.selection import Band, Selection
from posttrain.training.window.window import Rollouts, loss_mask

REFERENCE = "ref_per_token_logps"


def top_entropy(entropies: torch.Tensor, mask: torch.Tensor, share: float) -> torch.Tensor:
    """(B, C) whether a token is among the ceil(share * n) of its row's n with the highest entropies.

    Args:
        entropies: (B, C) in nats.
        mask: (B, C), 1 on tokens that count.
        share: Above 0 and below 1.
    """
    known = entropies.detach().masked_fill(~mask.bool(), -math.inf)
    order = known.sort(dim=1, descending=True, stable=True).indices
    place = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.size(1), device=order.device).expand_as(order)
    )
    count = mask.bool().sum(dim=1, keepdim=True)
    wanted = (count.double() * share - 1e-9).ceil()  # 0.2 of 15 is 3, not the 4 that binary fractions make of it
    return (place < wanted) & mask.bool()


def quantiles(values: torch.Tensor, mask: torch.Tensor, share: float) -> torch.Tensor:
    """(B, 1) of each row's values that are masked 1, linear between neighbours as `torch.quantile`; 0 without any."""
    sorted_values = values.masked_fill(~mask, math.inf).sort(dim=1).values
    # In float64: bfloat16, which values may be of, has no place behind 256 but every second one
    place = share * (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0).double()
    below, above = (sorted_values.gather(1, at.long()) for at in (place.floor(), place.ceil()))
    between = torch.lerp(below, above, (place - place.floor()).to(values.dtype))
    return torch.where(mask.any(dim=1, keepdim=True), between, torch.zeros_like(between))


def outside_band(entropies: torch.Tensor, selected: torch.Tensor, band: Band) -> torch.Tensor:
    """(B, C) how far a selected token's entropy, in nats, is outside its row's band; 0 elsewhere. Differentiable."""
    fixed = entropies.detach()
    low, high = quantiles(fixed, selected, band.low), quantiles(fixed, selected, band.high)
    return (torch.relu(entropies - high) + torch.relu(low - entropies)) * selected


def select(
    selection: Selection, rollouts: Rollouts, logps: torch.Tensor, entropies: torch.Tensor, needed: torch.Tensor | None,
    ledger: Ledger,
) -> torch.Tensor:  # fmt: skip
    """Give the advantages and the KL of a micro-batch to its selected tokens, and note their share and entropy.

    Args:
        selection: What to select.
        rollouts: The micro-batch; its `advantages` become (B, C).
        logps, entropies: (B, C) of the pass that is trained on.
        needed: (B,) rows that are to be noted; `None` is all.
        ledger: Of the step.

    Returns:
        (B, C) whether a token is selected.
    """
    mask = loss_mask(rollouts)
    selected = top_entropy(entropies, mask, selection.top_entropy)
    rollouts["advantages"] = rollouts["advantages"].reshape(len(selected), -1) * selected
    if selection.kl_too and rollouts.get(REFERENCE) is not None:
        # Where the reference is the policy itself, the KL and its gradient are 0
        rollouts[REFERENCE] = torch.where(selected, rollouts[REFERENCE], logps.detach())
    noted = selected if needed is None else selected * needed[:, None]
    of = mask if needed is None else mask * needed[:, None]
    ledger.add("selected_share", noted.sum(), of.sum())
    ledger.add("selected_entropy", (entropies.detach() * noted).sum(), noted.sum())
    return selected


def band_loss(
    band: Band,
    entropies: torch.Tensor,
    selected: torch.Tensor,
    rollouts: Rollouts,
    *,
    loss_type: str,
    rows: int,
    longest: int,
    tokens: torch.Tensor,
    accumulation: int,
) -> torch.Tensor:
    """The band's part of a micro-batch's loss, divided as GRPO's is.

    Args:
        band: The quantiles and the coefficient.
        entropies: (B, C) in nats, with a gradient.
        selected: (B, C) whether a token is selected.
        rollouts: The micro-batch.
        loss_type, rows, longest, tokens: As for `losses.per_rollout`.
        accumulation: Micro-batches of an optimizer step.
    """
    losses = outside_band(entropies, selected, band)
    mask = loss_mask(rollouts)
    loss = per_rollout(losses, mask, loss_type=loss_type, rows=rows, longest=longest, tokens=tokens)
    return band.coef * loss / accumulation
