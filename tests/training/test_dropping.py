"""Rows without advantage are left out, and the gradient stays TRL's, whatever the loss."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl import GRPOTrainer

from posttrain.controllers import GRPOOnly
from posttrain.rollouts.for_trl import EngineRollouts, Place
from posttrain.rollouts.sampling import Sampling
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import StopAt, hybrid_args, reward, sparse_reward
from tests.training.twins import Rollouts, assert_same_gradients, both, engine_double

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


# ---- a window that was begun under another plan ----

MODE = "vllm_importance_sampling_mode"


class Cut:
    """Trains for two windows of two steps, twice each; a checkpoint of step 2 lies inside the first one."""

    def __init__(self, model_folder, tokenizer, prompts, folder):
        self.model_folder, self.tokenizer, self.prompts, self.folder = model_folder, tokenizer, prompts, folder

    def train(self, *, size=4, accumulation=4, stop=None, resume=False, rewards=sparse_reward, engine=False, **changes):
        settings = {
            "max_steps": 4, "per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation,
            "steps_per_generation": 2 * accumulation, "num_iterations": 2, "max_completion_length": 12,
            "kl_sample": 0.0, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, **changes,
        }  # fmt: skip
        trainer = HybridTrainer(
            AutoModelForCausalLM.from_pretrained(self.model_folder, dtype=torch.float32),
            rewards,
            hybrid_args(self.folder / ("cut" if stop or resume else "whole"), **settings),
            self.prompts,
            processing_class=self.tokenizer,
            controller=GRPOOnly(),
            callbacks=[StopAt(stop)] if stop else [],
            rollout_func=Rollouts(self.tokenizer, 12, logps=engine).record,
        )
        if engine:
            trainer.use_vllm, trainer.vllm_generation = True, engine_double()
        trainer.train(resume_from_checkpoint=resume)
        return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize(
    ("after", "always"),
    [
        ({"size": 16, "accumulation": 1}, {"rewards": reward, "importance_sampling_level": "sequence"}),
        ({"size": 16, "accumulation": 1}, {"rewards": reward, "loss_type": "vespo"}),
        ({"size": 16, "accumulation": 1}, {"packed": False, "importance_sampling_level": "sequence"}),
        ({"packed": False, "drop_zero_advantage": False}, {}),
        ({"packed": False, "drop_zero_advantage": False}, {"engine": True, MODE: "token_mask"}),
        ({"drop_zero_advantage": False}, {"engine": True, MODE: "sequence_mask"}),
    ],
    ids=["sequence", "vespo", "padded", "nothing planned", "nothing planned, engine", "nothing dropped, engine"],
)  # fmt: skip
def test_a_window_goes_on_under_another_plan(model_folder, tokenizer, prompts, tmp_path, after, always):
    run = Cut(model_folder, tokenizer, prompts, tmp_path)
    whole = run.train(**always)
    run.train(stop=2, **always)
    resumed = run.train(resume=True, **always, **after)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=1e-6)


# ---- subclasses ----


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("several", [False, True], ids=["one step", "several steps"])
def test_each_token_may_have_an_advantage_of_its_own(pair, monkeypatch, packed, several):
    scored = GRPOTrainer._generate_and_score_completions

    def by_token(self, inputs):
        output = scored(self, inputs)
        weights = 1.0 / torch.arange(1, output["completion_ids"].size(1) + 1)
        return {**output, "advantages": output["advantages"][:, None] * weights}

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", by_token)
    ours, theirs = pair(packed=packed, **(WINDOW if several else {"gradient_accumulation_steps": 2}))
    assert_same_gradients(ours, theirs)
    assert all(record["trained_rows"] < 0.8 for record in ours.records)


def test_a_loss_may_show_neither_an_entropy_nor_what_is_clipped(model, tokenizer, prompts, tmp_path):
    class Plain(HybridTrainer):
        def _compute_loss(self, model, inputs):
            ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
            mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
            width = inputs["completion_ids"].size(1)
            logps, entropies, _ = self._get_per_token_logps_and_entropies(model, ids, mask, width)
            assert entropies is None
            return -(logps * inputs["advantages"][:, None] * inputs["completion_mask"]).mean()

    args = hybrid_args(tmp_path, max_steps=2, gradient_accumulation_steps=2, kl_sample=1.0, logging_steps=1)
    rollouts = Rollouts(tokenizer)
    trainer = Plain(
        model, sparse_reward, args, prompts, processing_class=tokenizer, controller=GRPOOnly(),
        rollout_func=rollouts.record,
    )  # fmt: skip
    records = []
    trainer._recorder = type("Kept", (), {"step": records.append, "completions": lambda *of: None})
    trainer.train()
    assert [(record["entropy"], record["clip_ratio"]) for record in records] == [(None, None)] * 2
    assert all(record["kl"] is not None for record in records)


@pytest.mark.parametrize("asked", [False, True])
def test_an_engine_is_told_of_early_completions_only_where_someone_asks(asked):
    seen = []

    class Before:
        """Of a time when completions came all at once."""

        def begin(self, prompt_ids, seeds, sampling):
            return lambda: [["first", "second"] for _ in prompt_ids]

    rollouts = EngineRollouts(
        Before(), Sampling(max_tokens=4), policy=None, place=lambda rows: Place(0, 0), run_seed=0, probe_every=0,
        trainer_logps=None, trainer_dtype=torch.float32,
    )  # fmt: skip
    rollouts.on_row = (lambda *row: seen.append(row)) if asked else None
    if asked:
        with pytest.raises(TypeError, match="on_prompt"):
            rollouts._ask(Place(0, 0), [[1], [1]], 2)
    else:
        assert rollouts._ask(Place(0, 0), [[1], [1]], 2)() == ["first", "second"]
