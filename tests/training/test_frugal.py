"""FRUGAL at its two ends against AdamW and sign descent, its columns, resuming, and what `plan` counts."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from posttrain.errors import ConfigError
from posttrain.recipe.optimizers import states_of
from posttrain.training.frugal import Frugal, frugal_of

STEPS = 7


def matrices(seed=0):
    torch.manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(6, 8)), torch.nn.Parameter(torch.randn(5))]


def moved(optimizer, parameters, steps=STEPS, begin=0):
    for step in range(begin, begin + steps):
        for place, p in enumerate(parameters):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + place))
        optimizer.step()
    return parameters


def test_all_columns_are_adamw():
    settings = {"lr": 0.01, "weight_decay": 0.1}
    ours, theirs = matrices(), matrices()
    moved(Frugal(ours, density=1.0, update_gap=1000, **settings), ours)
    moved(torch.optim.AdamW(theirs, **settings), theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_no_columns_are_sign_descent():
    ours, begun = matrices(), matrices()
    moved(Frugal(ours, lr=0.01, density=0.0, inactive_scale=1.0), ours, steps=1)
    torch.testing.assert_close(ours[0] - begun[0], -0.01 * ours[0].grad.sign())


def test_other_columns_after_each_period_with_moments_from_0():
    (p, _), begun = matrices(), matrices()[0]
    optimizer = Frugal([p], lr=0.01, density=0.25, update_gap=3, inactive_scale=0.0)
    moved(optimizer, [p], steps=1)
    first = (p != begun).any(dim=0)
    assert int(first.sum()) == 2  # a quarter of 8
    assert optimizer.state[p]["exp_avg"].shape == (6, 2)
    periods = {tuple(optimizer._kept(p, 0.25, 0, period).tolist()) for period in range(6)}
    assert len(periods) > 1
    moved(optimizer, [p], steps=3, begin=1)
    now = optimizer._kept(p, 0.25, 0, 1)
    torch.testing.assert_close(optimizer.state[p]["exp_avg"], 0.1 * p.grad[:, now])  # of one step


def test_a_resumed_optimizer_is_one_that_never_stopped():
    settings = {"lr": 0.01, "density": 0.5, "update_gap": 2}
    whole, cut = matrices(), matrices()
    moved(Frugal(whole, **settings), whole)
    stopped = Frugal(cut, **settings)
    moved(stopped, cut, steps=3)
    resumed = Frugal(cut, **settings)
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    moved(resumed, cut, steps=STEPS - 3, begin=3)
    assert all(torch.equal(a, b) for a, b in zip(whole, cut, strict=True))


@pytest.mark.parametrize("density", [0.25, 1.0])
def test_a_model_keeps_what_the_plan_says(tiny_model, density):
    args = SimpleNamespace(
        optim_args=f"density={density}", weight_decay=0.1, learning_rate=1e-3, adam_beta1=0.9, adam_beta2=0.999,
        adam_epsilon=1e-8, seed=0,
    )  # fmt: skip
    made, kwargs = frugal_of(args, tiny_model)
    optimizer = made(kwargs.pop("params"), **kwargs)
    for p in tiny_model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    kept = sum(
        value.numel() for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)
    )
    linear = sum(p.numel() for name, p in tiny_model.named_parameters() if "proj" in name)
    trained = sum(p.numel() for p in tiny_model.parameters())
    told = states_of({"optim": "frugal", "optim_args": args.optim_args}, trained=trained, linear=linear, hidden=1)
    assert kept == pytest.approx(told, rel=0.02)


def test_a_model_without_linear_layers_is_refused():
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=20, n_positions=16))
    args = SimpleNamespace(optim_args=None, weight_decay=0.0)
    with pytest.raises(ConfigError, match="no linear layer of the GPT2LMHeadModel"):
        frugal_of(args, model)
