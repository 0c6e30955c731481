"""Pure tensor functions. Shapes: B sequences, T positions; masked positions hold 0 in log-probabilities."""

from __future__ import annotations

import torch

IGNORED = -100
"""Label of a position that no loss looks at."""


def count_labels(labels_BT: torch.Tensor) -> int:
    """Label tokens that a causal LM is trained on: position 0 has no left context and never counts."""
    return int((labels_BT[:, 1:] != IGNORED).sum())


def nll(log_probs_BT: torch.Tensor, num_tokens: int, num_processes: int = 1) -> torch.Tensor:
    """Negative log-likelihood of demonstration tokens in nats, one mean over the whole optimizer step.

    Args:
        log_probs_BT: Log-probabilities of this micro-batch's labels, 0 where masked.
        num_tokens: Label tokens of the step: every micro-batch, every process.
        num_processes: Undoes the averaging of gradients over processes.
    """
    return -log_probs_BT.sum() / max(num_tokens, 1) * num_processes


def kl_k3(reference_logps_BT: torch.Tensor, logps_BT: torch.Tensor) -> torch.Tensor:
    """Per-token KL(policy || reference) in nats, estimated on tokens that the policy sampled.

    The k3 estimator, exp(d) - d - 1 with d = log reference - log policy: unbiased and never negative
    (Schulman, "Approximating KL Divergence", 2020; GRPO, arXiv 2402.03300, eq. 4).
    """
    d = reference_logps_BT - logps_BT
    return torch.exp(d) - d - 1.0


def matched_sft_scale(p: float, sft_norm: float, grpo_norm: float) -> float:
    """The factor c on the SFT gradient that makes p its share of the update's norm beside (1 - p) times GRPO's.

    Solves c * sft_norm / (c * sft_norm + (1 - p) * grpo_norm) = p. Where a norm is zero (every group of the step
    scored alike, say) no factor can, and the plain weight p is used.
    """
    if not sft_norm > 0.0 or not grpo_norm > 0.0:
        return p
    return p * grpo_norm / sft_norm
