"""Which groups have a spread in their rewards, and which completions a reward, once some have none at all."""

from __future__ import annotations

import torch

_SAME = 1e-6  # rewards that differ by less are equal


def unscored(rewards: torch.Tensor) -> torch.Tensor:
    """(B,) the completions that no reward scored, of the rewards (B, F), NaN where one does not apply."""
    return rewards.isnan().all(dim=1)


def without_spread(rewards: torch.Tensor, weights: torch.Tensor, *, group: int, summed: bool = True) -> torch.Tensor:
    """(B / G,) the groups that teach nothing: all that was scored in one scored the same, or nothing was scored.

    TRL's `frac_reward_zero_std` takes a group with fewer than two scored completions for one with a spread, and with
    `scale_rewards="batch"` asks for the spread of the whole batch.

    Args:
        rewards: (B, F), NaN where a reward does not apply; the rows of a group after each other.
        weights: (F,) of the rewards.
        group: Completions per prompt, G.
        summed: Whether the advantage is of the weighted sum; else each reward has a spread of its own.
    """
    if summed:
        totals = (rewards * weights).nansum(dim=1)
        totals[unscored(rewards)] = torch.nan
        values = totals.view(-1, group, 1)
    else:
        values = rewards[:, weights != 0].view(len(rewards) // group, group, -1)
    missing = values.isnan()
    high, low = (values.masked_fill(missing, sign * torch.inf) for sign in (-1, 1))
    spread = high.amax(dim=1) - low.amin(dim=1)  # -inf where nothing was scored
    return (spread <= _SAME).all(dim=1)
