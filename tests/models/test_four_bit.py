"""A base in 4 bits: what it computes, what trains on it, what is sent to engines and what a merge gives."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from posttrain.errors import ConfigError
from posttrain.models import bitsandbytes_package, merging
from posttrain.models.bitsandbytes_package import check_installed, is_new_enough
from posttrain.models.four_bit import adapters_kept, dequantised, is_four_bit
from posttrain.models.load import build_model, load_policy
from posttrain.models.policy_weights import check_weights, named_weights
from posttrain.packing.scores import supports

NF4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": False, "on_gpu": False}
LEVELS = 16
IDS = torch.tensor([[3, 50, 12, 7, 99, 5]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from posttrain.models.load import train_tokenizer
    from tests.conftest import TEXTS

    tokenizer = train_tokenizer(TEXTS, vocab_size=300)
    where = tmp_path_factory.mktemp("model")
    # Widths of 64: those that bitsandbytes repacks on a CPU with bfloat16 instructions
    build_model(tokenizer, hidden_size=64, layers=2, heads=2, max_position_embeddings=64).save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


def adapted(folder, four_bit=NF4, **options):
    lora = {"r": 3, "target_modules": "all-linear", "init_lora_weights": False} | options
    torch.manual_seed(1)
    return get_peft_model(load_policy(folder, four_bit=four_bit), LoraConfig(task_type="CAUSAL_LM", **lora))


def plain(folder, quantised):
    """The same policy with its 4-bit weights written out, of whole numbers and torch's own layers."""
    model = adapted(folder, None)
    with torch.no_grad():
        for (_, ours), (name, theirs) in zip(model.named_parameters(), quantised.named_parameters(), strict=True):
            assert ours.numel() == theirs.numel() or not theirs.is_floating_point(), name
            ours.copy_(dequantised(theirs) if not theirs.is_floating_point() else theirs)
    return model


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
def test_linear_layers_are_in_four_bits_and_near_what_they_were(folder, kind, nested):
    four_bit = NF4 | {"bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": nested}
    model, whole = load_policy(folder, four_bit=four_bit), load_policy(folder)
    assert is_four_bit(model)
    assert not is_four_bit(whole)
    assert {p.dtype for p in model.parameters()} == {torch.uint8, torch.float32}
    own = dict(whole.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            assert torch.equal(parameter, own[name])
            continue
        values = dequantised(parameter)
        blocks, were = values.view(-1, 64), own[name].view(-1, 64)
        assert max(len(block.unique()) for block in blocks) <= LEVELS
        assert (blocks - were).abs().max() < 0.25 * were.abs().max()  # half of the widest gap: 0.17
        assert (blocks - were).abs().max() > 0


def test_gradients_are_those_of_the_weights_written_out_after_an_evaluation_too(folder):
    model = adapted(folder)
    other = plain(folder, model)
    with torch.no_grad():
        before = model.eval()(input_ids=IDS).logits
    assert torch.allclose(before, other.eval()(input_ids=IDS).logits, atol=1e-5)
    for each in (model.train(), other.train()):
        each(input_ids=IDS, labels=IDS).loss.backward()
    theirs = dict(other.named_parameters())
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert any("layers.0" in name for name in trained)  # what lies below other layers in 4 bits
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        assert torch.allclose(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-6), name
    with torch.no_grad():
        assert torch.equal(model.eval()(input_ids=IDS).logits, before)


def test_what_engines_are_sent_is_the_policy(folder):
    model = adapted(folder)
    check_weights(model)
    sent = dict(named_weights(model))
    engine = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    engine.load_state_dict(sent, strict=False)
    assert set(dict(engine.named_parameters())) == set(sent)
    assert torch.allclose(engine(input_ids=IDS).logits, model.eval()(input_ids=IDS).logits, atol=1e-5)


@pytest.mark.parametrize("trainable", [True, False])
def test_an_adapter_comes_back_on_its_base_in_four_bits(folder, tmp_path, trainable):
    model = adapted(folder)
    model.save_pretrained(tmp_path)
    again = load_policy(tmp_path, four_bit=NF4, trainable=trainable)
    assert is_four_bit(again)
    assert torch.equal(again.eval()(input_ids=IDS).logits, model.eval()(input_ids=IDS).logits)
    assert {p.dtype for p in again.parameters() if p.requires_grad} == ({torch.float32} if trainable else set())


def test_a_merge_is_the_policy_that_trained_and_not_one_on_other_weights(folder, tmp_path):
    model = adapted(folder)
    model.save_pretrained(tmp_path / "adapter")
    (tmp_path / "merged").mkdir()
    assert "4 bits" in merging.merge(tmp_path / "adapter", tmp_path / "merged", four_bit=NF4)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not hasattr(merged.config, "quantization_config")
    assert {p.dtype for p in merged.parameters()} == {torch.float32}
    expected = model.eval()(input_ids=IDS).logits
    assert torch.allclose(merged(input_ids=IDS).logits, expected, atol=1e-5)
    other = load_policy(tmp_path / "adapter").eval()(input_ids=IDS).logits
    assert not torch.allclose(other, expected, atol=1e-2)


def test_a_merge_that_would_round_again_is_refused(folder, tmp_path):
    adapted(folder, use_dora=True).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ConfigError, match="held in 4 bits"):
        merging.merge(tmp_path / "adapter", tmp_path / "merged", four_bit=NF4)


def test_rows_are_packed_on_it(folder):
    assert supports(adapted(folder)) is None


def test_what_trains_keeps_its_numbers_where_a_trainer_rounds_them(folder):
    model = adapted(folder)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    layers = [each for each in model.modules() if hasattr(each, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = True  # as one loaded by transformers alone on such a CPU
    with adapters_kept(model):
        for p in model.parameters():
            if p.requires_grad:
                p.data = p.data.to(torch.bfloat16)
    for name, p in model.named_parameters():
        if name in before:
            assert torch.equal(p, before[name])
            assert p.dtype is torch.float32
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    whole = nn.Linear(2, 2)
    with adapters_kept(whole):
        whole.weight.data = whole.weight.data.to(torch.bfloat16)
    assert whole.weight.dtype is torch.bfloat16


@pytest.mark.parametrize("found", [None, "0.45.5"])
def test_without_the_package_the_error_says_what_to_install(folder, monkeypatch, found):
    monkeypatch.setattr(bitsandbytes_package, "_installed_version", lambda: found)
    with pytest.raises(ConfigError) as caught:
        load_policy(folder, four_bit=NF4)
    assert (found or "not installed") in caught.value.seen
    assert caught.value.where == "model.load_in_4bit"
    assert "[qlora]" in str(caught.value.fix)
    load_policy(folder)


def test_versions_are_compared_as_numbers():
    assert is_new_enough("0.50.2")
    assert is_new_enough("0.46.1")
    assert not is_new_enough("0.46.0")
    assert not is_new_enough("0.9")
    check_installed("here")
