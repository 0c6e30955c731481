"""Kinds of adapter that a recipe may ask for, and those it is refused."""

from __future__ import annotations

import pytest

from posttrain.errors import ConfigError
from posttrain.recipe.adapter_kinds import INITS, check_saved
from posttrain.recipe.contradictions import check
from posttrain.recipe.recipe import load_recipe

SMALL = "model: some/model\ntask: knights_knaves\n"

REFUSED = {
    "pissa": ("args: {init_lora_weights: pissa}", "args.init_lora_weights", "takes part of the base model's weights"),
    "pissa, random": ("args: {init_lora_weights: pissa_niter_4}", "args.init_lora_weights", "takes part of the base"),
    "olora": ("args: {init_lora_weights: olora}", "args.init_lora_weights", "takes part of the base"),
    "corda": ("args: {init_lora_weights: corda}", "args.init_lora_weights", "takes part of the base"),
    "loftq": ("args: {init_lora_weights: loftq, loftq_config: {}}", "args.init_lora_weights", "takes part of the base"),
    "lora_ga": ("args: {init_lora_weights: lora_ga}", "args.init_lora_weights", "takes part of the base"),
    "eva": ("args: {init_lora_weights: eva}", "args.init_lora_weights", "is computed from data, which no stage does"),
    "loftq without": ("args: {loftq_config: {loftq_bits: 4}}", "args.loftq_config", "goes with init_lora_weights"),
    "kasa": ("args: {kasa_config: {}}", "args.kasa_config", "part of the base model's weights is cut off"),
    "repeated": (
        "args: {layer_replication: [[0, 2]]}",
        "args.layer_replication",
        "layers of the base model are repeat",
    ),
    "lora_bias": ("args: {lora_bias: true}", "args.lora_bias", "can never be merged"),
    "monteclora": ("args: {monteclora_config: {num_samples: 2}}", "args.monteclora_config", "drawn anew at each pass"),
    "qalora": ("args: {use_qalora: true}", "args.use_qalora", "GPTQ weights only"),
    "runtime": ("args: {runtime_config: {ephemeral_gpu_offload: true}}", "args.runtime_config", "an object of Python"),
    "tokens": ("args: {trainable_token_indices: [3]}", "args.trainable_token_indices", "single tokens learn"),
    "head": ("target_modules: [q_proj, lm_head]", "target_modules", "past the adapter"),
    "head of one layer": ("target_modules: [model.lm_head]", "target_modules", "past the adapter"),
    "head's tensor": ("args: {target_parameters: [lm_head.weight]}", "args.target_parameters", "past the adapter"),
    "tied adapter": (
        "target_modules: [embed_tokens]\n  args: {ensure_weight_tying: true}",
        "args.ensure_weight_tying",
        "the adapter goes on the LM head, too",
    ),
}


def recipe(tmp_path, lora, more=""):
    (tmp_path / "recipe.yaml").write_text(f"{SMALL}lora:\n  {lora}\n{more}")
    return load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(("lora", "key", "seen"), REFUSED.values(), ids=REFUSED.keys())
def test_a_kind_that_does_not_last_is_refused_where_it_is_written(tmp_path, lora, key, seen):
    with pytest.raises(ConfigError) as caught:
        recipe(tmp_path, lora)
    said, line = str(caught.value), 5 if "\n" in lora else 4
    assert f"recipe.yaml:{line}: lora.{key}: " in said
    assert seen in said
    assert "expected: " in said
    assert "fix: " in said


@pytest.mark.parametrize("init", INITS)
def test_initialisations_that_leave_the_base_alone(tmp_path, init):
    assert recipe(tmp_path, f"args: {{init_lora_weights: {str(init).lower()}}}").lora.args == {
        "init_lora_weights": init
    }


def test_a_bias_with_a_reference(tmp_path):
    check(recipe(tmp_path, "args: {bias: all}"))
    check(recipe(tmp_path, "args: {bias: none}", "hybrid: {grpo: {beta: 0.04}}\n"))
    with pytest.raises(ConfigError, match=r"recipe\.yaml:4: lora\.args\.bias: 'all', and hybrid\.grpo\.beta 0\.04"):
        check(recipe(tmp_path, "args: {bias: all}", "hybrid: {grpo: {beta: 0.04}}\n"))


def test_alora_under_gradient_checkpointing(tmp_path):
    lora, off = "args: {alora_invocation_tokens: [5]}", "args: {gradient_checkpointing: false}"
    with pytest.raises(ConfigError, match=r"set warmup\.args\.gradient_checkpointing to false$"):
        check(recipe(tmp_path, lora, f"warmup: {{steps: 5}}\nhybrid: {{{off}}}\n"))
    check(recipe(tmp_path, lora, f"warmup: {{steps: 5, {off}}}\nhybrid: {{{off}}}\n"))


def test_a_folder_whose_base_is_another_model():
    check_saved({"init_lora_weights": True, "kasa_config": None}, "folder")
    for config in ({"init_lora_weights": "pissa"}, {"kasa_config": {}}, {"layer_replication": [[0, 1]]}):
        with pytest.raises(ConfigError, match=f"folder: an adapter with {next(iter(config))}"):
            check_saved({"init_lora_weights": True} | config, "folder")


@pytest.mark.parametrize(
    ("lora", "more", "seen"),
    [
        ("r: 4", "rollout: {engine: transformers, lora: adapter}", "transformers samples, from the policy itself"),
        ("modules_to_save: [lm_head]", "rollout: {engine: vllm, lora: adapter}", "modules_to_save: vLLM refuses it"),
        ("r: 600", "rollout: {engine: vllm, lora: adapter}", "r: 600: vLLM takes 512 at most"),
        ("args: {alpha_pattern: {q_proj: 3}}", "rollout: {engine: vllm, lora: adapter}", None),
        ("modules_to_save: [lm_head]", "rollout: {engine: vllm}", None),
    ],
)
def test_an_adapter_that_vllm_cannot_add_is_not_sent_alone(lora, more, seen, tmp_path):
    asked = recipe(tmp_path, lora, more)
    if seen is None:
        check(asked)
        return
    with pytest.raises(ConfigError, match=f"adapter, but {seen}") as raised:
        check(asked)
    assert "rollout.lora" in str(raised.value)


def test_an_adapter_alone_needs_one(tmp_path):
    (tmp_path / "recipe.yaml").write_text(f"{SMALL}rollout: {{engine: vllm, lora: adapter}}\n")
    with pytest.raises(ConfigError, match="adapter, but nothing has an adapter"):
        check(load_recipe(tmp_path / "recipe.yaml"))
