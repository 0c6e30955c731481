"""Pure tensor functions. Shapes: B sequences, T positions; masked positions hold 0 in log-probabilities."""

from __future__ import annotations

import math

import torch

from posttrain.inputs.data import IGNORED


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


def importance_ratio(
    logps_BT: torch.Tensor,
    sampling_logps_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    *,
    mode: str,
    clip_min: float | None,
    clip_max: float | None,
) -> torch.Tensor:
    """How much likelier the policy makes what an engine sampled than the engine did: weights that correct for it.

    What `GRPOTrainer` calls `vllm_importance_sampling_ratio` (truncated and masked importance sampling), as a function.

    Args:
        logps_BT: Log-probabilities under the policy that the engine was given, detached.
        sampling_logps_BT: What the engine gave; NaN where it gave none, which counts as no difference.
        mask_BT: 1 on tokens that count.
        mode: `token_` or `sequence_`, whose ratio is that of the whole completion; then `truncate`, which clips to the
            bounds, or `mask`, which makes what is outside them 0.
        clip_min, clip_max: The bounds; `None` is none.

    Returns:
        (B, T) for the token modes, (B, 1) for the others.
    """
    difference = ((logps_BT - sampling_logps_BT) * mask_BT).nan_to_num(nan=0.0)
    ratio = torch.exp(difference.sum(dim=-1, keepdim=True) if mode.startswith("sequence") else difference)
    if mode.endswith("truncate"):
        return ratio if clip_min is None and clip_max is None else ratio.clamp(min=clip_min, max=clip_max)
    least, most = (-math.inf if clip_min is None else clip_min), (math.inf if clip_max is None else clip_max)
    return ratio.masked_fill((ratio < least) | (ratio > most), 0.0)


def matched_sft_scale(p: float, sft_norm: float, grpo_norm: float) -> float:
    """The factor c on the SFT gradient that makes p its share of the update's norm beside (1 - p) times GRPO's.

    Solves c * sft_norm / (c * sft_norm + (1 - p) * grpo_norm) = p. Where a norm is zero (every group of the step
    scored alike, say) no factor can, and the plain weight p is used.
    """
    if not sft_norm > 0.0 or not grpo_norm > 0.0:
        return p
    return p * grpo_norm / sft_norm


def row_means(values_BC: torch.Tensor, mask_BC: torch.Tensor) -> torch.Tensor:
    """(B, 1) of each row over the tokens that count; 0 where none does."""
    return (values_BC * mask_BC).sum(dim=1, keepdim=True) / mask_BC.sum(dim=1, keepdim=True).clamp(min=1)


def per_rollout(
    losses_BC: torch.Tensor, mask_BC: torch.Tensor, *, loss_type: str, rows: int, longest: int, tokens: torch.Tensor
) -> torch.Tensor:
    """Losses of further tokens divided as `GRPOTrainer` divides those of a micro-batch's rollouts.

    Args:
        losses_BC: Per token.
        mask_BC: 1 on tokens that count.
        loss_type: `dapo`, `grpo` or `dr_grpo`.
        rows: Rollouts of a micro-batch before any was moved or left out.
        longest: `max_completion_length`.
        tokens: Those that `dapo` divides by, per micro-batch and process.
    """
    sums = (losses_BC * mask_BC).sum(dim=-1)
    if loss_type == "dapo":
        return sums.sum() / tokens.clamp(min=1.0)
    if loss_type == "grpo":
        return (sums / mask_BC.sum(dim=-1).clamp(min=1.0)).sum() / rows
    return sums.sum() / (rows * longest)
