"""What a demonstration's token counts in the SFT loss, as a function of the probability that the policy gives it.

The loss of a token is `-w(sg(p)) * log p`: its gradient is that of the likelihood, scaled by a weight that carries no
gradient. `WEIGHTS` has the pure ones:

- `nll`: 1, the plain likelihood.
- `dft`: p. Rare tokens count little, and the gradient is bounded as a policy gradient's is (DFT, arXiv 2508.05629).
- `phi`: p * (1 - p). What is known and what is out of reach count little (CHORD, arXiv 2508.11408).
- `trust`: min(1, p / ALPHA). As `dft` below ALPHA, the likelihood above (TrSFT in TRAPO, arXiv 2512.17636).

`clipped` (PSFT, arXiv 2508.17784) needs more than p: PPO's clipped objective with the advantage 1, min(r, 1 + EPSILON)
with r = p / p_old, whose gradient is that of weight r up to 1 + EPSILON and 0 above. p_old is the policy's at the start
of a window of optimizer steps; in a window of one step r is 1 and it is `nll`. The lower bound of PSFT's clip, 0.2, has
no effect where the advantage is 1, and is left out. PSFT logs -min(r, 1 + EPSILON), which is -1 whatever is learned;
here the value is that of the weighted likelihood.

Every weight is divided by the step's label tokens, not by the sum of the weights: tokens that count less make the step
smaller, as in the papers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ALPHA = 0.1
"""Of `trust`: the probability from which a token counts in full."""
EPSILON = 0.28
"""Of `clipped`: by how much more likely a token may become within a window."""


def nll(logps: torch.Tensor) -> torch.Tensor:
    """1 for every token."""
    return logps.new_ones(()).expand_as(logps)


def dft(logps: torch.Tensor) -> torch.Tensor:
    """p."""
    return logps.exp()


def phi(logps: torch.Tensor) -> torch.Tensor:
    """p * (1 - p), which is 0 where p is 1."""
    return -logps.exp() * logps.expm1()


def trust(logps: torch.Tensor) -> torch.Tensor:
    """min(1, p / ALPHA)."""
    return (logps.exp() / ALPHA).clamp(max=1.0)


def clipped(logps: torch.Tensor, old_logps: torch.Tensor) -> torch.Tensor:
    """r = p / p_old up to 1 + EPSILON, 0 above.

    Args:
        logps: Under the policy as it is.
        old_logps: Of the same shape, under the policy at the window's start.
    """
    ratio = (logps - old_logps).exp()
    return ratio.masked_fill(ratio > 1.0 + EPSILON, 0.0)


WEIGHTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"nll": nll, "dft": dft, "phi": phi, "trust": trust}
"""Those that p alone gives: log-probabilities in nats, any shape, to weights of that shape."""


def weighted(name: str, logps: torch.Tensor, old_logps: torch.Tensor | None = None) -> torch.Tensor:
    """Log-probabilities times their weights; the weights carry no gradient.

    Args:
        name: A key of `WEIGHTS`, or `clipped`.
        logps: Log-probabilities of labels, in nats, 0 where there is none: that adds 0 under every weight.
        old_logps: Those of the window's start; for `clipped` only, and `None` stands for the policy as it is.
    """
    seen = logps.detach()
    if name == "clipped":
        return clipped(seen, seen if old_logps is None else old_logps) * logps
    return WEIGHTS[name](seen) * logps
