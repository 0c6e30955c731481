"""How far the policy's log-probabilities are from those that an engine gave, as TRL logs it, read once a step."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator


class SamplingDrift:
    """Sums over the sampled tokens of a step's rows, kept on the device."""

    def __init__(self) -> None:
        self._seen: list[torch.Tensor] = []

    def add(self, logps: torch.Tensor, sampling_logps: torch.Tensor, ratio: torch.Tensor, mask: torch.Tensor) -> None:
        """Take a micro-batch.

        Args:
            logps: (B, C) under the policy, detached.
            sampling_logps: (B, C) that the engine gave; NaN where it gave none.
            ratio: Of `losses.importance_ratio`, (B, C) or (B, 1).
            mask: (B, C), 1 on tokens that count.
        """
        counted = mask.bool()
        difference = (logps - sampling_logps).abs()[counted & ~sampling_logps.isnan()]
        ratios = ratio.flatten() if ratio.shape != mask.shape else ratio[counted]
        columns = []
        for values in (difference, ratios):
            if values.numel():
                columns += [values.sum(), values.new_tensor(values.numel()), values.min(), values.max()]
            else:
                columns += [values.new_tensor(value) for value in (0.0, 0.0, math.inf, -math.inf)]
        self._seen.append(torch.stack(columns).float())

    def metrics(self, accelerator: Accelerator) -> dict[str, float]:
        """TRL's metrics by name over all processes, and start anew; none without a micro-batch since the last time."""
        if not self._seen:
            return {}
        seen, self._seen = torch.stack(self._seen), []
        own = torch.cat([_added(seen[:, :4]), _added(seen[:, 4:])])
        everyone = accelerator.gather(own).view(-1, 8).cpu()
        difference, ratio = _added(everyone[:, :4]).tolist(), _added(everyone[:, 4:]).tolist()
        return {
            "sampling/sampling_logp_difference/mean": difference[0] / max(difference[1], 1.0),
            "sampling/sampling_logp_difference/max": difference[3] if difference[1] else 0.0,
            "sampling/importance_sampling_ratio/min": ratio[2] if ratio[1] else 0.0,
            "sampling/importance_sampling_ratio/mean": ratio[0] / max(ratio[1], 1.0),
            "sampling/importance_sampling_ratio/max": ratio[3] if ratio[1] else 0.0,
        }


def _added(rows: torch.Tensor) -> torch.Tensor:
    """(n, 4) of sum, count, least and most to one (4,)."""
    return torch.stack([rows[:, 0].sum(), rows[:, 1].sum(), rows[:, 2].min(), rows[:, 3].max()])
