"""Controllers: their formulas, their sequences, and that a decision is a pure function of a JSON state."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import TypeAdapter, ValidationError

from posttrain.controllers import (
    CONTROLLERS,
    GAC,
    SASR,
    Alternate,
    Chord,
    Cosine,
    GRPOOnly,
    SFTOnly,
    Signals,
    Static,
    Switch,
    replay,
)
from posttrain.controllers.base import draw
from posttrain.errors import ConfigError

ALL = [
    SASR(kl_target=0.05, refresh_every=3),
    SASR(mode="blend", match_norms=True, kl_target=0.05),
    Static(sft_share=0.3),
    Alternate(sft_steps=2, grpo_steps=3),
    Cosine(),
    SFTOnly(),
    GRPOOnly(),
    Switch(),
    Switch(at="flat", window=5),
    Chord(mu_decay_steps=30),
    Chord(tau=0.5),
    GAC(),
]


def label(controller):
    return f"{controller.name}-{getattr(controller, 'mode', 'step')}-{getattr(controller, 'adaptive', '')}"


def start(controller, *, seed=0, steps=100, g_warmup=1.0):
    return controller.start(total_steps=steps, seed=seed, g_warmup=g_warmup)


def signals_of(mix, step):
    """Made-up signals that vary from step to step and show only what the step computed."""
    sft = 1.0 + math.sin(step) / 2 if mix.sft or mix.measure_sft else None
    kl, reward = (0.02 * (step % 7), step / 50) if mix.grpo else (None, None)
    loss = 1.0 + math.exp(-step / 8) if mix.sft else None
    noise = (1.0 + step % 3, 2.0, 0.5) if mix.sft and mix.grpo else (None, None, None)
    return Signals(sft, None, kl, reward, loss, *noise)


def play(controller, state, steps):
    """Mixes, states before each step, and what each step showed."""
    mixes, states, shown = [], [state], []
    for step in range(steps):
        mixes.append(controller.decide(states[-1]))
        shown.append(signals_of(mixes[-1], step))
        states.append(controller.observe(states[-1], shown[-1]))
    return mixes, states, shown


# ---- SASR's formula ----


@pytest.mark.parametrize(("g_last", "gamma", "p"), [(1.0, 1.0, 0.5), (0.5, 1.0, 1 / 3), (2.0, 0.5, 0.8)])
def test_sasr_probability(g_last, gamma, p):
    controller = SASR(gamma=gamma)
    after_sft = controller.observe(start(controller), Signals(sft_norm=g_last))
    assert controller.decide(after_sft).p == pytest.approx(p, rel=1e-12)
    # The ratio counts, not the unit of the norms
    scaled = controller.observe(start(controller, g_warmup=250.0), Signals(sft_norm=250.0 * g_last))
    assert controller.decide(scaled).p == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.25, 1.0, 3.0])
def test_sasr_starts_at_one_over_one_plus_gamma(gamma):
    assert SASR(gamma=gamma).decide(start(SASR(gamma=gamma), g_warmup=7.3)).p == pytest.approx(1 / (1 + gamma))


def test_a_grpo_step_leaves_g_last_bit_identical():
    controller, odd = SASR(), 0.1 + 0.2
    state = controller.observe(start(controller), Signals(sft_norm=odd))
    after = controller.observe(state, Signals(grpo_norm=9.0, kl=0.3, reward=1.0))
    assert after["g_last"] == odd
    assert after["measured_at"] == state["measured_at"]
    assert (after["step"], after["kl"]) == (state["step"] + 1, 0.3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_norms_and_kl_that_are_not_finite_are_ignored(bad):
    controller = SASR(kl_target=0.1)
    state = controller.observe(start(controller), Signals(sft_norm=0.7, kl=0.2))
    assert controller.observe(state, Signals(sft_norm=bad, kl=bad)) == {**state, "step": state["step"] + 1}


def test_observing_does_not_change_the_state_it_was_given():
    state = start(SASR())
    before = json.dumps(state)
    SASR().observe(state, Signals(sft_norm=5.0, kl=1.0))
    assert json.dumps(state) == before


# ---- the draw ----


def test_draws_depend_on_seed_and_step_only():
    def draws(seed):
        return [draw({"seed": seed, "step": step}) for step in range(50)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert len(set(draws(1))) == 50
    assert draw({"seed": 1, "step": 7, "total_steps": 3, "g_last": 9.0}) == draws(1)[7]
    # (1, 23) and (12, 3) must not run into one another
    assert draw({"seed": 1, "step": 23}) != draw({"seed": 12, "step": 3})


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@pytest.mark.parametrize(
    "make", [lambda p: SASR(gamma=1 / p - 1), lambda p: Static(sft_share=p)], ids=["sasr", "static"]
)
def test_the_share_of_sft_steps_tends_to_p(make, p):
    controller, n = make(p), 4000
    state, taken = start(controller, seed=3), 0.0
    for _ in range(n):
        mix = controller.decide(state)
        assert (mix.sft, mix.grpo) in {(1.0, 0.0), (0.0, 1.0)}
        assert (mix.sft == 1.0) == (draw(state) < p)
        taken += mix.sft
        state = controller.observe(state, Signals())
    assert abs(taken / n - p) < 4 * math.sqrt(p * (1 - p) / n)


# ---- the KL guard ----


def guarded(p, kl, kappa=1.0):
    controller = SASR(gamma=1 / p - 1, kl_target=0.1, kappa=kappa)
    return controller.decide(controller.observe(start(controller), Signals(kl=kl))).p


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_the_guard_is_still_up_to_its_target_then_raises_p_to_at_most_the_ceiling(p):
    for kl in (None, 0.0, 0.09, 0.1):
        assert guarded(p, kl) == pytest.approx(p, rel=1e-12)
    above = [guarded(p, kl) for kl in (0.11, 0.15, 0.3, 1.0, 1e6)]
    assert above[0] > p
    assert above == sorted(above)
    assert above[-1] == 0.95
    assert guarded(p, 0.15, kappa=0.0) == pytest.approx(p)


def test_the_guard_moves_the_logit_by_kappa_times_the_excess():
    p = guarded(0.2, 0.15, kappa=2.0)
    assert math.log(p / (1 - p)) == pytest.approx(math.log(0.2 / 0.8) + 2.0 * (0.15 / 0.1 - 1))


def test_the_guard_never_lowers_a_p_that_the_norms_put_above_the_ceiling():
    assert guarded(0.97, 5.0) == pytest.approx(0.97)


# ---- refreshing ----


@pytest.mark.parametrize("every", [1, 4])
def test_a_stale_norm_is_measured_exactly_when_due_and_never_on_an_sft_step(every):
    controller = SASR(gamma=2.0, refresh_every=every)
    state, age, asked, sft = start(controller, seed=5), 0, 0, 0
    for _ in range(300):
        mix = controller.decide(state)
        assert mix.measure_sft == (mix.sft == 0.0 and age >= every)
        asked, sft = asked + mix.measure_sft, sft + (mix.sft > 0)
        age = 0 if mix.sft or mix.measure_sft else age + 1
        state = controller.observe(state, Signals(sft_norm=1.0) if age == 0 else Signals(grpo_norm=1.0))
    assert asked
    assert sft


def test_without_refresh_every_nothing_is_measured_aside():
    mixes, _, _ = play(SASR(gamma=50.0), start(SASR(), g_warmup=1.0), 200)
    assert sum(mix.sft == 0 for mix in mixes) > 150
    assert not any(mix.measure_sft for mix in mixes)


# ---- start ----


@pytest.mark.parametrize("norm", [None, 0.0, -1.0, math.nan, math.inf])
def test_sasr_needs_a_positive_finite_warmup_norm(norm):
    with pytest.raises(ConfigError, match="g_warmup by hand"):
        start(SASR(), g_warmup=norm)


def test_a_warmup_norm_by_hand_comes_before_the_measured_one():
    assert SASR(g_warmup=2.5).start(total_steps=1, seed=0)["g_warmup"] == 2.5
    assert start(SASR(g_warmup=2.5), g_warmup=9.0)["g_last"] == 2.5


# ---- all controllers ----


@pytest.mark.parametrize("controller", ALL, ids=label)
def test_the_state_is_json_and_the_same_json_gives_the_same_decisions(controller):
    mixes, states, shown = play(controller, start(controller, seed=11), 40)
    for mix, state, signals, after in zip(mixes, states, shown, states[1:], strict=False):
        copy = json.loads(json.dumps(state))
        assert controller.decide(copy) == mix
        assert controller.observe(copy, signals) == after


@pytest.mark.parametrize("controller", ALL, ids=label)
def test_mixes_are_shares_and_only_of_losses_that_the_controller_announced(controller):
    mixes, _, _ = play(controller, start(controller, seed=2), 100)
    for mix in mixes:
        assert mix.sft >= 0
        assert mix.grpo >= 0
        assert mix.sft + mix.grpo == pytest.approx(1.0)
        assert mix.reason
    assert (any(mix.sft > 0 for mix in mixes), any(mix.grpo > 0 for mix in mixes)) == controller.shares()


@pytest.mark.parametrize(
    ("controller", "shares"),
    [
        (Static(sft_share=0.0), (False, True)),
        (Static(sft_share=1.0), (True, False)),
        (Cosine(start_share=0.0, end_share=0.0), (False, True)),
        (Cosine(start_share=1.0, end_share=1.0), (True, False)),
    ],
)
def test_a_share_of_zero_or_one_rules_a_loss_out(controller, shares):
    assert controller.shares() == shares


@pytest.mark.parametrize("make", [SASR, Static, Cosine])
def test_blend_takes_both_losses_with_p_as_the_weight(make):
    controller = make(mode="blend", match_norms=True)
    mixes, _, _ = play(controller, start(controller, steps=9), 9)
    for mix in mixes:
        assert (mix.sft, mix.grpo) == (mix.p, 1.0 - mix.p)
        assert mix.match_norms == (0.0 < mix.p < 1.0)  # at either end there is nothing to match
    assert not any(mix.match_norms for mix in play(make(mode="blend"), start(controller), 9)[0])


@pytest.mark.parametrize(
    ("controller", "sequence"),
    [
        (Alternate(), "SGSGSGSG"),
        (Alternate(sft_steps=2, grpo_steps=1), "SSGSSGSS"),
        (Alternate(sft_steps=1, grpo_steps=3), "SGGGSGGG"),
        (SFTOnly(), "SSSSSSSS"),
        (GRPOOnly(), "GGGGGGGG"),
        (Static(sft_share=1.0), "SSSSSSSS"),
        (Static(sft_share=0.0), "GGGGGGGG"),
    ],
)
def test_sequences(controller, sequence):
    mixes, _, _ = play(controller, start(controller), len(sequence))
    expected = {"S": (1.0, 0.0), "G": (0.0, 1.0)}
    assert [(mix.sft, mix.grpo) for mix in mixes] == [expected[letter] for letter in sequence]


def test_cosine_goes_from_start_to_end_along_half_a_cosine():
    controller = Cosine(start_share=0.9, end_share=0.1, mode="blend")
    mixes, states, _ = play(controller, start(controller, steps=5), 5)
    quarter = 0.1 + 0.8 * (1 + math.sqrt(0.5)) / 2
    assert [mix.sft for mix in mixes] == pytest.approx([0.9, quarter, 0.5, 1.0 - quarter, 0.1])
    assert controller.decide(states[-1]).sft == pytest.approx(0.1)  # beyond the end it stays there
    assert controller.decide(start(controller, steps=1)).sft == pytest.approx(0.9)


# ---- replay ----


def test_replay_gives_the_recorded_decisions_and_other_ones_under_another_gamma():
    controller = SASR(gamma=1.0, kl_target=0.05, refresh_every=2)
    mixes, states, shown = play(controller, start(controller, seed=4), 60)
    records = [
        json.loads(json.dumps({"step": i + 1, "mix": {"sft": mix.sft}, "sft_norm": s.sft_norm, "kl": s.kl}))
        for i, (mix, s) in enumerate(zip(mixes, shown, strict=True))
    ]
    assert replay(controller, states[0], records) == mixes
    assert replay(controller, states[20], records[20:]) == mixes[20:]
    fewer = replay(SASR(gamma=4.0, kl_target=0.05, refresh_every=2), states[0], records)
    assert sum(mix.sft for mix in fewer) < sum(mix.sft for mix in mixes)


# ---- as part of a recipe ----


def test_every_name_in_the_registry_builds_its_own_controller():
    for name, kind in CONTROLLERS.items():
        assert TypeAdapter(kind).validate_python({"name": name}) == kind()
        assert kind().name == name


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (SASR, {"gama": 1.0}),
        (SASR, {"gamma": 0.0}),
        (SASR, {"kl_target": 0.0}),
        (SASR, {"kappa": -1.0}),
        (SASR, {"refresh_every": -1}),
        (SASR, {"g_warmup": 0.0}),
        (SASR, {"mode": "both"}),
        (SASR, {"name": "static"}),
        (Static, {"sft_share": 1.1}),
        (Static, {"sft_share": -0.1}),
        (Static, {"gamma": 1.0}),
        (Alternate, {"sft_steps": 0}),
        (Alternate, {"grpo_steps": 0}),
        (Alternate, {"mode": "blend"}),
        (Cosine, {"start_share": 2.0}),
        (Cosine, {"end_share": -1.0}),
        (Cosine, {"extra": 1}),
        (SFTOnly, {"sft_share": 1.0}),
        (GRPOOnly, {"sft_share": 0.0}),
        (Switch, {"tolerance": 0.0}),
        (Chord, {"mu_peak": 1.1}),
        (Chord, {"tau": 1.0}),
        (GAC, {"ema": 1.0}),
    ],
)
def test_unknown_keys_and_values_out_of_range_are_refused(kind, settings):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(settings)
    assert caught.value.errors()[0]["loc"] == tuple(settings)
