"""What an export says that a run began with, where that is no model of the hub although one is named."""

from __future__ import annotations

import json

import pytest

from posttrain.errors import ConfigError
from posttrain.export.export import export
from posttrain.export.origin import origin_of
from posttrain.rundir.facts import write_recipe
from posttrain.rundir.layout import Layout


def run_of(path, model: dict) -> Layout:
    layout = Layout(path)
    layout.model.mkdir(parents=True)
    (layout.model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/one"}))
    layout.steps_file.touch()
    write_recipe(layout.recipe_file, {"model": model})
    return layout


def test_a_sum_of_models_is_none_of_them(tmp_path):
    merge = {"models": ["owner/one", "owner/two", "/models/three"], "ratios": None, "bai": [0.5, 0.5]}
    layout = run_of(tmp_path, {"name": "owner/one", "merge": merge})
    found = origin_of(layout)
    assert (found.hub_id, found.made_here) == (None, True)
    assert found.words == "the sum 0.25 * `owner/one` + 0.25 * `owner/two` + 0.5 * three"
    with pytest.raises(ConfigError, match="the sum"):
        export(tmp_path, tmp_path / "out")


def test_an_adapter_that_took_a_part_of_its_base_does_not_stand_on_it(tmp_path):
    layout = run_of(tmp_path, {"name": "owner/one"})
    (layout.path / "rest").mkdir()
    assert origin_of(layout).hub_id == "owner/one"
    with pytest.raises(ConfigError, match=r"what the adapter left of `owner/one`") as caught:
        export(tmp_path, tmp_path / "out")
    assert "--merge-lora" in caught.value.fix
