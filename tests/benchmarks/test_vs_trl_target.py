"""`benchmarks/vs_trl_target.py`: what its rows say of curves that are there."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def target(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("vs_trl_target")


def write_curve(target, folder, side, seed, *points):
    curve = [
        {"stage": "sft", "step": number, "cpu_s": seconds, "wall_s": 2 * seconds, "accuracy": accuracy}
        for number, (seconds, accuracy) in enumerate(points)
    ]
    file = target.curve_file(folder, side, seed)
    file.write_text(json.dumps({"settings": {}, "curve": curve}))


def test_the_first_evaluation_at_or_above_the_target_counts(target, tmp_path):
    write_curve(target, tmp_path, "trl", 1, (10, 0.2), (20, 0.5), (30, 0.4))
    write_curve(target, tmp_path, "ours", 1, (5, 0.5), (9, 0.6))
    row, middle = target.rows_of(tmp_path, [1], 0.5)
    assert (row["trl_s"], row["ours_s"], row["ratio"], row["ratio_is_lower_bound"]) == (20, 5, 4.0, False)
    assert (row["trl_wall_s"], row["trl_at"], row["ours_best"]) == (40, "sft 1", 0.6)
    assert (middle["seed"], middle["ratio"], middle["trl_s"]) == ("median", 4.0, 20)


def test_who_does_not_get_there_has_no_time(target, tmp_path):
    write_curve(target, tmp_path, "trl", 1, (10, 0.2), (30, 0.4))
    write_curve(target, tmp_path, "ours", 1, (6, 0.5))
    write_curve(target, tmp_path, "trl", 2, (10, 0.5))
    write_curve(target, tmp_path, "ours", 2, (6, 0.4))
    trl_missed, ours_missed, middle = target.rows_of(tmp_path, [1, 2], 0.5)
    assert (trl_missed["trl_s"], trl_missed["ratio"], trl_missed["ratio_is_lower_bound"]) == (None, 5.0, True)
    assert (ours_missed["ours_s"], ours_missed["ratio"]) == (None, None)
    assert (middle["trl_s"], middle["ratio"]) == (None, 2.5)  # a ratio that is missing is worth 0
    assert "at least 5.00" in target.markdown([trl_missed, ours_missed, middle])


def test_evaluations_do_not_count_as_training(target, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(target.time, "process_time", lambda: now[0])
    monkeypatch.setattr(target.time, "perf_counter", lambda: 3 * now[0])

    def examine(model):
        now[0] += 100.0
        return 0.5, 18.0

    clock = target.Clock(examine, every={"sft": 2, "grpo": 1}, limit_s=50.0, stop_at=0.9)
    for step in range(1, 5):
        now[0] += 1.0
        clock.look(None, "sft", step)
    assert [(point["step"], point["cpu_s"], point["wall_s"]) for point in clock.curve] == [
        (2, 2.0, 6.0),
        (4, 4.0, 12.0),
    ]
    clock.look(None, "sft", 4, always=True)
    assert len(clock.curve) == 2  # that step was evaluated
    now[0] += 60.0
    with pytest.raises(target.Reached):
        clock.look(None, "grpo", 1)


def test_the_recipe_is_one(target):
    from posttrain.recipe.recipe import load_recipe

    recipe = load_recipe(target.RECIPE)
    sft, grpo = target.TRL["sft"], target.TRL["grpo"]
    assert (recipe.warmup.steps, recipe.warmup.learning_rate) == (sft["max_steps"], sft["learning_rate"])
    assert (recipe.hybrid.steps, recipe.hybrid.learning_rate) == (grpo["max_steps"], grpo["learning_rate"])
    assert recipe.hybrid.grpo.temperature == grpo["temperature"]
    assert recipe.hybrid.grpo.max_completion_length == grpo["max_completion_length"]
