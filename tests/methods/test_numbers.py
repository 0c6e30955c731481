"""Decisions and token losses of methods against numbers worked out from the papers and the authors' code."""

from __future__ import annotations

import math
import random

import pytest
import torch

from posttrain.errors import ConfigError
from posttrain.methods import HPT, LUFFY, METHODS, RLSD, SRFT, UFT, Escalate, PrefixRFT, ReLIFT
from posttrain.methods.base import Group, together


def group(solved: int, of: int = 8, demonstration: float | None = 1.0) -> Group:
    rewards = (1.0,) * solved + (0.0,) * (of - solved)
    mean = solved / of
    return Group(rewards, tuple(reward - mean for reward in rewards), demonstration)


@pytest.mark.parametrize(
    ("gate", "solved", "credit", "alone"),
    [
        (0, 0, 0.5, True),
        (0, 1, 0.0, False),
        (0, 8, 0.0, False),
        (2, 1, 0.5, True),
        (2, 2, 0.5, True),
        (2, 3, 0.0, False),
    ],
)
def test_hpt_gates_by_the_number_of_solved_rollouts(gate, solved, credit, alone):
    arranged = HPT(gate=gate, coefficient=0.5).arrange(group(solved))
    assert arranged.credit == credit
    assert (not any(arranged.advantages)) == (alone or solved == 8)
    assert HPT(gate=8).arrange(group(solved, demonstration=None)).advantages == group(solved).advantages


@pytest.mark.parametrize(("solved", "demonstration", "waits"), [(0, 1.0, True), (1, 1.0, False), (0, None, False)])
def test_relift_has_the_demonstration_of_a_failed_group_wait_and_leaves_grpo_as_it_is(solved, demonstration, waits):
    seen = group(solved, demonstration=demonstration)
    arranged = ReLIFT().arrange(seen)
    assert (arranged.waits, arranged.credit, arranged.advantages) == (waits, 0.0, seen.advantages)
    assert ReLIFT().buffer == 128


def test_what_was_not_scored_is_not_solved():
    nan = float("nan")
    assert HPT().arrange(Group((nan, nan), (0.0, 0.0), nan)).credit == 1.0
    assert LUFFY().arrange(Group((0.0, 1.0), (-1.0, 1.0), nan)).credit == 0.0
    own, credit = together((nan, 0.0, 1.0), 1.0, normalise=False)
    assert own == (0.0, pytest.approx(-2 / 3), pytest.approx(1 / 3))
    assert credit == pytest.approx(1 / 3)


def test_luffys_demonstration_is_a_member_of_the_group():
    arranged = LUFFY().arrange(group(0, of=7))
    assert arranged.credit == 0.875
    assert set(arranged.advantages) == {-0.125}
    assert LUFFY().arrange(group(7, of=7)).credit == 0.0
    normalised = LUFFY(normalise=True).arrange(group(0, of=7))
    assert normalised.credit == pytest.approx(0.875 / (math.sqrt(0.125) + 1e-4))


def slope(method: LUFFY | HPT | Escalate, p: float) -> tuple[float, float]:
    """The loss of a token of probability p under the credit 1, and its derivative by log p."""
    logp = torch.tensor([[math.log(p)]], requires_grad=True)
    loss = method.token_loss(logp, torch.ones(1, 1))
    loss.sum().backward()
    return loss.item(), logp.grad.item()


def test_token_losses():
    assert slope(LUFFY(), 0.2) == (pytest.approx(-0.66667, abs=1e-5), pytest.approx(-0.22222, abs=1e-5))
    assert slope(LUFFY(ratio="rl_plus"), 0.2)[1] == pytest.approx(-0.447214, abs=1e-6)
    assert slope(LUFFY(ratio="rl_plus"), 0.5)[1] == pytest.approx(-0.565685, abs=1e-6)
    assert slope(HPT(), 0.2) == (pytest.approx(-math.log(0.2)), pytest.approx(-1.0))


def test_of_a_beginning_the_least_sure_tokens_keep_their_advantage():
    entropies = torch.tensor([[1.0, 10.0, 2.0, 3.0, 4.0, 9.0, 5.0, 6.0, 7.0, 8.0, 99.0, 0.0]])
    prefix = torch.tensor([[True] * 10 + [False] * 2])
    kept = PrefixRFT().advantages_by_token(torch.tensor([[2.0]]), entropies, prefix)
    assert kept.tolist() == [[0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 2, 2]]


