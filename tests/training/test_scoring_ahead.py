"""Rewards scored while other completions are still being sampled: the same training, to the last bit."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from posttrain.controllers import GRPOOnly
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.score import Reward
from posttrain.scoring.scorer import Scorer, trl_reward_functions
from posttrain.storage.files import read_lines
from posttrain.training.trainer import HybridTrainer
from tests.scoring.test_ahead import threads
from tests.scoring.test_pool import wait_until
from tests.scoring.troubled import dense
from tests.training.conftest import hybrid_args


def whole_batch(completions, answer, **columns):
    return [float(str(each) in text) for text, each in zip(completions, answer, strict=True)]


REWARDS = [Reward.from_callable(dense), Reward.from_callable(whole_batch, weight=0.1)]


@pytest.fixture
def build(model, tokenizer, prompts, tmp_path):
    def make(pool: RewardPool, ahead: bool, **changes) -> tuple[HybridTrainer, Scorer]:
        scorer = Scorer(REWARDS, pool=pool, max_error_rate=1.0)
        args = hybrid_args(
            tmp_path / str(ahead), **{"score_ahead": ahead, "max_steps": 3, "completions_every": 1, **changes}
        )
        trainer = HybridTrainer(
            copy.deepcopy(model), trl_reward_functions(scorer), args, prompts, processing_class=tokenizer,
            controller=GRPOOnly(),
        )  # fmt: skip
        return trainer, scorer

    return make


def test_training_is_the_same(build):
    seen, taken = [], []
    with RewardPool(REWARDS, workers=2) as pool:
        for ahead in (False, True):
            trainer, scorer = build(pool, ahead)
            told = []
            rewards = trainer._calculate_rewards

            def watched(*args, rewards=rewards, told=told, trainer=trainer):
                told.append(rewards(*args))
                taken.append(sum(job.wanted for job in pool.begun()))
                assert not threads()
                return told[-1]

            trainer._calculate_rewards = watched
            trainer.train()
            assert pool.begun() == []
            weights = torch.cat([each.detach().flatten() for each in trainer.model.parameters()])
            advantages = list(trainer._logs["advantages"])
            seen.append((torch.cat(told).nan_to_num(9.0), weights, advantages, scorer.errors, scorer.error_count))
    (rewards, weights, *rest), (rewards_ahead, weights_ahead, *rest_ahead) = seen
    assert torch.equal(rewards, rewards_ahead)
    assert torch.equal(weights, weights_ahead)
    assert rest == rest_ahead
    assert rest[-1] > 0
    assert taken[:3] == [0, 0, 0]


def test_rows_that_ended_are_scored_before_the_last_has(build):
    """The sampler waits, before it says that its last row has ended, until the others have been scored."""
    with RewardPool(REWARDS, workers=2) as pool:
        trainer, _ = build(pool, True, max_steps=2)
        sample = trainer._seeded.sample
        scored: list[int] = []

        def one_by_one(*args, on_row, **kwargs):
            completions = sample(*args, **kwargs)
            for row, ids in enumerate(completions[:-1]):
                on_row(row, ids)
            texts = {trainer.processing_class.decode(ids, skip_special_tokens=True) for ids in completions[:-1]}
            assert wait_until(lambda: sum(each.outcome is not None for each in pool.begun()) >= len(texts), 20)
            scored.append(len(pool.begun()))
            on_row(len(completions) - 1, completions[-1])
            return completions

        trainer._seeded.sample = one_by_one
        trainer.train()
        lines = read_lines(Path(trainer.args.output_dir) / "steps.jsonl")
    assert len(scored) == 2
    assert min(scored) > 0
    assert all(line["seconds"]["scored_ahead"] > 0 for line in lines)
    assert all(line["seconds"]["score"] > 0 for line in lines)


def test_the_trainers_own_sampler_tells_of_rows_as_they_end(build):
    with RewardPool(REWARDS, workers=1) as pool:
        trainer, _ = build(pool, True, max_steps=1)
        told, generate = [], trainer._generate_single_turn
        trainer._ahead.row = lambda number, ids: told.append((number, list(ids)))
        kept = []
        trainer._generate_single_turn = lambda *a, **k: (kept.append(generate(*a, **k)), kept[-1])[1]
        trainer.train()
    assert sorted(told) == list(enumerate(kept[0][0]))
