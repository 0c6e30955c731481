"""Losses against closed forms and against torch."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.inputs.data import IGNORED
from posttrain.training.losses import count_labels, importance_ratio, kl_k3, matched_sft_scale, nll


@pytest.fixture
def batch():
    """Logits (B, T, V) and labels (B, T) with ragged prompts and padding; row 2 is all masked."""
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 9, 11, dtype=torch.float64), torch.randint(0, 11, (6, 9))
    for row, (prompt, end) in enumerate([(3, 9), (0, 9), (9, 9), (5, 7), (1, 2), (8, 9)]):
        labels[row, :prompt] = IGNORED
        labels[row, end:] = IGNORED
    return logits.requires_grad_(), labels


def label_logps(logits_BTV, labels_BT):
    """What a fused head returns: log-probabilities of the labels, 0 where masked."""
    targets = labels_BT[:, 1:]
    logps = logits_BTV[:, :-1].log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return logps * (targets != IGNORED)


def reference(logits_BTV, labels_BT):
    return torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index=IGNORED
    )


def test_the_first_position_has_no_left_context_and_never_counts(batch):
    _, labels = batch
    assert count_labels(labels) == 6 + 8 + 0 + 2 + 1 + 1


def test_nll_is_the_mean_cross_entropy_of_the_labels(batch):
    logits, labels = batch
    loss = nll(label_logps(logits, labels), count_labels(labels))
    torch.testing.assert_close(loss, reference(logits, labels))
    (gradient,) = torch.autograd.grad(loss, logits)
    (expected,) = torch.autograd.grad(reference(logits, labels), logits)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(("processes", "micro"), [(1, 1), (1, 3), (2, 3), (3, 1), (3, 2)])
def test_nll_does_not_depend_on_micro_batches_or_processes(batch, processes, micro):
    logits, labels = batch
    tokens = count_labels(labels)
    parts = [
        sum(
            nll(label_logps(x, y), tokens, processes)
            for x, y in zip(rows_x.tensor_split(micro), rows_y.tensor_split(micro), strict=True)
        )
        for rows_x, rows_y in zip(logits.tensor_split(processes), labels.tensor_split(processes), strict=True)
    ]
    loss = sum(parts) / processes  # data parallelism averages over processes
    torch.testing.assert_close(loss, reference(logits, labels))


def test_nll_of_a_step_without_label_tokens_is_zero_not_nan():
    assert nll(torch.zeros(2, 3), 0).item() == 0.0


def test_k3_is_zero_where_the_policies_agree_and_positive_elsewhere():
    logps = torch.tensor([-3.0, -1.0, -0.1], dtype=torch.float64)
    assert torch.equal(kl_k3(logps, logps.clone()), torch.zeros(3, dtype=torch.float64))
    apart = torch.tensor([-2.0, -1e-3, 1e-3, 2.0], dtype=torch.float64)
    assert (kl_k3(logps[:1] + apart, logps[:1].expand(4)) > 0).all()


def test_the_expectation_of_k3_under_the_policy_is_the_kl_divergence():
    torch.manual_seed(1)
    policy, reference = torch.randn(2, 7, dtype=torch.float64).log_softmax(-1)
    expectation = (policy.exp() * kl_k3(reference, policy)).sum()
    forward = (policy.exp() * (policy - reference)).sum()
    reverse = (reference.exp() * (reference - policy)).sum()
    assert expectation.item() == pytest.approx(forward.item(), rel=1e-12)
    assert abs(forward - reverse) > 1e-3  # so the direction was tested too


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("sft_norm", "grpo_norm"), [(14.0, 1.0), (0.01, 3.0), (1.0, 1.0)])
def test_a_matched_scale_makes_p_the_share_of_the_updates_norm(p, sft_norm, grpo_norm):
    c = matched_sft_scale(p, sft_norm, grpo_norm)
    assert math.isclose(c * sft_norm, p * (c * sft_norm + (1 - p) * grpo_norm), rel_tol=1e-12, abs_tol=1e-15)


@pytest.mark.parametrize(("sft_norm", "grpo_norm"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_where_a_norm_is_zero_the_plain_weight_is_used(sft_norm, grpo_norm):
    assert matched_sft_scale(0.3, sft_norm, grpo_norm) == 0.3


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("token_truncate", [[1.5, 0.5, 1.0, 1.0], [1.25, 1.0, 1.0, 1.0]]),
        ("token_mask", [[0.0, 0.0, 1.0, 1.0], [1.25, 1.0, 1.0, 1.0]]),
        ("sequence_truncate", [[0.5], [1.25]]),
        ("sequence_mask", [[0.0], [1.25]]),
    ],
)
def test_importance_ratios_by_hand(mode, expected):
    ratios = torch.tensor([[2.0, 0.2, math.nan, 9.0], [1.25, 9.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    logps = torch.full((2, 4), -3.0)
    seen = importance_ratio(logps, logps - ratios.log(), mask, mode=mode, clip_min=0.5, clip_max=1.5)
    torch.testing.assert_close(seen, torch.tensor(expected))
    free = importance_ratio(logps, logps - ratios.log(), mask, mode=mode, clip_min=None, clip_max=None)
    assert free[0, 0] == pytest.approx(2.0 if mode.startswith("token") else 0.4)