def test_prefix_rft_begins_with_nearly_all_of_it_and_leaves_a_token_to_sample():
    method = PrefixRFT()
    lengths = [
        method.prefix_length(7, rows=8, tokens=100, done=done, draw=random.Random(seed))
        for done in (0.0, 1.0)
        for seed in range(200)
    ]
    assert set(lengths[:200]) == {95}
    assert min(lengths[200:]) < 12
    assert max(lengths[200:]) > 88
    assert max(lengths) <= 95
    assert method.prefix_length(6, rows=8, tokens=100, done=0.0, draw=random.Random(0)) == 0
    assert PrefixRFT(longest=1.0, shortest=1.0).prefix_length(0, rows=1, tokens=4, done=0.0, draw=random.Random(0)) == 3


def test_ufts_hints_grow_shorter():
    method = UFT(hinted=0.6)
    assert [method.share(step / 500) for step in (0, 150, 299.999, 300)] == [
        0.95, pytest.approx(0.5), pytest.approx(0.05, abs=1e-5), 0.0,
    ]  # fmt: skip
    shown = [method.prefix_length(0, rows=4, tokens=50, done=0.3, draw=random.Random(seed)) for seed in range(400)]
    assert set(shown) == {0, 10, 20, 30, 40, 49}
    assert sum(shown) / len(shown) == pytest.approx(25, abs=2)


@pytest.mark.parametrize(("advantage", "delta", "expected"), [(1, 0.5, 1.1), (-1, 0.5, -0.9), (1, 0.1, 1.0525854590)])
def test_rlsd_weighs_a_token_by_the_teacher(advantage, delta, expected):
    advantages, deltas = torch.tensor([[float(advantage)]]), torch.tensor([[delta]], requires_grad=True)
    method = RLSD()
    weights = method.teacher_weights(advantages, deltas, 0.5)
    assert (advantages * weights).item() == pytest.approx(expected, abs=1e-6)
    assert method.teacher_weights(advantages, deltas, 0.0).item() == 1.0
    assert [method.teacher_share(step) for step in (0, 25, 50, 500)] == [0.5, 0.25, 0.0, 0.0]
    assert RLSD(fades_in=None).teacher_share(500) == 0.5
    assert method.arrange(group(3)).advantages == group(3).advantages
    assert method.arrange(group(3)).credit == 0.0


def test_a_teacher_without_a_say_is_refused():
    with pytest.raises(ConfigError, match="share is 0 and teacher_kl is 0"):
        RLSD(share=0.0)
    with pytest.raises(ConfigError, match=r"\{demonstration\} 0 times"):
        RLSD(context="{prompt}")
    with pytest.raises(ConfigError, match="all 0, so that nothing is learned"):
        SRFT(sft=0.0, demonstrated=0.0, right=0.0, wrong=0.0)


def test_srft_weighs_by_entropy_without_a_gradient():
    method, entropy = SRFT(), torch.full((3, 1), 0.5)
    assert method.nll_weights(entropy).flatten().tolist() == [pytest.approx(0.303265, abs=1e-6)] * 3
    weighed = method.advantages_by_entropy(torch.tensor([[method.right], [-1.0], [0.0]]), entropy)
    assert weighed.flatten().tolist() == [pytest.approx(0.164872, abs=1e-6), -1.0, 0.0]
    p = torch.tensor([[math.log(0.2)]], requires_grad=True)
    method.token_loss(p, torch.full((1, 1), 2.0)).sum().backward()
    assert p.grad.item() == pytest.approx(-0.4)


def test_srfts_members():
    arranged = SRFT().arrange(group(0, of=7))
    assert set(arranged.advantages) == {-1.0}
    assert arranged.credit == pytest.approx(0.875 / (math.sqrt(0.125) + 1e-4))
    assert arranged.nll == 1.0
    solved = SRFT().arrange(group(7, of=7))
    assert (set(solved.advantages), solved.credit, solved.nll) == ({0.1}, 0.0, 1.0)
    nan = float("nan")
    unscored = SRFT().arrange(Group((nan, 1.0), (0.0, 0.0), nan))
    assert (unscored.advantages, unscored.credit, unscored.nll) == ((0.0, 0.1), 0.0, 1.0)
    assert SRFT().arrange(group(1, of=2, demonstration=None)).nll == 0.0


def test_a_sum_of_rewards_that_rounds_down_is_solved():
    total = sum(torch.tensor([0.45, 0.35, 0.2])).item()
    assert total < 1.0
    assert HPT().arrange(Group((total,) * 4, (0.0,) * 4, 1.0)).credit == 0.0
    assert SRFT().arrange(Group((total, 0.0), (0.0,) * 2, None)).advantages == (SRFT().right, -1.0)


