"""The controllers of published methods: their numbers, and what they refuse."""

from __future__ import annotations

import math

import pytest
from pydantic import TypeAdapter, ValidationError

from posttrain.controllers import GAC, Chord, Signals, Switch
from posttrain.errors import ConfigError


def play(controller, losses=(), *, steps, rewards=()):
    """The mixes of a stage whose SFT steps show these losses, and whose GRPO halves these rewards."""
    state, mixes = controller.start(total_steps=steps, seed=0), []
    losses, rewards = iter(losses), iter(rewards)
    for _ in range(steps):
        mixes.append(controller.decide(state))
        loss = next(losses, None) if mixes[-1].sft else None
        reward = next(rewards, None) if mixes[-1].grpo else None
        state = controller.observe(state, Signals(sft_loss=loss, reward=reward))
    return mixes


# ---- switch ----


@pytest.mark.parametrize(("at", "sft"), [(3, 3), (0.25, 3), (0.5, 6), (0.01, 1), (11, 11)])
def test_it_switches_after_a_step_or_a_share_of_them(at, sft):
    mixes = play(Switch(at=at), steps=12)
    assert [(mix.sft, mix.grpo) for mix in mixes] == [(1.0, 0.0)] * sft + [(0.0, 1.0)] * (12 - sft)
    assert not Switch(at=at).adaptive


def test_a_loss_that_falls_is_not_flat_and_one_that_falls_too_little_is():
    controller = Switch(at="flat", window=2, tolerance=0.1)
    falling = [4.0, 4.0, 3.6, 3.5]  # 4.0 to 3.55: by more than a tenth
    mixes = play(controller, [*falling, 3.5, 3.45], steps=8)
    # 3.8 to 3.5 is by 7.9 %: flat after step 5
    assert [mix.sft for mix in mixes] == [1.0] * 5 + [0.0] * 3
    assert "mean 3.8, then 3.5" in mixes[-1].reason
    assert [mix.sft for mix in play(controller, [1.0, 1.0, 2.0, 2.0], steps=6)] == [1.0] * 4 + [0.0] * 2, "it rose"
    assert all(mix.sft for mix in play(controller, [0.8**step for step in range(9)], steps=9))


def test_a_loss_that_is_not_finite_is_passed_over():
    controller = Switch(at="flat", window=1, tolerance=0.1)
    assert [mix.sft for mix in play(controller, [4.0, math.nan, 3.0, math.inf, 3.0], steps=6)] == [1.0] * 5 + [0.0]


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"at": 0}, "at"), ({"at": -1}, "at"), ({"at": 1.0}, "at"), ({"at": 1.5}, "at"), ({"at": "falt"}, "at"),
        ({"at": True}, "at"), ({"at": 3, "window": 5}, "window"), ({"tolerance": 0.1}, "tolerance"),
    ],
)  # fmt: skip
def test_a_switch_that_means_nothing_is_refused(settings, where):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Switch).validate_python({"name": "switch", **settings})
    assert where in str(caught.value)


@pytest.mark.parametrize("controller", [Switch(at=12), Switch(at="flat", window=6)])
def test_a_stage_that_ends_before_the_switch_is_refused(controller):
    controller.check_stage(13)
    with pytest.raises(ConfigError, match="no switch before step 12, in a stage of 12 steps"):
        controller.check_stage(12)


# ---- chord ----


def test_the_papers_schedule():
    controller = Chord()
    assert [controller.mu(step) for step in (0, 50, 100, 200, 900)] == pytest.approx(
        [0.9, 0.775520, 0.475, 0.05, 0.05], abs=1e-6
    )
    mixes = play(controller, steps=201)
    assert (mixes[100].sft, mixes[100].grpo) == pytest.approx((0.475, 0.525))
    rising = Chord(mu_peak=0.8, mu_warmup_steps=4, mu_decay_steps=0)
    assert [mix.sft for mix in play(rising, steps=6)] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.05, 0.05])


def test_chord_phis_constant_and_the_ends_are_one_loss():
    assert {mix.sft for mix in play(Chord(mu_peak=0.1, mu_valley=0.1), steps=250)} == {0.1}
    assert play(Chord(mu_peak=1.0, mu_valley=0.0, mu_decay_steps=1), steps=2)[0].grpo == 0.0
    assert Chord(mu_peak=0.0, mu_valley=0.0).shares() == (False, True)
    assert Chord(mu_peak=1.0, mu_valley=1.0).shares() == (True, False)


def test_tau_leaves_sft_as_much_as_the_reward_lacks():
    mixes = play(Chord(tau=0.5), steps=5, rewards=[0.1, 0.6, -3.0, 0.5])
    assert [mix.sft for mix in mixes] == pytest.approx([0.5, 0.4, 0.0, 0.95, 0.0])
    assert mixes[2].grpo == 1.0
    with pytest.raises(ConfigError, match="tau or mu_valley"):
        Chord(tau=0.5, mu_valley=0.1)


# ---- gac ----

NOISE = Signals(advantage_variance=2.0, nll_variance=1.0, coefficient_gap=1.0)


def test_the_optimal_weight_and_the_cap():
    controller = GAC()
    state = controller.observe(controller.start(total_steps=100, seed=0), NOISE)
    assert controller.target(state) == pytest.approx(0.625)
    assert state["mu"] <= 0.51
    free = GAC(ema=0.0, blend_weight=1.0, cap=1.0)
    assert free.observe(free.start(total_steps=9, seed=0), NOISE)["mu"] == pytest.approx(0.625)


@pytest.mark.parametrize(("noise", "mu"), [(Signals(None, None, None, None, None, 1e9, 1.0, 1.0), 1.0),
                                           (Signals(None, None, None, None, None, 1.0, 1e9, 1.0), 0.0)])  # fmt: skip
def test_the_noisier_loss_has_no_weight(noise, mu):
    controller = GAC()
    target = controller.target(controller.observe(controller.start(total_steps=9, seed=0), noise))
    assert target == pytest.approx(mu, abs=1e-8)


@pytest.mark.parametrize(("prior", "noise", "rest"), [(0.85, (0.0, 1.0), 0.8416), (0.15, (1.0, 0.0), 0.1584)])
def test_as_released_it_is_the_priors_schedule(prior, noise, rest):
    """mu* is 0 or 1, the other way from the prior, and moves mu by a hundredth."""
    controller = GAC(mu_peak=prior, mu_valley=prior, mu_warmup_steps=0)
    state = controller.start(total_steps=3000, seed=0)
    for _ in range(3000):
        state = controller.observe(state, Signals(None, None, None, None, None, *noise, 0.0))
    assert state["mu"] == pytest.approx(rest, abs=1e-4)


def test_statistics_are_looked_at_now_and_then_and_passed_over_where_not_finite():
    controller = GAC(update_every=3, ema=0.5)
    state = controller.start(total_steps=9, seed=0)
    looked = []
    for value in (1.0, 9.0, 9.0, 3.0, 9.0, 9.0, math.nan, 5.0):
        state = controller.observe(state, Signals(None, None, None, None, None, value, 1.0, 1.0))
        looked.append((state["looked_at"], state["sigma_r2"]))
    assert looked == [(1, 1.0)] * 3 + [(4, 2.0)] * 4 + [(8, 3.5)]


def test_a_beginning_outside_of_the_bounds_is_refused():
    with pytest.raises(ConfigError, match="a weight between them"):
        GAC(init_mu=0.95)
