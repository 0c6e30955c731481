"""Adapters that vLLM adds itself: the base travels once, then the adapter alone, and what is sampled is the policy's.

vLLM's kernels for adapters run on its CPU build, slowly: `auto` does without them there.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, StableLmConfig

from posttrain.controllers import GRPOOnly
from posttrain.errors import ConfigError, TrainingError
from posttrain.models.adapter_weights import adapter_weights
from posttrain.models.policy_weights import base_model, named_weights
from posttrain.recipe.adapter_serving import SLOW_ON_A_CPU
from posttrain.rollouts import vllm
from posttrain.rollouts.for_trl import EngineRollouts
from posttrain.rollouts.vllm import InProcessEngine, Sampling
from tests.training.test_resume import StopAt
from tests.vllm.conftest import ENDS, PROMPTS, change, tiny, with_lora
from tests.vllm.test_engine import SEEDS, largest_gap
from tests.vllm.training import train

SAMPLING = Sampling(n=3, max_tokens=12, temperature=0.7)
FLOAT32 = 1e-4
"""As in test_engine.py."""

POLICIES = {
    "all-linear": {"target_modules": "all-linear"},
    "rsLoRA": {"target_modules": ["q_proj", "down_proj"], "use_rslora": True},
    "a third, where nothing is a power of two": {"target_modules": ["o_proj", "up_proj"], "lora_alpha": 3},
    "ranks and alphas by layer": {
        "target_modules": "all-linear", "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7},
        "alpha_pattern": {"v_proj": 3, "down_proj": 1},
    },
    "one layer": {"target_modules": ["v_proj"], "layers_to_transform": [1]},
}  # fmt: skip


def llama(tied: bool, seed: int = 0) -> nn.Module:
    """A family whose embedding vLLM puts a layer for adapters around, too."""
    torch.manual_seed(seed)
    shape = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128}
    config = LlamaConfig(**shape, **heads, tie_word_embeddings=tied, initializer_range=0.1)
    return AutoModelForCausalLM.from_config(config).eval()


def gap(engine, policy) -> float:
    return largest_gap(policy, engine.sample(PROMPTS, SEEDS, SAMPLING), 0.7)


@pytest.fixture(scope="module")
def engines():
    opened = {
        tied: InProcessEngine(
            tiny(tied=tied), eos_token_ids=ENDS, max_num_seqs=32, time_limit_s=120, lora="adapter", lora_rank=8
        )
        for tied in (True, False)
    }
    yield opened
    for engine in opened.values():
        engine.close()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", POLICIES)
def test_samples_from_the_policy_after_every_change_of_the_adapter(name, tied, engines):
    policy, engine = with_lora(tiny(tied=tied), **POLICIES[name]), engines[tied]
    before = {name: value.clone() for name, value in policy.state_dict().items() if "lora_" not in name}
    adapter = sum(tensor.nbytes for _, tensor in adapter_weights(policy))
    base = sum(tensor.nbytes for _, tensor in named_weights(policy))
    for update in range(3):
        change(policy, seed=update)
        if update:
            assert gap(engine, policy) > 1e-3, "stale weights must show"
        engine.load(policy)
        assert gap(engine, policy) < FLOAT32
        assert engine.sent_bytes == (adapter if update else base + adapter)
    after = policy.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    with policy.disable_adapter():  # the base in the engine is still the policy's, to the same bits of rounding
        assert engine.adapters.apart(policy) is False
        engine._adapter = None
        assert gap(engine, policy) < FLOAT32


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_family_whose_embedding_is_wrapped(tied):
    policy = with_lora(llama(tied), target_modules="all-linear")
    with InProcessEngine(policy, eos_token_ids=ENDS, max_num_seqs=32, time_limit_s=120, lora="adapter") as engine:
        assert engine.adapters.room == 8
        for update in range(2):
            change(policy, seed=update)
            engine.load(policy)
            assert gap(engine, policy) < FLOAT32
        other = with_lora(llama(tied, seed=3), target_modules=["k_proj"])
        engine.load(other)  # another base is sent, over the one that is there
        assert gap(engine, other) < FLOAT32


def test_another_base_is_sent_again(engines):
    engine, policy = engines[False], with_lora(tiny(tied=False), target_modules=["q_proj"])
    engine.load(policy)
    engine.load(policy)
    alone = engine.sent_bytes
    with torch.no_grad():
        base_model(policy).model.norm.weight.mul_(1.5)
    engine.load(policy)
    assert engine.sent_bytes > 10 * alone
    assert gap(engine, policy) < FLOAT32
    engine.load(with_lora(tiny(tied=False, seed=3), target_modules=["q_proj"]))
    assert engine.sent_bytes > 10 * alone
    full = tiny(tied=False, seed=4)
    engine.load(full)
    assert gap(engine, full) < FLOAT32
    engine.load(policy)
    assert gap(engine, policy) < FLOAT32
    engine.load(full)
    engine.load((name, value) for name, value in full.state_dict().items())
    assert gap(engine, full) < FLOAT32


WHOLE = {
    "whole head": ({"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]}, "lm_head trains as a whole"),
    "embedding": (
        {"target_modules": ["embed_tokens", "o_proj"]},
        "embed_tokens has an adapter, and is no",
    ),
    "head": ({"target_modules": ["k_proj", "lm_head"]}, "is the LM head"),
    "biases": ({"target_modules": ["q_proj"], "bias": "all"}, "bias trains beside the adapter"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_vllm_would_not_add_exactly_is_added_before_it_is_sent_and_said(name, engines):
    settings, said = WHOLE[name]
    policy = with_lora(tiny(tied=False), **settings)
    engine = engines[False]
    with pytest.raises(ConfigError, match=rf"rollout.lora: adapter, but .*{said}") as raised:
        engine.load(policy)
    assert "set auto" in (raised.value.fix or "")
    engine.adapters.asked = "auto"
    try:
        engine.load(policy)
        assert said in engine.adapters.said
        assert gap(engine, policy) < FLOAT32
    finally:
        engine.adapters.asked = "adapter"


def test_more_than_one_adapter_or_one_that_is_merged_is_sent_whole(engines):
    engine = engines[False]
    policy = with_lora(tiny(tied=False), target_modules=["q_proj"])
    policy.add_adapter("second", policy.peft_config["default"])
    policy.base_model.set_adapter(["default", "second"])
    with pytest.raises(ConfigError, match="2 adapters at a time"):
        engine.load(policy)
    merged = with_lora(tiny(tied=False), target_modules=["q_proj"])
    merged.merge_adapter()
    with pytest.raises(ConfigError, match="merged into its weight"):
        engine.load(merged)
    large = with_lora(tiny(tied=False), target_modules=["q_proj"], rank_pattern={"q_proj": 9})
    with pytest.raises(ConfigError, match="its rank is 9, and the engine takes 8 at most"):
        engine.load(large)


def test_a_layer_that_vllm_lacks_ends_the_engine(monkeypatch):
    """vLLM takes such an adapter without a word and samples without it."""
    policy = with_lora(tiny(tied=False), target_modules=["q_proj"])

    def renamed(model):
        return ((name.replace("layers.1", "layers.7"), tensor) for name, tensor in adapter_weights(model))

    with InProcessEngine(policy, eos_token_ids=ENDS, max_num_seqs=4, time_limit_s=120, lora="adapter") as engine:
        monkeypatch.setattr(vllm, "adapter_weights", renamed)
        with pytest.raises(TrainingError, match=r"no layer model.layers.7.self_attn.*\(1 such in all\)"):
            engine.load(policy)
        with pytest.raises(TrainingError, match="has failed before"):
            engine.sample(PROMPTS, SEEDS, SAMPLING)


def test_a_family_without_adapters_in_vllm_is_sent_whole(monkeypatch):
    """StableLM, on a machine that is taken for one with a GPU, where auto would send the adapter alone."""
    torch.manual_seed(0)
    shape = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = StableLmConfig(
        **shape, num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.1
    )
    policy = with_lora(AutoModelForCausalLM.from_config(config).eval(), target_modules=["q_proj", "down_proj"])
    options = {"eos_token_ids": ENDS, "max_num_seqs": 32, "time_limit_s": 120}
    with pytest.raises(ConfigError, match="LoRA"):
        InProcessEngine(policy, lora="adapter", **options)
    room = vllm.room_in_process
    monkeypatch.setattr(vllm, "room_in_process", lambda *args, on_cpu: room(*args, on_cpu=False))
    with InProcessEngine(policy, **options) as engine:
        engine.load(policy)
        assert "LoRA" in engine.adapters.said
        assert engine.adapters.in_words(policy).startswith("vLLM gets whole weights with the adapter added: ")
        assert gap(engine, policy) < FLOAT32


def test_auto_sends_whole_weights_on_a_cpu_and_says_why():
    policy = with_lora(tiny(tied=True), target_modules=["q_proj"])
    with InProcessEngine(policy, eos_token_ids=ENDS, max_num_seqs=4) as engine:
        engine.load(policy)
        assert engine.adapters.said == SLOW_ON_A_CPU
        assert engine.sent_bytes == sum(tensor.nbytes for _, tensor in named_weights(policy))
    with InProcessEngine(policy, eos_token_ids=ENDS, max_num_seqs=4, lora="merged") as engine:
        engine.load(policy)
        assert engine.adapters.said is None


ALONE = {"lora": {"target_modules": "all-linear"}, "vllm_lora": "adapter"}


def test_training_with_the_adapter_alone_and_resuming_it(model_folder, tmp_path):
    """Every rollout is of the policy of its step, and a run that stopped goes on as if it had not."""
    watched: list[Any] = []

    def before(trainer):
        watched.append(trainer.vllm_generation.engine.engine)

    settings = {**ALONE, "save_strategy": "steps", "save_steps": 2, "max_steps": 5}
    whole = train(tmp_path / "whole", model_folder, GRPOOnly(), before=before, **settings)
    assert len(whole.gaps) == 5
    assert max(whole.gaps) < FLOAT32
    alone, everything = watched[0].sent_bytes, sum(tensor.nbytes for tensor in whole.weights.values())
    assert 0 < alone < everything / 2  # of a model this small rank 4 is much
    train(tmp_path / "parts", model_folder, GRPOOnly(), callbacks=[StopAt(3)], **settings)
    resumed = train(tmp_path / "parts", model_folder, GRPOOnly(), resume=True, **settings)
    assert resumed.rollouts == whole.rollouts[-len(resumed.rollouts) :]
    assert resumed.rollouts
    assert all(torch.equal(whole.weights[name], weight) for name, weight in resumed.weights.items())


def test_an_adapter_that_grows_is_probed_more_often():
    probed = []
    rollouts = EngineRollouts.__new__(EngineRollouts)
    rollouts.engine, rollouts.probe_every, rollouts._probed_at = SimpleNamespace(adds_adapters=True), 50, None
    for rollouts.loads in range(1, 140):
        if rollouts._probe_due():
            probed.append(rollouts.loads)
            rollouts._probed_at = rollouts.loads
    assert probed == [1, 2, 4, 8, 16, 32, 64, 114, 128]
    rollouts.engine.adds_adapters, rollouts.loads, rollouts._probed_at = False, 4, 1
    assert not rollouts._probe_due()
