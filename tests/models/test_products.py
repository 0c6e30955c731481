"""Linear layers that multiply by oneDNN give what torch's own give, and let be what they are not for."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from posttrain.models import products

CONFIG = LlamaConfig(
    vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    attention_bias=True, initializer_range=0.3,
)  # fmt: skip


def layers(*, bias=True):
    torch.manual_seed(0)
    ours, theirs = nn.Linear(24, 40, bias=bias), nn.Linear(24, 40, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    products.install(ours)
    assert products.installed(ours)
    return ours, theirs


def gradients(layer, x, upstream):
    x = x.clone().requires_grad_()
    out = layer(x)
    (out * upstream).sum().backward()
    return [out.detach(), x.grad, *(each.grad for each in layer.parameters())]


@pytest.mark.parametrize("shape", [(64, 24), (3, 33, 24), (2, 24)], ids=["packed", "batch", "few rows"])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_linears(shape, bias):
    ours, theirs = layers(bias=bias)
    x, upstream = torch.randn(shape), torch.randn(*shape[:-1], 40)
    torch.testing.assert_close(gradients(ours, x, upstream), gradients(theirs, x, upstream), rtol=1e-5, atol=1e-5)


def test_a_gradient_that_is_one_number_everywhere():
    ours, theirs = layers()
    x = torch.randn(64, 24)
    for layer in (ours, theirs):
        layer(x).sum().backward()  # its gradient is expanded: all places are the same one
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-5, atol=1e-5)


def test_what_does_not_train_gets_no_gradient(monkeypatch):
    ours, theirs = layers()
    for layer in (ours, theirs):
        layer.weight.requires_grad_(False)
    x, upstream = torch.randn(64, 24), torch.randn(64, 40)
    found, expected = gradients(ours, x, upstream), gradients(theirs, x, upstream)
    assert found[2] is None
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[3], expected[3], rtol=1e-5, atol=1e-5)


def test_a_row_does_not_depend_on_how_many_there_are():
    weight, x = torch.randn(40, 24), torch.randn(70, 24)
    product = products.Product(weight, copied=True)
    whole = product(x)
    for rows in (1, 2, 3, 8, 17, 64):
        assert torch.equal(product(x[:rows].contiguous()), whole[:rows])


@pytest.mark.parametrize("what", ["double", "autocast", "few rows", "switched off", "strided"])
def test_it_lets_be_what_it_is_not_for(monkeypatch, what):
    ours, theirs = layers()
    monkeypatch.setattr(products, "ONEDNN", None if what == "switched off" else lambda *_: pytest.fail("multiplied"))
    x = torch.randn(4 if what == "few rows" else 64, 24)
    if what == "double":
        ours, theirs, x = ours.double(), theirs.double(), x.double()
    if what == "strided":
        x = torch.randn(24, 64).t()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=what == "autocast"):
        assert torch.equal(ours(x), theirs(x))


def test_what_somebody_has_replaced_stays():
    layer = nn.Linear(4, 4)
    layer.forward = lambda x: x
    products.install(layer)
    assert not products.installed(layer)

    class Own(nn.Linear):
        pass

    own = Own(4, 4)
    products.install(own)
    assert "forward" not in vars(own)


def test_copies_of_a_model_are_of_their_own_weights():
    ours, _ = layers()
    other = copy.deepcopy(ours)
    with torch.no_grad():
        other.weight.zero_()
    x = torch.randn(64, 24)
    assert torch.equal(other(x), other.bias.expand(64, 40))
    assert not torch.equal(ours(x), other(x))
    assert torch.equal(pickle.loads(pickle.dumps(ours))(x), ours(x))


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_models_gradients(adapted, checkpointing):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG)
    if adapted:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    model.train()
    ids, found = torch.randint(0, 60, (3, 40)), []
    for step in range(2):
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        found.append({name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None})
        if step == 0:
            products.install(model)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert found[0]
