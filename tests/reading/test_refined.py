"""The refined schedule by the paper's cases, and what `posttrain schedule` makes of a run's steps.jsonl."""

from __future__ import annotations

import json

import pytest
from ruamel.yaml import YAML

from posttrain.cli import main
from posttrain.errors import ConfigError, DataError
from posttrain.reading.refined import refine, refined_of, smoothed, thinned
from posttrain.recipe.recipe import load_recipe


def written(folder, norms, stage="hybrid"):
    folder.mkdir(exist_ok=True)
    lines = [{"stage": stage, "step": step, "grad_norm": norm} for step, norm in enumerate(norms, 1)]
    (folder / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_even_norms_give_a_straight_line_and_a_large_one_a_small_rate():
    assert refine([5.0] * 4, 1) == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert refine([5.0] * 4, 2) == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert refine([2.0, 1.0, 1.0], 2) == pytest.approx([0.5, 1, 0])
    assert refine([2.0, 1.0, 1.0], 1) == pytest.approx([1, 1, 0])


def test_medians_mirror_the_ends():
    assert smoothed([9.0, 1.0, 5.0, 2.0, 8.0], 0.6) == [1.0, 5.0, 2.0, 5.0, 2.0]
    assert smoothed([9.0, 1.0, 5.0], 0.0) == [9.0, 1.0, 5.0]


def test_few_points_keep_the_ends():
    assert thinned([1.0, 0.75, 0.5, 0.25, 0.0], 3) == [1.0, 0.5, 0.0]
    assert thinned([1.0, 0.0], 40) == [1.0, 0.0]


def test_a_run_is_read_by_its_last_stage_without_steps_that_have_no_gradient(tmp_path):
    run = written(tmp_path / "run", [2.0, 0.0, 1.0, float("nan"), 1.0, None])
    found = refined_of(run, None, optimizer="sgd", smooth=0.0, points=40)
    assert (found.stage, found.points, found.norms, found.left_out) == ("hybrid", [0.5, 1.0, 0.0], 3, 3)
    with pytest.raises(DataError, match="0 steps of the warmup stage"):
        refined_of(run, "warmup", optimizer="sgd", smooth=0.0, points=40)
    with pytest.raises(ConfigError, match="below 1"):
        refined_of(run, None, optimizer="sgd", smooth=1.0, points=40)


def test_what_the_command_prints_is_a_part_of_a_recipe(tmp_path, capsys):
    run = written(tmp_path / "run", [4.0, 2.0, 1.0, 1.0, 1.0, 1.0], stage="warmup")
    assert main(["schedule", str(run), "--smooth", "0"]) == 0
    said = capsys.readouterr().out
    (tmp_path / "refined.yaml").write_text(said)
    assert YAML(typ="safe").load(said)["warmup"]["lr_scheduler_type"] == "refined"
    file = tmp_path / "recipe.yaml"
    file.write_text("extends: refined.yaml\nmodel: m\ntask: knights_knaves\nwarmup:\n  steps: 12\n")
    points = load_recipe(file).warmup.args["lr_scheduler_kwargs"]["points"]
    assert main(["schedule", str(run), "--smooth", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["points"] == points
    assert max(points) == 1.0
    assert points[0] < points[1] < points[2]  # a warm-up that follows from the norms
    assert points[-1] == 0.0
