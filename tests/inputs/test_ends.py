"""Which tokens end a completion, known from a model's files; and the end that a recipe names."""

from __future__ import annotations

import json

import pytest
from transformers import GenerationConfig

from posttrain.errors import ConfigError
from posttrain.inputs.data import tokenize_demonstrations
from posttrain.inputs.ends import ends_of, with_own_end
from posttrain.models.ends import declare_end
from posttrain.models.load import PAD
from posttrain.recipe.recipe import load_recipe
from posttrain.rollouts.transformers import end_of_sequence_ids

RECIPE = "model: MODEL\ntask: {name: knights_knaves, people: [2], train: 10, eval: 4}\nrun: {device: cpu}\n"


@pytest.fixture
def recipe(tmp_path, tiny_model, tiny_tokenizer):
    tiny_model.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("MODEL", str(tmp_path / "base")))
    return lambda *overrides: load_recipe(tmp_path / "recipe.yaml", overrides)


@pytest.mark.parametrize(
    ("declared", "ends"),
    [(None, [1]), (1, [1]), (7, [1, 7]), ([7, 1, 8], [1, 7, 8])],
)
def test_ends_are_those_that_the_loaded_model_has(recipe, tmp_path, tiny_model, tiny_tokenizer, declared, ends):
    tiny_model.generation_config.eos_token_id = declared
    GenerationConfig(eos_token_id=declared).save_pretrained(tmp_path / "base")
    assert ends_of(recipe(), tiny_tokenizer) == ends == end_of_sequence_ids(tiny_model, tiny_tokenizer)


def test_without_a_generation_config_the_models_own_is_taken(recipe, tmp_path, tiny_tokenizer):
    (tmp_path / "base" / "generation_config.json").unlink()
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "eos_token_id": [9, 1]}))
    assert ends_of(recipe(), tiny_tokenizer) == [1, 9]


def test_an_adapters_ends_are_its_bases(recipe, tmp_path, tiny_tokenizer):
    GenerationConfig(eos_token_id=[7]).save_pretrained(tmp_path / "base")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "base"), "peft_type": "LORA"})
    )
    assert ends_of(recipe(f"model={tmp_path / 'adapter'}"), tiny_tokenizer) == [1, 7]


def test_a_model_from_scratch_has_its_tokenizers_end(recipe, tiny_tokenizer):
    assert ends_of(recipe("model={init: {layers: 1}}"), tiny_tokenizer) == [1]


def test_the_end_that_a_recipe_names_ends_demonstrations_of_text(recipe, tiny_tokenizer):
    assert with_own_end(tiny_tokenizer, recipe()).eos_token == "<|end|>"
    named = with_own_end(tiny_tokenizer, recipe(f"warmup.args.eos_token={PAD}"))
    (row,) = tokenize_demonstrations([{"prompt": "1 plus 2 is", "completion": " 3."}], named)
    assert row["labels"][-1] == named.convert_tokens_to_ids(PAD) != 1
    with pytest.raises(ConfigError, match=r"no token '<eot>'(.|\n)*special ones are '<\|pad\|>'"):
        with_own_end(tiny_tokenizer, recipe("warmup.args.eos_token=<eot>"))


@pytest.mark.parametrize(("before", "after"), [(None, 1), (1, 1), (7, [1, 7]), ([7, 8], [1, 7, 8]), ([7, 1], [7, 1])])
def test_a_saved_model_declares_its_tokenizers_end(tiny_model, tiny_tokenizer, before, after):
    tiny_model.generation_config.eos_token_id = before
    declare_end(tiny_model, tiny_tokenizer)
    assert tiny_model.generation_config.eos_token_id == after