@pytest.mark.parametrize(("normalise", "high"), [(False, 0.5), (True, 0.5 / (math.sqrt(0.5) + 1e-4))])
def test_luffys_groups_without_a_demonstration_are_scaled_as_the_others(normalise, high):
    arranged = LUFFY(normalise=normalise).arrange(Group((0.0, 1.0), (-9.0, 9.0), None))
    assert arranged.advantages == pytest.approx((-high, high))
    assert LUFFY().arrange(Group((math.nan,) * 2, (0.0,) * 2, None)).advantages == (0.0, 0.0)


def test_trapos_token_loss_is_the_likelihoods_from_alpha_on():
    assert slope(Escalate(), 0.05) == (pytest.approx(-0.5), pytest.approx(-0.5))
    assert [slope(Escalate(), p)[1] for p in (0.1, 0.5, 1.0)] == pytest.approx([-1.0] * 3)


@pytest.mark.parametrize(
    ("successes", "levels"), [((1, 2, 1), (0, 1, 2, 3)), ((4, 2, 1), (0, 0, 0, 0)), ((3, 0, 1), (0, 0, 2, 3))]
)
def test_trapos_levels(successes, levels):
    method, rewards, found = Escalate(), [], []
    for number, size in enumerate((4, 2, 1, 1)):
        block = method.next_block(number, tuple(rewards + [float("nan")] * (8 - len(rewards))))
        assert list(block.rows) == list(range(len(rewards), len(rewards) + size))
        assert block.trained == (block.rows[-1] if block.level else None)
        assert block.share == (0.0, 0.25, 0.5, 1.0)[block.level]
        found.append(block.level)
        count = successes[number] if number < 3 else 0
        rewards += [1.0] * count + [0.0] * (size - count)
    assert tuple(found) == levels
    assert method.next_block(4, tuple(rewards)) is None


def test_ghpo_samples_dead_groups_again_and_no_others():
    method, dead, alive = Escalate(form="ghpo"), (0.0,) * 6, (0.0,) * 5 + (1.0,)
    assert [method.next_block(number, dead).share for number in range(4)] == [0.0, 0.25, 0.5, 0.75]
    assert method.next_block(3, dead).rows == range(6)
    assert method.next_block(4, dead) is None
    assert method.next_block(1, alive) is None
    assert method.next_block(1, (float("nan"),) * 6).level == 1  # what was not scored is not solved
    assert method.prefix_credit == 0.0
    assert "too few" in method.arrange(Group(dead, dead, 1.0, level=3)).reason
    assert "enough" in method.arrange(Group(alive, alive, 1.0, level=3)).reason


def test_a_beginning_has_a_token_at_least_and_leaves_one_to_sample():
    shares = [Escalate().next_block(number, (0.0,) * 8) for number in range(4)]
    assert [[block.beginning(tokens) for block in shares] for tokens in (2, 3, 40)] == [
        [0, 1, 1, 1], [0, 1, 1, 2], [0, 10, 20, 39],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"blocks": (4, 4)}, "blocks"),
        ({"blocks": (4, 2, 2, 0)}, "blocks"),
        ({"below": (2, 4)}, "below"),
        ({"below": (0, 4, 7)}, "below"),
        ({"below": (5, 6, 7)}, "below"),  # of 4 rollouts
        ({"shares": (0.5, 0.25, 1.0)}, "shares"),
        ({"shares": (0.25, 0.5, 1.5)}, "shares"),
        ({"form": "ghpo", "alpha": 0.2}, "alpha"),
        ({"form": "ghpo", "credit": 0.0}, "credit"),
        ({"form": "ghpo", "blocks": (4, 4)}, "blocks"),
        ({"form": "ghpo", "below": (1,)}, "below"),
    ],
)
def test_settings_of_escalation_that_do_not_go(settings, where):
    with pytest.raises(ConfigError) as caught:
        Escalate(**settings)
    assert caught.value.where == where


@pytest.mark.parametrize("rows", [2, 3, 4, 6, 8, 16])
def test_escalation_scales_to_any_group(rows):
    method = Escalate().scaled_to(rows)
    method.check_group(rows)
    assert sum(method.sizes) == rows
    assert (method == Escalate()) == (rows == 8)
    again = Escalate(form="ghpo", below=(1, 2, 3)).scaled_to(rows)
    again.check_group(rows)
    for wrong in (method, Escalate(form="ghpo", below=(1, 2, rows + 2))):
        with pytest.raises(ConfigError):
            wrong.check_group(rows + 1)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_called_what_a_recipe_calls_it(name):
    assert METHODS[name]().name == name
