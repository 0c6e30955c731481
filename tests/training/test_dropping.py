"""Rows without advantage are left out, and the gradient stays TRL's, whatever the loss."""

from __future__ import annotations

import pytest
import torch

from tests.training.conftest import sparse_reward
from tests.training.twins import assert_same_gradients, both

WINDOW = {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "num_iterations": 2, "max_steps": 5}
"""Two optimizer steps to a window, twice, with clipping that bites."""


def no_spread(completions, **kwargs):
    return [1.0] * len(completions)


@pytest.fixture
def pair(model, tokenizer, prompts, tmp_path, monkeypatch):
    def train(reward=sparse_reward, **changes):
        return both(model, tokenizer, prompts, reward, tmp_path, monkeypatch, **changes)

    return train


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo"])
def test_the_gradient_is_trls_without_the_rows_that_add_nothing(pair, loss_type, packed):
    ours, theirs = pair(loss_type=loss_type, packed=packed, gradient_accumulation_steps=2)
    assert_same_gradients(ours, theirs)
    assert ours.positions < 0.6 * theirs.positions
    assert all(0.0 < record["trained_rows"] < 0.8 for record in ours.records)
    assert sum(record["positions"] for record in ours.records) / 3 < 0.6


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "cispo", "sapo"])
def test_windows_of_several_steps_and_iterations(pair, loss_type, packed):
    ours, theirs = pair(loss_type=loss_type, packed=packed, epsilon=0.01, **WINDOW)
    assert_same_gradients(ours, theirs)
    assert 0 < ours.scored < 0.6 * theirs.scored, "log-probabilities under the sampling policy are of kept rows only"
    if loss_type in ("dapo", "grpo"):
        assert max(record["clip_ratio"] for record in ours.records) > 0.05


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
@pytest.mark.parametrize("several", [False, True], ids=["one step", "several steps"])
def test_an_engines_own_log_probabilities_are_corrected_for(pair, mode, several):
    bounds = {"vllm_importance_sampling_clip_min": 0.75, "vllm_importance_sampling_clip_max": 1.5}
    changes = WINDOW if several else {"gradient_accumulation_steps": 2}
    ours, theirs = pair(use_vllm=True, vllm_importance_sampling_mode=mode, **bounds, **changes)
    assert_same_gradients(ours, theirs)
    if not several:
        assert ours.scored == 0 < theirs.scored
    for name in ("sampling_logp_difference/mean", "importance_sampling_ratio/max"):
        assert 0.0 < max(logged.get(f"sampling/{name}", 0.0) for logged in ours.metrics) <= 1.5


def test_what_is_logged_of_the_sampling_is_trls_where_nothing_is_dropped(pair):
    ours, theirs = pair(use_vllm=True, drop_zero_advantage=False, gradient_accumulation_steps=2)
    names = [name for name in theirs.metrics[0] if name.startswith("sampling/")]
    assert len(names) == 5
    for ours_of, theirs_of in zip(ours.metrics, theirs.metrics, strict=True):
        assert [ours_of[name] for name in names] == pytest.approx([theirs_of[name] for name in names], rel=1e-4)
        assert ours_of["entropy"] == pytest.approx(theirs_of["entropy"], rel=1e-3)


def test_rows_of_the_kl_sample_stay(pair):
    ours, theirs = pair(kl_sample=0.5, gradient_accumulation_steps=2)
    assert_same_gradients(ours, theirs)
    assert all(record["trained_rows"] > 0.5 for record in ours.records)
    assert ours.records[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert all(record["kl"] > 1e-7 for record in ours.records[1:])


@pytest.mark.parametrize(
    ("why", "packed"),
    [({"beta": 0.05}, True), ({"loss_type": "bnpo"}, True), ({"entropy_coef": 0.01}, True),
     ({"top_entropy_quantile": 0.5}, True), ({"drop_zero_advantage": False}, True),
     ({"drop_zero_advantage": False, "packed": False}, False)],
    ids=["beta", "bnpo", "entropy bonus", "entropy quantile", "not asked for", "nothing asked for"],
)  # fmt: skip
@pytest.mark.parametrize("several", [False, True], ids=["one step", "several steps"])
def test_nothing_is_dropped_where_every_row_counts(pair, why, packed, several):
    ours, theirs = pair(**why, **(WINDOW if several else {"gradient_accumulation_steps": 2}))
    assert_same_gradients(ours, theirs)
    assert [record["trained_rows"] for record in ours.records] == [1.0] * len(ours.records)
    assert (ours.positions < theirs.positions) is packed


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_a_step_of_which_nothing_can_be_learned_is_still_a_step(pair, packed):
    seen = []

    def at_first(completions, answer, **kwargs):
        """Nothing to learn after the first step."""
        seen.append(len(completions))
        first = len(seen) in (1, 4)  # the twin's trainings
        return sparse_reward(completions, answer) if first else no_spread(completions)

    ours, theirs = pair(
        reward=at_first, packed=packed, gradient_accumulation_steps=2,
        optim="adamw_torch", learning_rate=1e-2, weight_decay=0.1,
    )  # fmt: skip
    assert ours.gradients[0].any()
    assert not ours.gradients[1].any()
    assert not ours.gradients[2].any()
    assert ours.positions < 0.4 * theirs.positions
    assert_same_gradients(ours, theirs)
    assert ours.records[1]["trained_rows"] == 1 / 16
    # A step of momentum is about 1e-2, one of the decay 1e-3 where a weight is 1
    torch.testing.assert_close(ours.weights, theirs.weights, rtol=0, atol=1e-4)


def test_truncated_completions_are_masked_as_by_trl(pair):
    ours, theirs = pair(mask_truncated_completions=True, gradient_accumulation_steps=2, loss_type="grpo")
    assert_same_gradients(ours, theirs)
