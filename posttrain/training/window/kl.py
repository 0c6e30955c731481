"""The KL to the policy that training began with, on a sample of the rollouts and whatever `beta` is."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from posttrain.models.snapshot import PolicySnapshot, fingerprint, has_fresh_adapter
from posttrain.processes.ranks import Ranks
from posttrain.training.config import HybridConfig
from posttrain.training.losses import kl_k3
from posttrain.training.window.cut import cut_of
from posttrain.training.window.window import sampled_rows, sequences

Score = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""Token ids (B, P + C), their mask and C to the log-probabilities (B, C) under the policy as it is."""

NAME = "snapshot_logps"
"""Of the column that `score` makes, in a trainer's rollouts."""


class DistanceFromStart:
    """Scores a sample of rollouts with the starting policy, and sums the KL to it.

    Args:
        model: The policy as it was handed in, not yet sharded.
        args: The trainer's settings.
        ranks: The processes of the run.
        sharded: Whether the policy will be sharded. Its copy is then made by `take`.

    Attributes:
        fingerprint: Of the policy that training begins with.
    """

    def __init__(self, model: nn.Module, args: HybridConfig, ranks: Ranks, *, sharded: bool):
        self._args, self._ranks, self._sharded = args, ranks, sharded
        # The main process may be the only one that has loaded the weights of a model to be sharded
        self._fresh, self.fingerprint = ranks.decided(lambda: (has_fresh_adapter(model), fingerprint(model)))
        self._snapshot: PolicySnapshot | None = None
        if not sharded:
            self.take(model)

    def take(self, model: nn.Module) -> None:
        """Copy the starting policy, the first time; before anything is loaded on top of it."""
        if self._snapshot is None:
            self._snapshot = PolicySnapshot(model, offload=self._args.kl_offload, fresh_adapter=self._fresh)

    def swapped_into(self, policy: nn.Module) -> AbstractContextManager[None]:
        """The policy scores as it began, in eval mode without gradients; see `PolicySnapshot.swapped_into`."""
        assert self._snapshot is not None
        return self._snapshot.swapped_into(policy)

    def score(self, policy: nn.Module, rollouts: dict[str, Any], score: Score) -> torch.Tensor:
        """Log-probabilities (B, C) under the starting policy; NaN in rows outside the sample.

        Args:
            policy: Without what DDP puts around it.
            rollouts: This process's share of a window, as TRL makes it.
            score: With the policy's present values.
        """
        rows = self._rows(len(rollouts["completion_ids"]))
        ids, mask, width = sequences(rollouts)
        logps = torch.full(rollouts["completion_ids"].shape, math.nan, device=ids.device)
        # Each process of a sharded policy must make the same number of passes: one that has fewer rows repeats some
        passed = [*rows, *[0] * (self._most_rows(len(ids)) - len(rows))] if self._sharded else rows
        if passed:
            with self.swapped_into(policy):
                scored = score(ids[passed], mask[passed], width)
            logps = logps.to(scored.dtype)
            logps[rows] = scored[: len(rows)]
        return logps

    def _rows(self, count: int, rank: int | None = None) -> list[int]:
        """The rows in a process's share of `count` that belong to the sample; which ones depends on the window only."""
        first = count * (self._ranks.number if rank is None else rank)
        cut = cut_of(self._args)
        sample = sampled_rows(cut.rows, steps=cut.steps, portion=self._args.kl_sample)
        return [row - first for row in sample if first <= row < first + count]

    def _most_rows(self, count: int) -> int:
        return max(len(self._rows(count, rank)) for rank in range(self._ranks.count))


def kl_sum(inputs: dict[str, Any], policy_logps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The sum of the KL over the sampled tokens of a micro-batch, and how many they are; `None` without a sample.

    Args:
        inputs: The micro-batch, with the column `NAME` if it is measured.
        policy_logps: (B, C) of the policy as it is.
    """
    reference = inputs.get(NAME)
    if reference is None:
        return None
    measured = inputs["completion_mask"].bool() & ~reference.isnan()
    kl = kl_k3(reference.masked_fill(~measured, 0.0), policy_logps.masked_fill(~measured, 0.0))
    return kl.sum(), measured.sum()
