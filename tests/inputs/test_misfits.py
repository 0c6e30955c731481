"""What would end a run after its warm-up is refused before it: with real models, tiny ones, as folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GenerationConfig, Qwen3MoeConfig, Qwen3MoeForCausalLM

from posttrain.errors import ConfigError
from posttrain.inputs.inputs import check_model, load_data
from posttrain.inputs.misfits import half_precision
from posttrain.models.load import build_model, load_policy
from posttrain.planning.machine import Machine
from posttrain.planning.plan import make_plan
from posttrain.recipe.recipe import load_recipe

RECIPE = """
model: {{name: {folder}}}
task: {{name: knights_knaves, people: [2], split: content, train: 8, demonstrations: 4, eval: 2}}
warmup: {{steps: 2}}
hybrid: {{steps: 2, per_device_train_batch_size: 8, grpo: {{num_generations: 4}}}}
run: {{device: cpu}}
"""


@pytest.fixture
def recipe(tmp_path, tiny_tokenizer, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    build_model(tiny_tokenizer, hidden_size=8, layers=1, heads=2).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "r.yaml").write_text(RECIPE.format(folder=tmp_path / "model"))
    return tmp_path / "r.yaml"


def refused(recipe: Path, *overrides: str) -> ConfigError:
    """What a run refuses, and plan tells as a problem in the same words."""
    asked = load_recipe(recipe, overrides)
    with pytest.raises(ConfigError) as caught:
        check_model(asked, load_data(asked))
    error = caught.value
    assert all((error.seen, error.expected, error.where, error.fix))
    plan = make_plan(asked, Machine(device="cpu", memory=8 << 30), offline=True)
    assert error.seen in [found.evidence for found in plan.findings if found.level == "problem"]
    return error


def taken(recipe: Path, *overrides: str) -> None:
    asked = load_recipe(recipe, overrides)
    check_model(asked, load_data(asked))


def test_a_sound_model_is_taken(recipe):
    taken(recipe)


# ---- generation configs ----


@pytest.mark.parametrize(
    "said", [{"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.0}, {"pad_token_id": -1, "eos_token_id": 1}]
)
def test_a_generation_config_that_says_too_little_is_mended(recipe, said):
    folder = recipe.parent / "model"
    (folder / "generation_config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match="invalid"):
        GenerationConfig.from_pretrained(folder).save_pretrained(recipe.parent / "bare")
    taken(recipe)
    model = load_policy(folder)
    model.save_pretrained(recipe.parent / "saved")
    kept = GenerationConfig.from_pretrained(recipe.parent / "saved").to_dict()
    assert {key: kept[key] for key in said if said[key] not in (0.0, -1)} == {
        key: value for key, value in said.items() if value not in (0.0, -1)
    }


@pytest.mark.parametrize("said", [{"output_scores": True}, {"num_return_sequences": 2}, {"max_new_tokens": -1}])
def test_one_that_cannot_be_saved_is_refused(recipe, said):
    (recipe.parent / "model" / "generation_config.json").write_text(json.dumps(said))
    error = refused(recipe)
    assert "generation_config.json could not be saved" in error.seen
    assert next(iter(said)) in error.seen


# ---- tokens ----


def test_a_pad_token_beyond_the_embedding_is_refused(recipe):
    folder = recipe.parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    size = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder)
    for adapter in ("lora=null", "lora={r: 2}"):
        error = refused(recipe, adapter)
        assert f"'<pad>', {size} (pad_token); the model has {size}" in error.seen
    model = load_policy(folder)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    taken(recipe)


# ---- router losses ----


@pytest.fixture
def experts(recipe, tiny_tokenizer) -> Path:
    config = Qwen3MoeConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=16, intermediate_size=32, moe_intermediate_size=16,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=8, num_experts=4,
        num_experts_per_tok=2, max_position_embeddings=512,
    )  # fmt: skip
    Qwen3MoeForCausalLM(config).save_pretrained(recipe.parent / "model")
    return recipe


def test_a_router_loss_beside_sft_steps_is_refused(experts):
    hybrid, warmup = "hybrid.args.router_aux_loss_coef=0.0", "warmup.args.router_aux_loss_coef=0.0"
    error = refused(experts)
    assert error.fix == "set hybrid.args.router_aux_loss_coef and warmup.args.router_aux_loss_coef to 0.0"
    assert refused(experts, hybrid).fix == "set warmup.args.router_aux_loss_coef to 0.0"
    taken(experts, hybrid, warmup)
    taken(experts, hybrid, "hybrid.controller=static")
    taken(experts, "hybrid.controller=grpo_only")
    taken(experts, "hybrid.steps=0")


# ---- precision ----


def test_weights_that_train_in_float16_are_refused(recipe):
    assert "all weights train" in refused(recipe, "model.dtype=float16").seen
    half, adapter = "model.dtype=float16", "lora={r: 2, modules_to_save: [lm_head]}"
    assert "lora.modules_to_save train" in refused(recipe, half, adapter).seen
    taken(recipe, half, "lora={r: 2}")
    with pytest.raises(ConfigError, match="float16"):
        check_model(load_recipe(recipe, ["model={init: {layers: 1}, dtype: float16}"]))


def test_weights_that_train_in_bfloat16_are_told_by_plan(recipe):
    def told(*overrides: str) -> list[str]:
        plan = make_plan(load_recipe(recipe, overrides), Machine(device="cpu", memory=8 << 30), offline=True)
        return [found.evidence for found in plan.findings if found.kind == "half_precision"]

    (said,) = told("model.dtype=bfloat16", "hybrid.learning_rate=1e-6")
    assert "all weights train in bfloat16" in said
    assert "1e-06" in said
    assert told() == told("model.dtype=bfloat16", "lora={r: 2}") == told("model.dtype=float32") == []
    taken(recipe, "model.dtype=bfloat16")


def test_on_a_gpu_an_adapters_base_is_in_bfloat16_and_what_is_saved_with_it_trains_so(recipe):
    kept = load_recipe(recipe, ["lora={r: 2, modules_to_save: [lm_head]}"])
    assert half_precision(kept, on_gpu=True) is not None
    assert half_precision(kept, on_gpu=False) is None
    assert half_precision(load_recipe(recipe, ["lora={r: 2}"]), on_gpu=True) is None
