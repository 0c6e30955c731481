"""The fused pass gives a Llama's logits, and is made of nothing else."""

from __future__ import annotations

import functools
import inspect
from unittest import mock

import pytest
import torch
from peft import LNTuningConfig, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from posttrain.models import products
from posttrain.models.inference import inference
from posttrain.packing import scores
from posttrain.rollouts import fused as module
from posttrain.rollouts import llama_pass
from posttrain.rollouts.fused import fused
from posttrain.rollouts.lane_cache import LaneCache
from posttrain.rollouts.row_buffers import Layout, RowBuffers
from posttrain.rollouts.sampling import Sampling
from tests.rollouts.test_decode import COMMON, CONFIGS, SHAPE, build, ours, prompts
from tests.rollouts.test_drafted import Prophet, drafted, passes_of


def read(model, ids, wanted=None):
    """Logits of a prompt by the fused pass."""
    config, count = model.config, len(ids)
    buffers = [RowBuffers(1, count, 1, torch.float32) for _ in range(config.num_hidden_layers)]
    layout = Layout(torch.arange(count), torch.arange(count), count, None, [(0, count)])
    return fused(model).logits(ids, layout, buffers, wanted)


def multiply(monkeypatch, how):
    llama_pass.in_one_call()  # compiled with all that there is
    if how == "as they are":
        monkeypatch.setattr(module, "COPIED", 0)
    if how == "without oneDNN":
        monkeypatch.setattr(products, "ONEDNN", None)


SHAPES = [{}, {"num_key_value_heads": 2}, {"num_key_value_heads": 1, "head_dim": 16}, {"tie_word_embeddings": True}]


