"""Schedules without their arguments, found when a recipe is read; transformers says the same of each."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import get_scheduler
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from posttrain.errors import ConfigError
from posttrain.recipe.rates import OWN
from posttrain.recipe.recipe import load_recipe
from posttrain.recipe.schedules import TAKES, check_schedule
from posttrain.recipe.sections import Scheduler

GIVEN = {"optimizer", "last_epoch", "num_warmup_steps", "num_training_steps"}


def accepts(name: str, kwargs: Any, learning_rate: float) -> bool:
    """Whether transformers makes the schedule."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=learning_rate)
    try:
        get_scheduler(
            name, optimizer, num_warmup_steps=2, num_training_steps=20, scheduler_specific_kwargs=dict(kwargs or {})
        )
    except (TypeError, ValueError):
        return False
    return True


def test_the_table_is_transformers_own():
    assert set(TAKES) == set(get_args(Scheduler))
    for name, takes in TAKES.items():
        if name in OWN:
            continue
        function = TYPE_TO_SCHEDULER_FUNCTION[name]
        assert set(takes) == set(inspect.signature(function).parameters) - GIVEN, name


@pytest.mark.parametrize(
    ("name", "kwargs", "rate"),
    [
        ("warmup_stable_decay", None, 1e-5),
        ("warmup_stable_decay", {"num_decay_steps": 4, "decay_type": "steep"}, 1e-5),
        ("warmup_stable_decay", {"num_decays_steps": 4}, 1e-5),
        ("cosine_with_min_lr", None, 1e-5),
        ("cosine_with_min_lr", {"min_lr": 1e-6, "min_lr_rate": 0.1}, 1e-5),
        ("cosine_warmup_with_min_lr", {}, 1e-5),
        ("cosine_warmup_with_min_lr", {"warmup_lr_rate": 0.1}, 1e-5),
        ("polynomial", None, 1e-7),
        ("polynomial", {"lr_end": 1e-4}, 1e-5),
        ("linear", {"num_cycles": 1}, 1e-5),
        ("cosine", {"cycles": 1}, 1e-5),
    ],
)
def test_what_transformers_refuses_is_refused_before(name, kwargs, rate):
    assert not accepts(name, kwargs, rate)
    with pytest.raises(ConfigError) as caught:
        check_schedule(name, kwargs, learning_rate=rate, steps=20, warmup_steps=2)
    assert all((caught.value.seen, caught.value.expected, caught.value.where, caught.value.fix))


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("warmup_stable_decay", {"num_decay_steps": 18, "decay_type": "1-sqrt"}),
        ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
        ("cosine_warmup_with_min_lr", {"min_lr": 1e-6, "warmup_lr_rate": 0.1}),
        ("polynomial", {"lr_end": 0.0, "power": 2}),
        ("inverse_sqrt", {"timescale": 100}),
        ("cosine_with_restarts", {"num_cycles": 3}),
        *((name, None) for name in ("linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt")),
    ],
)
def test_what_transformers_takes_is_taken(name, kwargs):
    assert accepts(name, kwargs, 1e-5)
    check_schedule(name, kwargs, learning_rate=1e-5, steps=20, warmup_steps=0 if name == "constant" else 2)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("constant", {"num_cycles": 1}),  # which transformers pays no heed to
        ("warmup_stable_decay", {"num_decay_steps": 19}),  # of 20, of which 2 are gone
        ("warmup_stable_decay", {"num_decay_steps": 9, "num_stable_steps": 10}),
        ("cosine", {"num_cycles": "1"}),
        ("cosine", [1]),
    ],
)
def test_what_would_come_out_as_another_schedule_is_refused(name, kwargs):
    with pytest.raises(ConfigError):
        check_schedule(name, kwargs, learning_rate=1e-5, steps=20, warmup_steps=2)


@pytest.mark.parametrize("stage", ["warmup", "hybrid"])
def test_a_recipe_says_where(tmp_path, stage):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"model: m\ntask: knights_knaves\n{stage}:\n  lr_scheduler_type: warmup_stable_decay\n")
    with pytest.raises(ConfigError, match="num_decay_steps") as caught:
        load_recipe(recipe)
    assert str(caught.value.where).endswith(f"{Path(recipe).name}:4: {stage}.lr_scheduler_type")
    load_recipe(recipe, [f"{stage}.steps=0"])
    load_recipe(recipe, [f"{stage}.args={{lr_scheduler_kwargs: {{num_decay_steps: 10}}}}"])


@pytest.mark.parametrize("name", ["constant", "refined"])
def test_a_warmup_that_a_schedule_ignores_is_refused(name):
    kwargs = {"points": [1.0, 0.0]} if name == "refined" else None
    check_schedule(name, kwargs, learning_rate=1e-5, steps=20, warmup_steps=0)
    with pytest.raises(ConfigError, match=rf"{name} with warmup_steps 2(.|\n)*set warmup_steps: 0"):
        check_schedule(name, kwargs, learning_rate=1e-5, steps=20, warmup_steps=2)


def test_constant_takes_no_notice_of_a_warmup_in_transformers():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    rates = {
        name: get_scheduler(name, optimizer, num_warmup_steps=5, num_training_steps=10).get_last_lr()[0]
        for name in ("constant", "constant_with_warmup")
    }
    assert rates["constant"] > rates["constant_with_warmup"] == 0.0
