"""A mixture of experts whose configuration asks for router logits, as TRL leaves it, samples as one that does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GptOssConfig, Qwen3MoeConfig

from posttrain.models.inference import inference
from posttrain.rollouts.transformers import generate
from posttrain.running.policies import save_whole

COMMON = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "num_experts_per_tok": 2, "max_position_embeddings": 64,
}  # fmt: skip
PROMPTS = ["1 plus 1 is", "22 plus 3"]


@pytest.fixture(params=["qwen3_moe", "gpt_oss"])
def model(request, tiny_tokenizer) -> Any:
    ends = {"eos_token_id": tiny_tokenizer.eos_token_id, "pad_token_id": tiny_tokenizer.pad_token_id}
    sizes = {**COMMON, **ends, "vocab_size": len(tiny_tokenizer)}
    config = (
        GptOssConfig(**sizes, num_local_experts=4)
        if request.param == "gpt_oss"
        else Qwen3MoeConfig(**sizes, num_experts=4, moe_intermediate_size=16)
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def sampled(model: Any, tokenizer: Any) -> list[list[int]]:
    rows = generate(model, tokenizer, PROMPTS, max_new_tokens=6, temperature=1.0, num_samples=2, seed=3)
    return [completion.token_ids for row in rows for completion in row]


def test_sampling(model, tiny_tokenizer):
    plain = sampled(model, tiny_tokenizer)
    model.config.output_router_logits = True
    ids = tiny_tokenizer(PROMPTS, return_tensors="pt", padding=True)
    with pytest.raises(RuntimeError):  # what the test is about: else it shows nothing
        model.generate(**ids, max_new_tokens=4, do_sample=False)
    assert sampled(model, tiny_tokenizer) == plain
    assert model.config.output_router_logits is True
    assert model(**ids).aux_loss is not None, "training has its router loss"
    with inference(model):
        assert getattr(model(**ids), "aux_loss", None) is None


def test_what_is_saved_samples_anywhere(model, tiny_tokenizer, tmp_path):
    model.config.output_router_logits = True
    save_whole(tmp_path / "saved", model, tiny_tokenizer)
    assert model.config.output_router_logits is True
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert saved.config.output_router_logits is False
    ids = tiny_tokenizer(PROMPTS, return_tensors="pt", padding=True)
    saved.generate(**ids, max_new_tokens=4, do_sample=False)
