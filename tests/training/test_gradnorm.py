"""Gradient norms and combinations against hand computation and autograd."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from posttrain.training.gradnorm import add_gradients, reduced_now, take_gradients, total_norm


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def losses(network):
    x = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(2, 5)
    y = network(x)
    return y.square().sum(), (y**3).sum()


def test_total_norm_is_the_norm_clipping_reports(network):
    losses(network)[0].backward()
    norm = total_norm(network.parameters())
    flat = torch.cat([p.grad.flatten() for p in network.parameters()])
    assert norm == pytest.approx(flat.norm().item(), rel=1e-12)
    assert norm == pytest.approx(nn.utils.clip_grad_norm_(network.parameters(), 1e-3).item(), rel=1e-12)


def test_missing_gradients_do_not_count_but_one_must_be_there():
    """A norm of 0 would tell the controller that there is nothing left to learn."""
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match="no parameter has a gradient"):
        total_norm([a, b])
    a.grad = torch.tensor([3.0, 4.0])
    assert total_norm(iter([a, b])) == 5.0


def test_taking_leaves_none_behind(network):
    losses(network)[0].backward()
    before = [p.grad.clone() for p in network.parameters()]
    taken = take_gradients(network.parameters())
    assert all(p.grad is None for p in network.parameters())
    assert all(a is not None and torch.equal(a, b) for a, b in zip(taken, before, strict=True))


def test_two_losses_measured_apart_and_put_together_are_the_gradient_of_the_weighted_sum(network):
    first, second = losses(network)
    (0.3 * first + 0.7 * second).backward()
    expected = take_gradients(network.parameters())
    losses(network)[0].backward()
    aside = take_gradients(network.parameters())
    losses(network)[1].backward()
    add_gradients(network.parameters(), aside, scale=0.7, other_scale=0.3)
    for p, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient)


def test_a_missing_gradient_counts_as_zero():
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(4)]
    for p, own in zip(parameters, (1.0, 2.0, None, None), strict=True):
        p.grad = None if own is None else torch.tensor([own])
    other = [torch.tensor([10.0]), None, torch.tensor([30.0]), None]
    add_gradients(iter(parameters), other, scale=0.5, other_scale=2.0)
    assert [None if p.grad is None else p.grad.item() for p in parameters] == [20.5, 1.0, 60.0, None]


def test_gradients_of_other_parameters_are_refused():
    p = nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match="shorter"):
        add_gradients([p], [], scale=1.0, other_scale=1.0)


def test_reduced_now_switches_syncing_on_for_the_block_only(network):
    network.require_backward_grad_sync = False  # as DDP's no_sync leaves it
    try:
        with reduced_now(network):
            assert network.require_backward_grad_sync
            raise KeyError
    except KeyError:
        pass
    assert not network.require_backward_grad_sync
    with reduced_now(plain := nn.Linear(1, 1)):
        assert not hasattr(plain, "require_backward_grad_sync")
