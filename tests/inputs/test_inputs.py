"""What is checked before a run directory exists."""

from __future__ import annotations

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
