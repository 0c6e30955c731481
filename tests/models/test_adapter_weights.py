"""A policy as base and adapter apart: together they are the policy's weights, and what cannot be parted is named."""

from __future__ import annotations

import gc

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from posttrain.errors import ConfigError
from posttrain.models.adapter_weights import (
    PREFIX,
    BaseMark,
    adapter_weights,
    has_adapter,
    rank_of,
    why_together,
)
from posttrain.models.policy_weights import check_weights, named_weights
from posttrain.recipe.adapter_serving import rank_in, why_sent_whole
from tests.training.test_adapter_kinds import KINDS

PATTERNS = {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7}, "alpha_pattern": {"v_proj": 3}}


def adapted(**settings):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    defaults = {"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM", "init_lora_weights": False}
    return get_peft_model(Qwen2ForCausalLM(config), LoraConfig(**(defaults | settings)))


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"lora_alpha": 3}, PATTERNS])
def test_base_and_adapter_are_the_policy(settings):
    policy = adapted(**settings)
    whole, base = dict(named_weights(policy)), dict(named_weights(policy, with_adapters=False))
    factors = dict(adapter_weights(policy))
    layers = {name.removesuffix(".lora_A.weight") for name in factors if name.endswith("A.weight")}
    assert len(factors) == 2 * len(layers) == 2 * 14
    for layer in layers:
        name = f"{layer.removeprefix(PREFIX)}.weight"
        a, b = (factors[f"{layer}.lora_{each}.weight"] for each in "AB")
        assert torch.allclose(base.pop(name) + b @ a, whole.pop(name), atol=1e-6)
    assert list(base) == list(whole)
    assert all(torch.equal(base[name], whole[name]) for name in base)
    with policy.disable_adapter():
        assert not has_adapter(policy)
        assert all(
            torch.equal(ours, theirs)
            for (_, ours), (_, theirs) in zip(
                named_weights(policy), named_weights(policy, with_adapters=False), strict=True
            )
        )
    assert rank_of(policy) == rank_in({"r": 4, **settings})


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_tells_what_its_policy_turns_out_to_be(kind):
    settings = KINDS[kind]
    policy = adapted(**({"init_lora_weights": True} | settings))
    try:
        check_weights(policy)
    except ConfigError:  # vLLM is not sent such a policy at all
        assert why_together(policy) is not None
    else:
        said = why_sent_whole({"r": 4, "target_modules": "all-linear", **settings})
        assert (why_together(policy) is None) == (said is None), said


def test_what_cannot_be_parted_is_named():
    assert why_together(AutoModelForCausalLM.from_config(adapted().get_base_model().config)) == (
        "it has no adapter that is on"
    )
    policy = adapted()
    policy.get_base_model().model.norm.weight.requires_grad_(True)
    assert why_together(policy) == "model.norm.weight trains beside the adapter"
    assert "rank" not in str(why_sent_whole({"r": 512}))
    assert why_sent_whole({"r": 8, "rank_pattern": {"q_proj": 600}}) == "r: 600: vLLM takes 512 at most"


def test_a_mark_stays_as_long_as_the_base_does():
    policy, mark = adapted(), BaseMark()
    first = mark.of(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    assert mark.of(policy) == first
    with torch.no_grad():
        policy.get_base_model().model.norm.weight.mul_(2.0)
    second = mark.of(policy)
    assert second != first
    assert mark.of(policy) == second
    mark.forget()
    third = mark.of(policy)
    assert third not in (first, second)
    del policy
    gc.collect()
    assert mark.of(adapted()) not in (first, second, third)
