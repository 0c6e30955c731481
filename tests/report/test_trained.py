"""The line of what was trained, and the commands to go on with."""

from __future__ import annotations

import pytest

from posttrain.recipe.recipe import load_recipe
from posttrain.report.trained import go_on, trained
from posttrain.rundir.layout import Layout

CPU = {"gpus": [], "cpu_count": 2, "processes": 1}


def test_a_line_says_what_was_trained():
    recipe = load_recipe("recipes/quickstart.yaml", ["run.seed=3"]).resolved()
    assert trained(recipe, CPU, 341.0) == (
        "A model from scratch (4 layers of 128) · knights_knaves · sasr (gamma=0.2) · reward knights_knaves · seed 3 · "
        "CPU, 2 cores · 5m41s in all"
    )


def test_all_that_a_recipe_can_be():
    recipe = {
        "model": {"name": "Qwen/Qwen2.5-0.5B"},
        "lora": {"r": 8},
        "task": {"name": "mixture", "tasks": [{"name": "math", "label": "gsm8k"}, {"name": "rows"}]},
        "rewards": [{"name": "math_answer", "weight": 1.0}, {"path": "/secret/mine.py:score", "weight": 0.2}],
        "hybrid": {"steps": 5, "controller": {"name": "sasr", "gamma": 1.0, "kl_target": 0.1}},
        "run": {"device": "auto", "seed": 0},
    }
    said = trained(recipe, {"gpus": ["NVIDIA H100", "NVIDIA H100"], "processes": 2}, 0.0)
    assert said == (
        "Qwen/Qwen2.5-0.5B, LoRA of rank 8 · gsm8k + rows · sasr (gamma=1.0 kl_target=0.1) · "
        "rewards math_answer, mine.py:score x 0.2 · seed 0 · 2 x NVIDIA H100"
    )
    recipe["hybrid"] = {"steps": 0, "controller": {"name": "sasr"}}
    assert "warm-up only" in trained(recipe, CPU, 1.0)


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"model": 3, "task": ["a"], "rewards": "x", "hybrid": {"controller": {"name": "sasr", "unknown": 1}}},
        {"model": {"init": {}}, "task": {"tasks": [None, {"name": None}]}, "rewards": [{}], "run": None, "lora": []},
        {"hybrid": {"controller": {"name": ["x"]}}, "rewards": [{"name": "a", "weight": "b"}]},
    ],
)
def test_a_torn_recipe_does_not_stop_a_report(recipe):
    assert isinstance(trained(recipe, {}, 0.0), str)


def test_the_commands_are_typed_where_the_run_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layout = Layout(tmp_path / "runs" / "my run")
    done = go_on(layout, {"command": ["posttrain", "run", "a.yaml"]}, True, has_steps=True)
    assert [command for command, _ in done] == [
        "posttrain view 'runs/my run' --eval final",
        "posttrain explain 'runs/my run' --step 1",
        "posttrain compare 'runs/my run' OTHER_RUN",
        "posttrain export 'runs/my run' --to FOLDER",
    ]
    stopped = go_on(layout, {"command": ["posttrain", "run", "a b.yaml", "run.seed=1"]}, False, has_steps=False)
    assert [command for command, _ in stopped] == ["posttrain run 'a b.yaml' run.seed=1"]
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert go_on(layout, {}, True, has_steps=False)[0][0] == "posttrain view 'my run' --eval final", "no path of others"
