"""Completions that no reward scores: counted as what they are, said, and no group of them has a spread."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from posttrain.controllers import GRPOOnly
from posttrain.rundir.completions import read_completions
from posttrain.training.spread import unscored, without_spread
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import hybrid_args, reward

NAN = math.nan


@pytest.mark.parametrize(
    ("rows", "share", "dead"),
    [
        ([[1.0], [0.0], [1.0], [0.0]], 0.0, 0.0),
        ([[1.0], [1.0], [1.0], [0.0]], 0.0, 0.5),
        ([[NAN], [NAN], [1.0], [0.0]], 0.5, 0.5),
        ([[NAN], [1.0], [1.0], [0.0]], 0.25, 0.5),  # one alone has nothing to differ from
        ([[NAN], [NAN], [NAN], [NAN]], 1.0, 1.0),
        ([[NAN, 1.0], [0.0, NAN], [1.0, 0.0], [0.0, 1.0]], 0.0, 0.5),  # sums: 1 and 0, then 1 and 1
    ],
)
def test_groups_by_hand(rows, share, dead):
    rewards = torch.tensor(rows)
    weights = torch.ones(rewards.size(1))
    assert float(unscored(rewards).float().mean()) == share
    assert without_spread(rewards, weights, group=2).float().mean() == dead


def test_rewards_with_a_spread_of_their_own_each():
    rewards = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, NAN], [1.0, NAN]])
    assert without_spread(rewards, torch.ones(2), group=2).tolist() == [True, True], "the sums are alike"
    assert without_spread(rewards, torch.ones(2), group=2, summed=False).tolist() == [False, True]
    assert without_spread(rewards, torch.zeros(2), group=2, summed=False).tolist() == [True, True], "only recorded"


@pytest.fixture
def train(model, tokenizer, prompts, tmp_path):
    def run(*functions, **changes):
        records = []
        trainer = HybridTrainer(
            model,
            list(functions),
            hybrid_args(tmp_path, **{"max_steps": 2, "kl_sample": 0.0, **changes}),
            prompts,
            processing_class=tokenizer,
            controller=GRPOOnly(),
        )
        step = trainer._recorder.step
        trainer._recorder.step = lambda record: (records.append(record), step(record))
        trainer.train()
        return trainer, records

    return run


def never(completions, **columns):
    return [None] * len(completions)


@pytest.mark.parametrize("changes", [{}, {"scale_rewards": "batch"}, {"beta": 0.1}])
def test_a_reward_that_applies_to_nothing_is_said_and_teaches_nothing(train, changes):
    with pytest.warns(UserWarning, match="none of the 8 completions of step 1 was scored") as said:
        trainer, records = train(never, **changes)
    assert len([each for each in said if "was scored" in str(each.message)]) == 1, "once"
    for record in records:
        assert (record["unscored_share"], record["zero_std_share"], record["reward"]) == (1.0, 1.0, None)
        facts = record["sampled"]
        assert (facts["dead_unscored"], facts["dead_right"], facts["dead_wrong"]) == (1.0, 0.0, 0.0)
        # One row stays: a step without any would have no loss
        assert changes.get("beta") or (record["grpo_norm"] == 0.0 and record["trained_rows"] == 1 / 8)
    shares = [entry["frac_reward_zero_std"] for entry in trainer.state.log_history if "frac_reward_zero_std" in entry]
    assert set(shares) == {1.0}, "TRL's own metric, as trackers get it"


def test_a_group_without_a_score_is_dead_and_the_rest_is_trained_on(train):
    def of_some(completions, answer, **columns):
        scores = reward(completions, answer)
        return [None if each % 2 else score for score, each in zip(scores, answer, strict=True)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, records = train(of_some, max_steps=4)
    assert {record["unscored_share"] for record in records} & {0.5}, "nothing was mixed"
    for record in records:
        facts = record["sampled"]
        assert record["unscored_share"] == facts["dead_unscored"], "all of a group or none of it"
        assert record["zero_std_share"] == facts["dead_unscored"] + facts["dead_right"] + facts["dead_wrong"]
        assert (record["grpo_norm"] > 0.0) == (record["zero_std_share"] < 1.0)


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_a_none_is_left_out_of_the_mean_if_no_reward_scored_and_else_adds_nothing(train, tmp_path, several):
    """By hand, as docs/rewards.md has it, with one reward and with several that do not apply to the same ones."""

    def one(completions, **columns):
        return [None if place % 4 < 1 else 0.1 * len(set(text)) for place, text in enumerate(completions)]

    def two(completions, **columns):
        return [None if place % 4 < 2 else 0.5 for place, _ in enumerate(completions)]

    names = ["one", "two"] if several else ["one"]
    train(*[{"one": one, "two": two}[name] for name in names], scale_rewards="none", completions_every=1)
    rows = [row for file in sorted(tmp_path.glob("completions/step-*")) for row in read_completions(file)]
    for start in range(0, len(rows), 4):
        group = rows[start : start + 4]
        scores = [[row[f"reward/{name}"] for name in names] for row in group]
        assert [score.count(None) for score in scores] == ([2, 1, 0, 0] if several else [1, 0, 0, 0])
        sums = [sum(each or 0.0 for each in score) for score in scores]
        mean = sum(sums[1:]) / 3
        assert [row["advantage"] for row in group] == pytest.approx(
            [0.0, *(each - mean for each in sums[1:])], abs=1e-6
        )


def test_a_sound_reward_is_no_matter(train):
    _, records = train(reward)
    assert {record["unscored_share"] for record in records} == {0.0}
