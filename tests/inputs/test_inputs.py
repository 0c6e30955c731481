"""What is checked before a run directory exists."""

from __future__ import annotations

import json

import pytest
from peft import LoraConfig, get_peft_model

from posttrain.errors import ConfigError
from posttrain.inputs.inputs import check_model
from posttrain.models.load import build_model, load_policy
from posttrain.recipe.recipe import load_recipe


@pytest.fixture
def adapter(tmp_path, tiny_tokenizer):
    build_model(tiny_tokenizer, hidden_size=8, layers=1, heads=2).save_pretrained(tmp_path / "base")
    base = load_policy(tmp_path / "base")
    get_peft_model(base, LoraConfig(r=2, task_type="CAUSAL_LM")).save_pretrained(tmp_path / "adapter")
    tiny_tokenizer.save_pretrained(tmp_path / "adapter")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"model: {tmp_path / 'adapter'}\ntask: knights_knaves\nlora: {{r: 2}}\n")
    return recipe


def test_an_adapter_on_an_adapter_is_refused(adapter):
    with pytest.raises(ConfigError, match=r"r\.yaml:3: lora: .* is an adapter(.|\n)*lora=null"):
        check_model(load_recipe(adapter))


def test_an_adapter_alone_goes_on_being_trained(adapter):
    assert check_model(load_recipe(adapter, ["lora=null"])) == {}


def test_a_model_from_scratch_has_nothing_to_check(adapter):
    assert check_model(load_recipe(adapter, ["model={init: {layers: 1}}"])) == {}


@pytest.mark.parametrize(
    ("kind", "beta", "said"),
    [
        ({"bias": "all"}, 0.04, "its bias: 'all', and hybrid.grpo.beta 0.04"),
        ({"target_modules": ["lm_head"]}, 0, "its target_modules: an adapter on lm_head"),
        ({"trainable_token_indices": [3]}, 0, "its trainable_token_indices: "),
        ({"init_lora_weights": "pissa"}, 0, "an adapter with init_lora_weights 'pissa'"),
    ],
)
def test_an_adapter_that_cannot_go_on_is_refused_before_any_weights_are_read(adapter, tmp_path, kind, beta, said):
    check_model(load_recipe(adapter, ["lora=null", "hybrid.grpo.beta=0.04"]))
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | kind))
    with pytest.raises(ConfigError) as caught:
        check_model(load_recipe(adapter, ["lora=null", f"hybrid.grpo.beta={beta}"]))
    assert said in str(caught.value)
