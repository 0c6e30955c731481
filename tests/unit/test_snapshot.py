"""The snapshot: the old policy inside the block, the exact present one after it."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from posttrain.snapshot import PolicySnapshot

IDS = torch.tensor([[5, 9, 2, 40, 7]])


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def move(model):
    """A training step's worth of change to everything that trains."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p))


def with_adapter(model):
    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.5))


@pytest.fixture(params=["full", "lora"])
def policy(request, tiny_model):
    return (tiny_model if request.param == "full" else with_adapter(tiny_model)).eval()


@pytest.mark.parametrize("fails", [False, True])
def test_the_block_sees_the_old_policy_and_the_present_one_comes_back_bit_for_bit(policy, fails):
    old = logits(policy)
    snapshot = PolicySnapshot(policy)
    move(policy)
    new, values = logits(policy), {name: p.clone() for name, p in policy.state_dict().items()}
    assert not torch.allclose(old, new)
    storage = [p.data_ptr() for p in policy.parameters()]
    try:
        with snapshot.swapped_into(policy):
            assert torch.equal(logits(policy), old)
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert torch.equal(logits(policy), new)
    assert all(torch.equal(value, policy.state_dict()[name]) for name, value in values.items())
    assert [p.data_ptr() for p in policy.parameters()] == storage  # the optimizer and DDP hold on to these
    with snapshot.swapped_into(policy):  # and it was not used up
        assert torch.equal(logits(policy), old)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_the_block_runs_in_eval_mode_and_the_mode_comes_back(tiny_model, training, fails):
    model = with_adapter(tiny_model).train(training)
    try:
        with PolicySnapshot(model).swapped_into(model):
            assert not any(module.training for module in model.modules())
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert {module.training for module in model.modules()} == {training}


def test_the_mode_of_every_module_comes_back():
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2)).train()
    model[0].eval()  # a part that is kept in eval mode while the rest trains
    with PolicySnapshot(model).swapped_into(model):
        pass
    assert [module.training for module in model] == [False, True]


def test_gradients_and_optimizers_survive_a_swap(policy):
    snapshot = PolicySnapshot(policy)
    trainable = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.1)
    policy(input_ids=IDS, labels=IDS).loss.backward()
    gradients, before = [p.grad.clone() for p in trainable], [p.detach().clone() for p in trainable]
    with snapshot.swapped_into(policy):
        logits(policy)
    optimizer.step()
    for p, gradient, value in zip(trainable, gradients, before, strict=True):
        torch.testing.assert_close(p.detach(), value - 0.1 * gradient)


def test_only_what_trains_is_copied(tiny_model):
    model = with_adapter(tiny_model)
    snapshot = PolicySnapshot(model)
    frozen = next(p for name, p in model.named_parameters() if "lora" not in name)
    assert not frozen.requires_grad
    copied = sum(value.numel() for value in snapshot._values.values())
    assert 0 < copied == model.get_nb_trainable_parameters()[0] < model.get_nb_trainable_parameters()[1]
    before = snapshot.fingerprint()
    frozen.data.add_(1.0)
    assert PolicySnapshot(model).fingerprint() == before


def test_the_copy_does_not_move_with_the_policy_and_the_fingerprint_tells_values_apart(policy):
    snapshot = PolicySnapshot(policy)
    before = snapshot.fingerprint()
    assert PolicySnapshot(policy).fingerprint() == before
    p = next(p for p in policy.parameters() if p.requires_grad)
    with torch.no_grad():
        p.view(-1)[0] += 1e-3
    assert snapshot.fingerprint() == before
    assert PolicySnapshot(policy).fingerprint() != before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_parameter_can_be_fingerprinted(dtype):
    model = nn.Linear(3, 2, dtype=dtype)
    model.scale = nn.Parameter(torch.tensor(1.0, dtype=dtype))
    before = PolicySnapshot(model).fingerprint()
    model.scale.data.fill_(2.0)
    assert PolicySnapshot(model).fingerprint() != before
