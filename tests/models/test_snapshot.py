"""The snapshot: the old policy inside the block, the exact present one after it."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from posttrain.models.snapshot import PolicySnapshot, fingerprint, has_fresh_adapter

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


def with_adapter(model, **more):
    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.5, **more))


def warmed_up(model):
    """An adapter that has been trained."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn_like(p))
    return model


@pytest.fixture(params=["full", "fresh lora", "trained lora"])
def policy(request, tiny_model):
    if request.param == "full":
        return tiny_model.eval()
    model = with_adapter(tiny_model).eval()
    return model if request.param == "fresh lora" else warmed_up(model)


@pytest.fixture(params=[False, True], ids=["kept", "offloaded"])
def snapshot_of(request):
    return lambda model: PolicySnapshot(model, offload=request.param)


@pytest.mark.parametrize("fails", [False, True])
def test_the_block_sees_the_old_policy_and_the_present_one_comes_back_bit_for_bit(policy, snapshot_of, fails):
    old = logits(policy)
    snapshot = snapshot_of(policy)
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


def test_gradients_and_optimizers_survive_a_swap(policy, snapshot_of):
    snapshot = snapshot_of(policy)
    trainable = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.1)
    policy(input_ids=IDS, labels=IDS).loss.backward()
    gradients, before = [p.grad.clone() for p in trainable], [p.detach().clone() for p in trainable]
    with snapshot.swapped_into(policy):
        logits(policy)
    optimizer.step()
    for p, gradient, value in zip(trainable, gradients, before, strict=True):
        torch.testing.assert_close(p.detach(), value - 0.1 * gradient)


def copied(snapshot):
    return sum(value.numel() for value in snapshot._values.values())


def test_only_what_trains_is_copied_and_nothing_where_the_adapter_is_fresh(tiny_model):
    model = with_adapter(tiny_model)
    assert copied(PolicySnapshot(model)) == 0
    trained, every = model.get_nb_trainable_parameters()
    assert 0 < copied(PolicySnapshot(warmed_up(model))) == trained < every
    frozen = next(p for name, p in model.named_parameters() if "lora" not in name)
    assert not frozen.requires_grad
    before = fingerprint(model)
    frozen.data.add_(1.0)
    assert fingerprint(model) == before


def test_an_adapter_is_fresh_only_if_the_policy_is_its_base_model(tiny_model):
    assert not has_fresh_adapter(tiny_model)
    model = with_adapter(tiny_model)
    assert has_fresh_adapter(model)
    last = [p for name, p in model.named_parameters() if "lora_B" in name][-1]
    last.data.view(-1)[-1] = 1e-3
    assert not has_fresh_adapter(model)
    last.data.zero_()
    next(p for name, p in model.named_parameters() if name.endswith("norm.weight")).requires_grad_(True)
    assert not has_fresh_adapter(model), "what trains beside the adapter would be lost"


@pytest.mark.parametrize("more", [{"use_dora": True}, {"init_lora_weights": False}, {"modules_to_save": ["lm_head"]}])
def test_other_adapters_are_copied(tiny_model, more):
    assert not has_fresh_adapter(with_adapter(tiny_model, **more))


def test_an_offloaded_copy_changes_places_with_what_is_scored_and_no_memory_is_shared(tiny_model):
    snapshot = PolicySnapshot(tiny_model, offload=True)
    own = {p.data_ptr() for p in tiny_model.parameters()}
    assert not own & {value.data_ptr() for value in snapshot._values.values()}
    with snapshot.swapped_into(tiny_model):
        assert not own & {value.data_ptr() for value in snapshot._values.values()}


def test_the_fingerprint_tells_values_apart(policy):
    before = fingerprint(policy)
    assert fingerprint(policy) == before
    p = next(p for p in policy.parameters() if p.requires_grad)
    with torch.no_grad():
        p.view(-1)[0] += 1e-3
    assert fingerprint(policy) != before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_parameter_can_be_fingerprinted(dtype):
    model = nn.Linear(3, 2, dtype=dtype)
    model.scale = nn.Parameter(torch.tensor(1.0, dtype=dtype))
    before = fingerprint(model)
    model.scale.data.fill_(2.0)
    assert fingerprint(model) != before


def test_the_fingerprint_does_not_depend_on_the_dtype_that_holds_the_values():
    model = nn.Linear(3, 2, dtype=torch.bfloat16)
    before = fingerprint(model)
    assert fingerprint(model.float()) == before
