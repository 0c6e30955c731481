"""How noisy the two losses of a step are, one number a row, for controllers that go by it (`controllers.gac`).

Every row counts once, however long. The rows are those of all processes, so that no two can come to another mix.
"""

from __future__ import annotations

from statistics import fmean, pvariance

import torch
from accelerate.utils import gather_object

from posttrain.training.token_weights import WEIGHTS, nll

TRIM = 0.1
"""Share of the demonstrations' NLLs that is left out at either end."""


class RowStatistics:
    """Gathers a step's rows.

    Args:
        sft_weight: What a demonstration's token counts: the size of its gradient by the token's log-probability. For
            `clipped` it is 1, as at a window's start.
    """

    def __init__(self, sft_weight: str):
        self._weight = WEIGHTS.get(sft_weight, nll)
        self.begin()

    def begin(self) -> None:
        """Forget the last step's rows."""
        self._nlls: list[torch.Tensor] = []
        self._advantages: list[torch.Tensor] = []
        self._gaps: list[torch.Tensor] = []

    def demonstrations(self, logps: torch.Tensor, mask: torch.Tensor) -> None:
        """A micro-batch's demonstrations: log-probabilities (B, T) of their labels, and 1 on labels."""
        logps = logps.detach()
        self._nlls.append(_mean(-logps, mask))
        self._gaps.append(_mean(self._weight(logps) ** 2, mask))

    def rollouts(self, logps: torch.Tensor, mask: torch.Tensor, advantages: torch.Tensor) -> None:
        """A micro-batch's completions: log-probabilities (B, C), 1 on sampled tokens, advantages (B,) or (B, C)."""
        wide = advantages if advantages.dim() > 1 else advantages[:, None].expand_as(logps)
        self._advantages.append(_mean(wide, mask))
        self._gaps.append(_mean((wide - self._weight(logps.detach())) ** 2, mask))

    def signals(self) -> dict[str, float]:
        """The step's statistics over all processes, which must all ask; nothing where one of the losses had no row.

        Returns:
            `advantage_variance`: of the completions' mean advantages. `nll_variance`: of the demonstrations' mean NLL
            per token, without the tenth at either end. `coefficient_gap`: mean over all rows of the mean over a row's
            tokens of (g_s - g_r) ** 2, where g_s = -weight and g_r = -advantage, 0 for demonstrations.
        """
        own = [torch.cat(rows).tolist() if rows else [] for rows in (self._nlls, self._advantages, self._gaps)]
        shares = gather_object([own])
        nlls, advantages, gaps = (sorted(value for share in shares for value in share[part]) for part in range(3))
        if not nlls or not advantages:
            return {}
        cut = int(TRIM * len(nlls)) if len(nlls) >= 4 else 0
        return {
            "advantage_variance": pvariance(advantages),
            "nll_variance": pvariance(nlls[cut : len(nlls) - cut]),
            "coefficient_gap": fmean(gaps),
        }


def _mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
