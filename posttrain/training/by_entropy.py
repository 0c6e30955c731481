"""Rows that are weighed by how sure the policy is of them: the mean entropy of their tokens, without gradient.

Shapes: B rows, C columns of a completion.
"""

from __future__ import annotations

import torch

from posttrain.methods.base import Method
from posttrain.training.ledger import Ledger
from posttrain.training.losses import row_means
from posttrain.training.window.window import Rollouts


def weigh_rollouts(method: Method, rollouts: Rollouts, entropies: torch.Tensor, ledger: Ledger) -> None:
    """Weigh the advantages of a micro-batch's rows, and note the mean of those above 0.

    Args:
        method: That weighs them.
        rollouts: A micro-batch; its `advantages` become (B, 1).
        entropies: (B, C) in nats, detached.
        ledger: Of the step.
    """
    before = rollouts["advantages"].reshape(len(entropies), -1)[:, :1]
    means = row_means(entropies, rollouts["completion_mask"])
    rollouts["advantages"] = method.advantages_by_entropy(before, means)
    right = before > 0
    ledger.add("right_weight", (rollouts["advantages"] * right).sum(), right.sum())


def weighed_nll(
    method: Method, rollouts: Rollouts, logps: torch.Tensor, entropies: torch.Tensor, ledger: Ledger
) -> torch.Tensor:
    """(B, C) the NLL of demonstrations' tokens times their rows' weights, whose mean is noted.

    Args:
        method: That weighs them.
        rollouts: A micro-batch, with `nll`.
        logps: (B, C), with a gradient.
        entropies: (B, C) in nats, detached.
        ledger: Of the step.
    """
    mask = rollouts["demonstrated"] * rollouts["completion_mask"] * (rollouts["nll"] != 0)[:, None]
    weights = rollouts["nll"][:, None] * method.nll_weights(row_means(entropies, mask))
    rows = mask.any(dim=1, keepdim=True)
    ledger.add("nll_weight", (weights * rows).sum(), rows.sum())
    return -weights * logps * mask
