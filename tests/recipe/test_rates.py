"""Schedules of ours by the numbers of their formulas, against transformers' where the two meet, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import get_scheduler

from posttrain.errors import ConfigError
from posttrain.recipe.rates import OWN, cycle_ends, inverse_linear, power_law, rate_of
from posttrain.recipe.schedules import check_schedule

LEGAL = {
    "wsd_s": {"cycles": 2, "num_decay_steps": 10, "min_lr_ratio": 0.1},
    "infinite": {"num_cooldown_steps": 20, "num_anneal_steps": 20, "constant_lr_ratio": 0.5, "min_lr_ratio": 0.1},
    "power": {"num_stable_steps": 20, "num_decay_steps": 20, "min_lr_ratio": 0.05},
    "refined": {"points": [0.2, 1.0, 0.0]},
}


def rate(name, kwargs=None, *, steps=100, warmup_steps=0, learning_rate=1e-3):
    kwargs = LEGAL[name] if kwargs is None else kwargs
    told = {"learning_rate": learning_rate, "steps": steps, "warmup_steps": warmup_steps}
    check_schedule(name, kwargs, **told)
    return rate_of(name, kwargs, **told)


def test_wsd_s_decays_in_the_inverse_and_goes_on_at_the_full_rate():
    assert inverse_linear(0.5, 0.1) == pytest.approx(0.181818, abs=1e-6)
    at = rate("wsd_s", warmup_steps=10)
    assert [at(0), at(5), at(10), at(40)] == [0.0, 0.5, 1.0, 1.0]
    assert at(45) == pytest.approx(0.181818, abs=1e-6)
    assert at(50) == 1.0  # the second cycle, without a rise
    assert at(95) == at(45)
    assert at(100) == 0.1
    assert at(99.999) == pytest.approx(0.1, rel=1e-3)
    assert cycle_ends([30, 70], 100) == (30, 70, 100) == cycle_ends([30, 70, 100], 100)
    assert cycle_ends(3, 100) == (33, 67, 100)


def test_infinite_has_no_jump_and_anneals_by_factors():
    at = rate("infinite", warmup_steps=10)
    for place in (10, 30, 80):
        assert at(place - 1e-7) == pytest.approx(at(place + 1e-7), abs=1e-6)
    assert [at(10), at(30), at(55), at(80)] == [1.0, 0.5, 0.5, 0.5]
    assert at(20) == pytest.approx(0.75)  # half of a cosine from 1 to a half
    assert at(90) == pytest.approx(math.sqrt(0.5 * 0.1))
    assert at(100) == pytest.approx(0.1)
    longer = rate("infinite", steps=1000, warmup_steps=10)
    assert [longer(step) for step in range(81)] == [at(step) for step in range(81)]


def test_power_halves_over_four_times_the_tokens():
    law = {"a": 4.0, "b": -0.5, "batch_size": 8, "cap": 1e9}
    assert power_law(4096, **law) == pytest.approx(power_law(1024, **law) / 2)
    assert power_law(4096, **law) == 8 * 4.0 / 64
    assert power_law(1024, **{**law, "cap": 0.25}) == 0.25
    by_tokens = rate("power", {"batch_size": 8, "tokens_per_step": 256, "b": -0.5}, learning_rate=1.0)
    assert by_tokens(1) == 1.0  # 32 / 16, capped
    assert by_tokens(16) == 32 / 64
    at = rate("power", warmup_steps=5)
    assert [at(0), at(20)] == [0.0, 1.0]
    assert at(80) == pytest.approx(4**-0.51)
    assert at(90) == pytest.approx(math.sqrt(4**-0.51 * 0.05))
    assert at(100) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("power", {"num_stable_steps": 5}), ("infinite", {"num_cooldown_steps": 0}), *LEGAL.items()][:-1],
)
def test_a_rise_ends_where_the_schedule_is_by_then(name, kwargs):
    at = rate(name, kwargs, warmup_steps=20)
    assert at(0) == 0.0
    assert at(20 - 1e-7) == pytest.approx(at(20), abs=1e-6)
    assert at(10) == pytest.approx(at(20) / 2)


def test_the_refined_curve_of_even_norms_is_transformers_linear():
    at = rate("refined", {"points": [1.0, 2 / 3, 1 / 3, 0.0]}, steps=60)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    (linear,) = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=60).lr_lambdas
    assert [at(step) for step in range(61)] == pytest.approx([linear(step) for step in range(61)])
    assert rate("refined")(25) == pytest.approx(0.6)


@pytest.mark.parametrize("name", OWN)
def test_a_clock_between_steps_and_at_the_end_is_fine(name):
    at = rate(name)
    assert all(0.0 <= at(step / 7) <= 1.0 for step in range(0, 701))


DECAYED = [("wsd_s", "num_decay_steps"), ("infinite", "num_anneal_steps"), ("power", "num_decay_steps")]


@pytest.mark.parametrize(("name", "key"), DECAYED)
def test_a_decay_of_one_step_would_change_no_steps_rate_and_one_of_two_does(name, key):
    given = {**LEGAL[name], key: 1e-9} | ({"cycles": 1} if name == "wsd_s" else {})
    without, one, two = (
        [rate_of(name, given | {key: many}, learning_rate=1e-5, steps=100, warmup_steps=0)(step) for step in range(100)]
        for many in (1e-9, 1, 2)
    )
    assert one == without
    assert two[:-1] == without[:-1]
    assert two[-1] < without[-1]


@pytest.mark.parametrize(
    ("name", "kwargs", "seen"),
    [
        ("wsd_s", {}, "no num_decay_steps"),
        ("wsd_s", {"cycles": 4, "num_decay_steps": 30}, "num_decay_steps 30"),
        ("wsd_s", {"cycles": [40, 400], "num_decay_steps": 3}, "cycles"),
        ("wsd_s", {"num_decay_steps": 3, "min_lr_ratio": 0.0}, "min_lr_ratio 0"),
        ("wsd_s", {"num_decay_steps": True}, "num_decay_steps True"),
        ("wsd_s", {"num_decay_steps": 1}, "a single step has no effect"),
        ("wsd_s", {"num_decay_steps": 1, "cycles": 100}, "a single step has no effect"),
        ("infinite", {"num_cooldown_steps": 6, "num_anneal_steps": 1}, "a single step has no effect"),
        ("power", {"num_stable_steps": 20, "num_decay_steps": 1}, "a single step has no effect"),
        ("warmup_stable_decay", {"num_decay_steps": 1}, "a single step has no effect"),
        ("wsd_s", {"decay": 3}, "takes no decay"),
        ("infinite", {}, "no num_cooldown_steps"),
        ("infinite", {"num_cooldown_steps": 60, "num_anneal_steps": 50}, "num_anneal_steps 50"),
        ("infinite", {"num_cooldown_steps": math.nan}, "num_cooldown_steps nan"),
        ("infinite", {"num_cooldown_steps": 6, "num_anneal_steps": math.nan}, "num_anneal_steps nan"),
        ("infinite", {"num_cooldown_steps": 6, "constant_lr_ratio": 0.05}, "constant_lr_ratio 0.05"),
        ("infinite", {"num_cooldown_steps": 6, "min_lr_ratio": 0.05}, "nothing falls to it"),
        ("power", {}, "without arguments"),
        ("power", {"batch_size": 8}, "with batch_size"),
        ("power", {"num_stable_steps": 20, "a": 4.0}, "a and num_stable_steps"),
        ("power", {"num_stable_steps": 100}, "the rate would be constant"),
        ("power", {"batch_size": 8, "tokens_per_step": 1000}, "the rate would be constant"),
        ("power", {"num_stable_steps": 20, "b": 0.5}, "b 0.5"),
        ("power", {"num_stable_steps": 20, "num_decay_steps": 200}, "num_decay_steps 200"),
        ("power", {"num_stable_steps": 20, "min_lr_ratio": 0.2}, "nothing falls to it"),
        ("power", {"num_stable_steps": 20, "num_decay_steps": 20, "min_lr_ratio": 0.9}, "before the decay"),
        ("refined", {}, "without points"),
        ("refined", {"points": [1.0]}, "points"),
        ("refined", {"points": [1.0, 1.5]}, "points"),
    ],
)
def test_arguments_that_come_to_nothing_are_refused(name, kwargs, seen):
    with pytest.raises(ConfigError) as caught:
        check_schedule(name, kwargs, learning_rate=1e-5, steps=100, warmup_steps=0)
    assert seen in caught.value.seen
    assert caught.value.fix
