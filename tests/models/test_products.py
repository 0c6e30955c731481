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


@pytest.mark.parametrize("shape", [(64, 24), (3, 33, 24)])
def test_what_comes_out_can_be_added_to(shape):
    ours, theirs = layers()
    x, found = torch.randn(shape), []
    for layer in (ours, theirs):
        out = layer(x)
        out += 1.0
        out.square().mean().backward()
        found.append(layer.weight.grad)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


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
    weights, onednn = products.laid_out(weight, copied=True), products.available()
    whole = products.product(x, weights, onednn)
    for rows in (1, 2, 3, 8, 17, 64):
        assert torch.equal(products.product(x[:rows].contiguous(), weights, onednn), whole[:rows])


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
@pytest.mark.parametrize("checkpointing", [None, "reentrant", "not reentrant"])
def test_a_models_gradients(adapted, checkpointing):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG)
    if adapted:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing == "reentrant"})
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


def test_its_gradients_have_gradients():
    found = []
    for layer in layers():
        torch.manual_seed(1)
        x = torch.randn(64, 24, requires_grad=True)
        slope, of_weight = torch.autograd.grad(layer(x).pow(3).sum(), [x, layer.weight], create_graph=True)
        (slope.pow(2).sum() + of_weight.pow(2).mean()).backward()
        found.append([x.grad, *(each.grad for each in layer.parameters())])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-2)


def test_torchs_transforms_and_traces_are_linears():
    ours, theirs = layers()
    x = torch.randn(3, 64, 24)
    for transformed in (
        torch.func.vmap,
        lambda layer: torch.func.grad(lambda x: layer(x).sum()),
        lambda layer: lambda x: torch.func.jvp(layer, (x,), (x,))[1],
        lambda layer: torch.jit.trace(layer, x),
        lambda layer: torch.compile(layer, backend="eager", fullgraph=True),
    ):
        assert torch.equal(transformed(ours)(x), transformed(theirs)(x))


@pytest.mark.parametrize("shape", [(), (64, 23), (64, 0)])
def test_what_does_not_fit_is_said_as_linear_says_it(shape):
    for layer in layers():
        with pytest.raises(RuntimeError, match=r"mat1 and mat2|at least 1D"):
            layer(torch.zeros(shape))


@pytest.mark.parametrize(("rows", "width", "out"), [(0, 24, 40), (64, 0, 4), (64, 4, 0), (1, 1, 1), (64, 1, 1)])
def test_layers_and_batches_with_nothing_or_one_of_something(rows, width, out):
    ours, theirs = nn.Linear(width, out), nn.Linear(width, out)
    theirs.load_state_dict(ours.state_dict())
    products.install(ours)
    x, upstream = torch.randn(rows, width), torch.randn(rows, out)
    torch.testing.assert_close(gradients(ours, x, upstream), gradients(theirs, x, upstream), rtol=1e-5, atol=1e-5)
