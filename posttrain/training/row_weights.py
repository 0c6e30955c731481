"""What a demonstration as a whole counts in the SFT loss; beside `token_weights`, where each token counts by itself.

All tokens of a demonstration have one weight, which carries no gradient: the loss of a token is `-sg(w) * log p`, and
the sum is divided by the step's label tokens, as under every other weight. s is the sum of a demonstration's
log-probabilities, in nats.

- `dco` (arXiv 2502.07154, direct coverage optimisation): the loss of a demonstration is -log(1 - (1 - e^s)^N), the
  negative logarithm of the chance that one of N samples is it, whose gradient is that of the likelihood times
  w = N p (1 - p)^(N - 1) / (1 - (1 - p)^N) with p = e^s. What is known already counts little, which leaves its
  probability to other answers: pass@N is what is optimised, not pass@1. N = 1 is the likelihood.
- `pearson`, `hellinger`, `js` (arXiv 2507.00018): SFT is the learning of an implicit reward f'(u), u = p / p_start;
  under the reverse KL that is log p and a constant, and the start plays no part. Other f keep it: the gradient of f'(u)
  is that of the likelihood times w = u f''(u). Pearson's (u - 1)^2 gives 2 u, the squared Hellinger distance
  (sqrt(u) - 1)^2 gives 1 / (2 sqrt(u)), Jensen-Shannon's u log u - (u + 1) log((u + 1) / 2) gives 1 / (1 + u).

Deviations. `dco`: the authors' code sums each answer's tokens and takes the mean over rows; here all are divided by the
step's tokens, which is that times a constant of the step. It leaves out rows whose weight is at most 0.1; here they
count what they weigh. p is that of the whole completion: behind a chain of thought it is next to 0, w is 1, and the
objective is the likelihood. The f-divergences are derived from f and were not compared with code, of which there is
none: u is the ratio of the geometric means over a demonstration's tokens, for that of whole texts leaves every range,
and log u is held to +-`CLIP`. Their constant factors (2, 1/2 and 1/2 at the start) are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from posttrain.recipe.section import TRIES

CLIP = 2.0
"""Most that the logarithm of u counts, either way: u stays between 0.135 and 7.39."""
SMALL = 1e-6
"""N * p below which `dco` is computed by its series, whose next term is beyond float64's reach then."""


def dco(sums: torch.Tensor, tries: int) -> torch.Tensor:
    """F(p, N) = N p (1 - p)^(N - 1) / (1 - (1 - p)^N), between 0 and 1.

    Args:
        sums: Log-probabilities of whole demonstrations in nats, any shape.
        tries: N, at least 1.

    Returns:
        Weights of that shape, in float64.
    """
    logs = sums.double().clamp(max=0.0)
    if tries == 1:
        return torch.ones_like(logs)
    p = logs.exp()
    # Where p is close to 1, 1 - p has to come from the logarithm; elsewhere from p
    log_miss = torch.where(logs > -math.log(2.0), (-torch.expm1(logs)).log(), torch.log1p(-p))
    log_weight = math.log(tries) + logs + (tries - 1) * log_miss - (-torch.expm1(tries * log_miss)).log()
    series = 1.0 - 0.5 * (tries - 1) * p
    return torch.where(p * tries < SMALL, series, log_weight.exp())


DIVERGENCES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "pearson": lambda u: 2.0 * u,
    "hellinger": lambda u: 0.5 / u.sqrt(),
    "js": lambda u: 1.0 / (1.0 + u),
}
"""u f''(u) of each f, for u above 0."""


def against_start(name: str, means: torch.Tensor, start_means: torch.Tensor) -> torch.Tensor:
    """u f''(u) with log u the difference of mean log-probabilities, held to +-`CLIP`.

    Args:
        name: A key of `DIVERGENCES`.
        means, start_means: Of demonstrations' tokens, in nats: under the policy, and under the one it began as.
    """
    return DIVERGENCES[name]((means - start_means).clamp(-CLIP, CLIP).exp())


def row_weights(
    name: str,
    logps_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    *,
    tries: int | None = None,
    start_sums_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B, 1) what each demonstration of a micro-batch counts; without gradient.

    Args:
        name: `dco`, or a key of `DIVERGENCES`.
        logps_BT: Log-probabilities of labels in nats, 0 where there is none.
        mask_BT: Whether there is one.
        tries: Of `dco`; `None` is `TRIES`.
        start_sums_B: Of the others: sums of the labels' log-probabilities under the policy that training began with.
    """
    logps = logps_BT.detach().double()
    sums = logps.sum(dim=1)
    if name == "dco":
        weights = dco(sums, TRIES if tries is None else tries)
    else:
        assert start_sums_B is not None
        count = mask_BT.sum(dim=1).clamp(min=1)
        weights = against_start(name, sums / count, start_sums_B.double() / count)
    return weights[:, None].to(logps_BT.dtype)
