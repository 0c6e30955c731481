"""Angles of hidden states: against a matrix of all cosines, in any batches, read back from the file."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, OPTConfig, Qwen3MoeConfig

from posttrain.errors import ConfigError
from posttrain.evaluation.angles import (
    Angles,
    cosines,
    last_feed_forward,
    measure,
    measured_angles,
    template_of,
)

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
LLAMA = LlamaConfig(**SIZES, intermediate_size=24, num_key_value_heads=2, max_position_embeddings=64)
CONFIGS = {
    "llama": LLAMA,
    "gpt2": GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=64),
    "opt": OPTConfig(**SIZES, ffn_dim=24, word_embed_proj_dim=16, max_position_embeddings=64),
    "moe": Qwen3MoeConfig(
        **SIZES, moe_intermediate_size=8, num_experts=4, num_experts_per_tok=2, num_key_value_heads=2
    ),
}
PROMPTS = [[3, 4, 5, *range(10, 10 + number), 7, 8] for number in (4, 1, 9, 2, 6)]


def policy(kind):
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(CONFIGS[kind])


def test_means_are_those_of_the_matrix_of_all_cosines():
    states = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    unit = F.normalize(states, dim=1)
    matrix = (unit @ unit.T).double()
    below = torch.ones(9, 9).tril(-1).bool()
    question = slice(3, 7)
    within, between, whole = cosines(states, 3, 2)
    assert whole == pytest.approx(float(matrix[below].mean()), abs=1e-6)
    assert within == pytest.approx(float(matrix[question, question][below[:4, :4]].mean()), abs=1e-6)
    assert between == pytest.approx(float(matrix[question, :3].mean()), abs=1e-6)
    assert cosines(torch.ones(4, 2), 0, 0) == pytest.approx((1.0, 0.0, 1.0))
    assert cosines(torch.ones(4, 2), 2, 1) == pytest.approx((0.0, 1.0, 1.0)), "one token of a question has no pair"


@pytest.mark.parametrize(
    ("prompts", "common"),
    [
        ([[1, 2, 3, 9], [1, 2, 4, 5, 9]], (2, 1)),
        ([[1, 2], [1, 2, 3], [1, 2, 4]], (2, 0)),
        ([[1, 2, 2], [1, 2, 2, 2]], (3, 0)),
        ([[5], [6]], (0, 0)),
        ([[1, 2], [1, 2]], (0, 0)),
        ([[1, 2]], (0, 0)),
    ],
)
def test_a_template_is_what_all_prompts_have_in_common(prompts, common):
    assert template_of(prompts) == common


@pytest.mark.parametrize("kind", CONFIGS)
def test_each_prompt_is_measured_as_if_alone(kind):
    model = policy(kind).train()
    begins, ends = template_of(PROMPTS)
    assert (begins, ends) == (4, 2), "all questions begin with the same token"
    expected = []
    for ids in PROMPTS:
        states = []
        handle = last_feed_forward(model).register_forward_pre_hook(lambda _, args, to=states: to.append(args[0]))
        with torch.no_grad():
            model.eval()(torch.tensor([ids]))
        handle.remove()
        expected.append(cosines(states[0].reshape(len(ids), -1), begins, ends))
    model.train()
    for batch_size in (1, 2, 8):
        found = measure(model, PROMPTS, batch_size=batch_size)
        for angles, three, ids in zip(found, expected, PROMPTS, strict=True):
            assert angles[:3] == pytest.approx(three, abs=1e-5)
            assert angles.tokens == len(ids)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_is_measured_enters_the_mlp_of_the_last_layer():
    model = policy("llama")
    assert last_feed_forward(model) is model.model.layers[1].mlp
    assert last_feed_forward(policy("gpt2")) is not None
    before = measure(model, PROMPTS)
    nn.init.normal_(model.model.layers[1].mlp.up_proj.weight)
    assert [each[:3] for each in measure(model, PROMPTS)] == [each[:3] for each in before]
    nn.init.normal_(model.model.layers[1].self_attn.v_proj.weight, std=1.0)
    assert [each[:3] for each in measure(model, PROMPTS)] != [each[:3] for each in before]


def test_an_adapter_is_part_of_the_model():
    base = measure(policy("llama"), PROMPTS)
    model = get_peft_model(policy("llama"), LoraConfig(target_modules=["v_proj"], init_lora_weights=False))
    assert [each[:3] for each in measure(model, PROMPTS)] != [each[:3] for each in base]


def test_a_model_without_such_a_part_is_refused():
    with pytest.raises(ConfigError, match="Linear has no module named mlp"):
        last_feed_forward(nn.Linear(2, 2))


def test_measured_once_and_again_where_a_prompt_is_new(tmp_path):
    file, calls = tmp_path / "angles.jsonl", []

    def rows(*texts):
        return [{"prompt": text} for text in texts]

    def some(number):
        calls.append(number)
        return [Angles(place / 10, 0.12345678, 0.5, 4, 0.25) for place in range(number)]

    for _ in range(2):
        angles, took = measured_angles(rows("a", "b"), file, lambda: some(2))
        assert angles == [[0.0, 0.123457, 0.5], [0.1, 0.123457, 0.5]]
        assert (took.prompts, took.tokens, took.seconds) == (2, 8, 0.5)
        assert took.in_words() == "2 prompts passed through the model once, 8 tokens in 0.5 s"
    assert calls == [2]
    assert measured_angles(rows("b"), file, lambda: some(1))[0] == [[0.1, 0.123457, 0.5]]
    assert calls == [2]
    assert len(measured_angles(rows("a", "b", "c"), file, lambda: some(3))[0]) == 3
    assert calls == [2, 3]
    assert [json.loads(line)["prompt"] for line in file.read_text().splitlines()] == ["a", "b", "c"]