@pytest.mark.parametrize("more", SHAPES)
@pytest.mark.parametrize("how", ["copied", "as they are", "without oneDNN"])
def test_logits_are_those_of_transformers(monkeypatch, more, how):
    multiply(monkeypatch, how)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**{**SHAPE, **COMMON, **more})).eval()
    for layer in model.model.layers:
        torch.nn.init.uniform_(layer.input_layernorm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(layer.post_attention_layernorm.weight, 0.5, 1.5)
    ids, wanted = torch.randint(2, 60, (17,)), torch.tensor([3, 16])
    with torch.no_grad():
        expected = model(ids[None]).logits[0]
        found = read(model, ids)
        some = read(model, ids, wanted)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(some, expected[wanted], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", ["copied", "as they are", "without oneDNN"])
@pytest.mark.parametrize("more", SHAPES)
def test_one_call_gives_the_bits_of_many(monkeypatch, more, how):
    multiply(monkeypatch, how)
    model = build(LlamaConfig(**{**SHAPE, **COMMON, **more})).float()
    rows, found = prompts(), []
    for call in (llama_pass.in_one_call(), llama_pass.logits):
        monkeypatch.setattr(module, "in_one_call", lambda call=call: call)
        with torch.no_grad():
            cache = LaneCache(model, rows, fused(model))
            lanes = [(row, row, 0, [3] * (1 + row % 3)) for row in range(len(rows))]
            slots, first = cache.read(lanes, rows=40, most=40)
            lanes = [(slot, row, 1 + row % 3, [4, 5]) for row, slot in enumerate(slots) if row != 1]
            found.append([cache.logits_U_V, first, cache.read(lanes, rows=40, most=40)[1]])
    assert llama_pass.in_one_call() is not llama_pass.logits, "it is compiled"
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("lacks", ["TorchScript", "an operator"])
def test_torch_without_it_makes_the_calls_one_by_one(monkeypatch, lacks):
    monkeypatch.setattr(llama_pass, "in_one_call", functools.cache(llama_pass.in_one_call.__wrapped__))
    if lacks == "TorchScript":
        monkeypatch.delattr(torch.jit, "script")
    else:
        monkeypatch.setattr(torch.jit, "script", mock.Mock(side_effect=RuntimeError("Unknown builtin op")))
    assert llama_pass.in_one_call() is llama_pass.logits


def test_sampling_uses_it_and_gives_the_same_tokens():
    model, rows, sampling = build(CONFIGS["llama-gqa"]).float(), prompts(), Sampling(max_tokens=40)
    plain = ours(model, rows, sampling, (1, 5, 9))
    with inference(model):
        found = drafted(model, rows, sampling, (1, 5, 9), Prophet(rows, plain))
    assert sum(a == b for a, b in zip(found, plain, strict=True)) >= len(rows) - 1, "the last bits can tip a token"
    _, shapes = passes_of(model, lambda: drafted(model, rows, sampling, (1, 5, 9)))
    assert len(shapes) > 1, "a model with hooks runs as it is"


@pytest.mark.parametrize(
    ("make", "takes"),
    [
        (lambda: build(CONFIGS["llama"]).float(), True),
        (lambda: build(CONFIGS["llama"]), False),
        (lambda: build(CONFIGS["llama"]).bfloat16(), False),
        (lambda: build(CONFIGS["qwen2"]).float(), False),
        (lambda: build(LlamaConfig(attention_bias=True, **SHAPE, **COMMON)).float(), False),
        (lambda: build(LlamaConfig(hidden_act="gelu", **SHAPE, **COMMON)).float(), False),
        (
            lambda: build(
                LlamaConfig(
                    rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}, **SHAPE, **COMMON
                )
            ).float(),
            False,
        ),
    ],
)
def test_what_it_takes(make, takes):
    assert (fused(make()) is not None) == takes


def test_it_is_for_models_without_hooks():
    model = build(CONFIGS["llama"]).float()
    hook = model.model.layers[0].register_forward_hook(lambda *_: None)
    assert fused(model) is None
    hook.remove()
    assert fused(model) is not None


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(target_modules=["embed_tokens"]),
        LNTuningConfig(target_modules=["input_layernorm"], task_type="CAUSAL_LM"),
        LoraConfig(target_modules=["q_proj"], trainable_token_indices=[3]),
    ],
    ids=["embedding", "norms", "tokens"],
)
def test_adapters_wherever_they_are_are_not_passed_over(config):
    adapted = get_peft_model(build(CONFIGS["llama-gqa"]).float(), config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    adapted.eval()
    assert fused(adapted.get_base_model()) is None
    rows, sampling = prompts(), Sampling(max_tokens=12)
    same = zip(drafted(adapted, rows, sampling, (1,)), ours(adapted, rows, sampling, (1,)), strict=True)
    assert sum(a == b for a, b in same) >= len(rows) - 1


def test_patched_modules_are_not_passed_over():
    model = build(CONFIGS["llama"]).float()
    norm = model.model.layers[1].input_layernorm
    norm.forward = lambda hidden: 2 * hidden
    assert fused(model) is None
    del norm.forward
    assert fused(model) is not None
    model.forward = model.forward  # TRL's and accelerate's, around the whole
    assert fused(model) is not None


@pytest.mark.parametrize("where", ["class", "all modules", "types"])
def test_what_is_replaced_for_more_than_one_module_is_not_passed_over(monkeypatch, where):
    model = build(CONFIGS["llama"]).float()
    if where == "class":
        before = LlamaRMSNorm.forward
        monkeypatch.setattr(LlamaRMSNorm, "forward", lambda self, hidden: 2 * before(self, hidden))
        assert fused(model) is None
    elif where == "all modules":
        hook = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
        try:
            assert fused(model) is None
        finally:
            hook.remove()
    else:
        model.model.layers[1].mlp.double()
        assert fused(model) is None


def test_a_policy_that_trains_packed_still_has_it():
    model, rows, sampling = build(CONFIGS["llama-gqa"]).float(), prompts(), Sampling(max_tokens=12)
    plain = drafted(model, rows, sampling, (1,))
    assert scores.install(model) is None
    assert fused(model) is not None
    same = zip(drafted(model, rows, sampling, (1,)), plain, strict=True)
    assert sum(a == b for a, b in same) >= len(rows) - 1


@pytest.mark.parametrize("where", ["model", "class"])
@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_a_forward_that_does_more_is_asked_at_every_token(monkeypatch, factor, where):
    """Logits that it scales are scaled after the first token too."""
    model, rows, sampling = build(CONFIGS["llama"]).float(), prompts(), Sampling(max_tokens=12)
    plain, passes = model.forward, []

    def scaled(*args, **more):
        out = plain(*args, **more)
        out.logits = out.logits * factor
        passes.append(out)
        return out

    scaled.__signature__ = inspect.signature(plain)
    if where == "class":
        monkeypatch.setattr(LlamaForCausalLM, "forward", staticmethod(scaled))
    else:
        model.forward = scaled
    expected = ours(model, rows, sampling, (1,))
    passes.clear()
    same = zip(drafted(model, rows, sampling, (1,)), expected, strict=True)
    assert sum(a == b for a, b in same) >= len(rows) - 1
    assert (len(passes) > 1) == (factor != 1)


def test_the_head_counts_among_what_is_copied(monkeypatch):
    model = build(CONFIGS["llama"]).float()
    monkeypatch.setattr(module, "COPIED", sum(each.numel() for each in model.model.layers.parameters()))
    assert fused(model)._weights.head[0].data_ptr() == model.lm_head.weight.data_ptr()
