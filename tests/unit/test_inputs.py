"""What is checked before a run directory exists."""

from __future__ import annotations

import pytest

from posttrain.config import load_recipe
from posttrain.errors import ConfigError
from posttrain.inputs import check_model


@pytest.fixture
def adapter(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
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
