"""Rollouts with transformers are functions of the seed and their place; and the KL of where the old policy is kept."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from posttrain.controllers import GRPOOnly
from posttrain.rollouts.for_trl import Place
from posttrain.rollouts.sampling import Sampling
from posttrain.rollouts.seeded import SeededRollouts
from posttrain.rollouts.transformers import generate
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import hybrid_args, reward

PROMPTS = [[5, 6, 7], [5, 6, 7], [9, 8], [9, 8]]


@pytest.fixture
def build(model, tokenizer, prompts, tmp_path):
    def make(policy=None, **changes):
        args = hybrid_args(tmp_path, **{"completions_every": 1, "max_steps": 2, **changes})
        policy = copy.deepcopy(model) if policy is None else policy
        return HybridTrainer(policy, reward, args, prompts, processing_class=tokenizer, controller=GRPOOnly())

    return make


@pytest.fixture
def sampler(model, tokenizer):
    def make(run_seed=3, **sampling):
        return SeededRollouts(
            Sampling(max_tokens=8, **sampling), tokenizer=tokenizer, eos_token_ids=[tokenizer.eos_token_id],
            run_seed=run_seed,
        )  # fmt: skip

    return make


def completions(trainer) -> list[list[int]]:
    kept = []
    generate = trainer._generate_single_turn
    trainer._generate_single_turn = lambda *a, **k: (kept.append(generate(*a, **k)), kept[-1])[1]
    trainer.train()
    return [ids for rows, _ in kept for ids in rows]


def after(seed, trainer):
    torch.manual_seed(seed)
    return completions(trainer)


def test_rollouts_depend_on_the_seed_alone(build):
    assert after(1, build()) == after(2, build())
    assert after(1, build()) != after(1, build(seed=8))
    assert after(1, build(seeded_rollouts=False)) != after(2, build(seeded_rollouts=False))


@pytest.mark.parametrize("seeded", [True, False], ids=["seeded", "by TRL"])
def test_the_models_own_generation_config_is_not_sampled_by(build, model, tokenizer, seeded):
    plain = after(1, build(seeded_rollouts=seeded, max_steps=1))
    model.generation_config.update(min_new_tokens=6, begin_suppress_tokens=[plain[0][0]])
    policy = copy.deepcopy(model)
    assert after(1, build(policy, seeded_rollouts=seeded, max_steps=1)) == plain
    assert policy.generation_config.min_new_tokens == 6


def test_rollouts_leave_torchs_generator_alone(build):
    trainer = build(max_steps=1)
    seen = []
    sample = trainer._seeded.sample
    trainer._seeded.sample = lambda *a, **k: (seen.append(torch.get_rng_state()), sample(*a, **k))[1]
    rewards = trainer._calculate_rewards
    trainer._calculate_rewards = lambda *a, **k: (seen.append(torch.get_rng_state()), rewards(*a, **k))[1]
    trainer.train()
    assert torch.equal(*seen)


def test_a_row_is_the_same_wherever_it_is_sampled(sampler, model):
    whole = sampler().sample(model, PROMPTS, Place(4, 0), group=2)
    halves = [sampler().sample(model, PROMPTS[first : first + 2], Place(4, first), group=2) for first in (0, 2)]
    split = [sampler().sample(model, PROMPTS[row : row + 1], Place(4, row), group=2)[0] for row in range(4)]
    assert whole == halves[0] + halves[1] == split
    assert whole[0] != whole[1], "the completions of a group differ"
    assert whole != sampler().sample(model, PROMPTS, Place(5, 0), group=2)
    assert whole != sampler(run_seed=4).sample(model, PROMPTS, Place(4, 0), group=2)


@pytest.mark.parametrize("sampling", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-4}])
def test_what_narrows_the_choice_to_one_is_greedy(sampler, model, sampling):
    expected = sampler(temperature=0.0).sample(model, PROMPTS, Place(0, 0), group=2)
    assert sampler(**sampling).sample(model, PROMPTS, Place(0, 0), group=2) == expected
    assert sampler().sample(model, PROMPTS, Place(0, 0), group=2) != expected


def test_a_repetition_penalty_is_applied(sampler, model):
    for prompt, row in zip(
        PROMPTS, sampler(repetition_penalty=1e6).sample(model, PROMPTS, Place(0, 0), group=2), strict=True
    ):
        assert len({*prompt, *row}) == len(set(prompt)) + len(row)


@pytest.mark.parametrize(
    "changes",
    [
        {"seeded_rollouts": False},
        {"generation_kwargs": {"no_repeat_ngram_size": 2}},
        {"cache_implementation": "static"},
    ],
)
def test_trl_samples_what_is_not_supported(build, changes):
    assert build()._seeded is not None
    assert build(**changes)._seeded is None


def test_rollouts_are_sampled_without_dropout_and_training_goes_on_with_it(build):
    trainer = build(max_steps=1, kl_sample=0.0)
    passes = set()
    trainer.model.register_forward_pre_hook(lambda module, args: passes.add((module.training, torch.is_grad_enabled())))
    trainer.train()
    assert passes == {(False, False), (True, True)}


def test_places_are_those_of_the_whole_list(model, tokenizer):
    texts = ["1 plus 1 is", "2 plus 2 is", "3 plus 1 is"]
    how = {"max_new_tokens": 6, "temperature": 1.0, "num_samples": 2, "seed": 5}
    whole = generate(model, tokenizer, texts, **how)
    assert generate(model, tokenizer, texts[1:], places=[1, 2], **how) == whole[1:]
    assert generate(model, tokenizer, texts[1:], **how) != whole[1:]


# ---- the KL to the starting policy ----


def kls(trainer):
    records = {}
    trainer._recorder.step = lambda record: records.update({record["step"]: record["kl"]})
    trainer.train()
    return records


@pytest.mark.parametrize("lora", [False, True])
def test_the_kl_does_not_depend_on_where_the_copy_is_kept(build, model, lora):
    def policy():
        if not lora:
            return None
        adapted = get_peft_model(copy.deepcopy(model), LoraConfig(r=4, target_modules="all-linear"))
        generator = torch.Generator().manual_seed(1)
        for name, p in adapted.named_parameters():
            if "lora_" in name:
                p.data.normal_(std=0.1, generator=generator)
        return adapted

    how = {"max_steps": 3, "learning_rate": 1e-2, "kl_sample": 0.5}
    kept, offloaded = kls(build(policy(), **how)), kls(build(policy(), kl_offload=True, **how))
    assert kept == offloaded
    assert kept[3] > 1e-4


def test_the_kl_with_a_fresh_adapter_is_that_of_its_copy(build, model, monkeypatch):
    def policy():
        torch.manual_seed(4)
        return get_peft_model(copy.deepcopy(model), LoraConfig(r=4, target_modules="all-linear"))

    how = {"max_steps": 3, "learning_rate": 1e-2, "kl_sample": 1.0}
    switched_off = kls(build(policy(), **how))
    monkeypatch.setattr("posttrain.training.window.kl.has_fresh_adapter", lambda model: False)
    assert kls(build(policy(), **how)) == pytest.approx(switched_off, rel=1e-6)
    assert switched_off[3] > 1e-5
