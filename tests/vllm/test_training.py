"""HybridTrainer with vLLM's rollouts: they come from the policy, as often as needed, and again the same on resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, set_seed

from posttrain.controllers import Alternate, GRPOOnly
from posttrain.errors import TrainingError
from posttrain.rollouts.sampling import request_seed
from posttrain.storage.files import read_lines
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import hybrid_args, reward
from tests.training.test_resume import StopAt
from tests.vllm.training import Watched

STEPS = 6
FLOAT32 = 1e-4
"""How far apart two implementations of the same float32 model may be, per token, as a log-probability."""


@pytest.fixture
def build(model_folder, tokenizer, prompts, demonstrations, tmp_path, engine):
    def make(controller, *, folder=tmp_path, lora=False, callbacks=None, **changes):
        set_seed(3)
        policy = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        if lora:
            policy = get_peft_model(policy, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        settings = {"max_steps": STEPS, "per_device_train_batch_size": 16, "learning_rate": 1e-2, **changes}
        return HybridTrainer(
            policy,
            reward,
            hybrid_args(folder, use_vllm=True, **settings),
            prompts,
            processing_class=tokenizer,
            demonstrations=demonstrations,
            controller=controller,
            callbacks=callbacks,
            engine=Watched(engine),
        )

    return make


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_every_rollout_comes_from_the_policy_of_its_step(build, lora, monkeypatch):
    """After each of six large updates the sampler's log-probabilities are the trainer's."""
    trainer = build(GRPOOnly(), lora=lora, vllm_probe_every=1)
    seen = trainer._metrics["train"]
    gaps = []
    log = trainer.log
    monkeypatch.setattr(
        trainer, "log", lambda *a, **k: (gaps.extend(seen["sampling/sampling_logp_difference/max"]), log(*a, **k))
    )
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    assert len(gaps) == STEPS
    assert max(gaps) < FLOAT32
    moved = max(float((p.detach() - before[n]).abs().max()) for n, p in trainer.model.named_parameters() if n in before)
    assert moved > 1e-2  # else an engine that never got new weights would pass, too


def test_one_request_a_prompt_with_its_own_seed(build):
    trainer = build(GRPOOnly(), max_steps=3, num_generations=4)
    trainer.train()
    rounds = [r for r in trainer.vllm_generation.engine.requests if r[2].n > 1]
    assert len(rounds) == 3
    for window, (prompt_ids, seeds, sampling, sampled) in enumerate(rounds):
        assert (len(prompt_ids), sampling.n) == (4, 4)
        assert seeds == [request_seed(trainer.args.seed, window, prompt) for prompt in range(4)]
        assert all(len({tuple(one.token_ids) for one in group}) > 1 for group in sampled)


def test_weights_travel_once_a_change_and_only_when_rollouts_are_due(build):
    trainer = build(Alternate(sft_steps=3, grpo_steps=1), max_steps=8)
    trainer.train()
    mixes = [line["mix"]["grpo"] for line in read_lines(Path(trainer.args.output_dir) / "steps.jsonl")]
    assert mixes.count(1.0) == 2
    assert trainer.vllm_generation.engine.loads == 2


def test_training_again_loads_again(build):
    """The second time begins at step 0 like the first, with other weights."""
    trainer = build(GRPOOnly(), max_steps=1)
    trainer.train()
    trainer.train()
    assert trainer.vllm_generation.engine.loads == 2


def test_the_engine_sleeps_while_the_policy_trains(build):
    trainer = build(GRPOOnly(), max_steps=2)
    trainer.train()
    assert trainer.vllm_generation.engine.sleeps == [1, 1]  # level 1, once a round of rollouts


def test_no_two_rows_of_an_evaluation_share_a_seed(build, prompts):
    trainer = build(GRPOOnly(), max_steps=1)
    trainer.evaluate(prompts.select(range(16)))
    seeds = [seed for request in trainer.vllm_generation.engine.requests[1:] for seed in request[1]]
    assert len(seeds) >= 4
    assert len(set(seeds)) == len(seeds)


def test_a_window_of_several_steps_loads_once(build):
    trainer = build(GRPOOnly(), max_steps=4, per_device_train_batch_size=4, steps_per_generation=4)
    trainer.train()
    assert trainer.vllm_generation.engine.loads == 1


@pytest.mark.parametrize("stop", [3, 4])
def test_resuming_equals_never_stopping(build, tmp_path, stop):
    controller = Alternate(sft_steps=1, grpo_steps=2)
    whole = build(controller, folder=tmp_path / "whole")
    whole.train()
    build(controller, folder=tmp_path / "parts", callbacks=[StopAt(stop)]).train()
    resumed = build(controller, folder=tmp_path / "parts")
    resumed.train(resume_from_checkpoint=True)
    rounds = [r for r in resumed.vllm_generation.engine.requests if r[2].n > 1]
    later = [r for r in whole.vllm_generation.engine.requests if r[2].n > 1][-len(rounds) :]
    assert rounds
    assert [r[3] for r in rounds] == [r[3] for r in later]
    for (name, ours), theirs in zip(resumed.model.named_parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_sampler_that_lags_behind_stops_the_run(build):
    """As when weights are pushed into a copy that nothing reads: silent in vLLM, and seen by the probe."""
    trainer = build(GRPOOnly(), vllm_probe_every=2)
    watched = trainer.vllm_generation.engine

    def load_once(model):
        watched.loads += 1
        if watched.loads == 1:
            watched.engine.load(model)

    watched.load = load_once
    with pytest.raises(TrainingError, match="log-probabilit"):
        trainer.train()
    assert trainer.state.global_step == 2
