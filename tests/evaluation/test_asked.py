"""What `posttrain eval` is asked for: which model, by whose settings, and what its run was trained on."""

from __future__ import annotations

import json

import pytest

from posttrain.errors import ConfigError, DataError
from posttrain.evaluation.asked import asked, held_out, trained_on
from posttrain.inputs.leaks import prompt_hashes
from posttrain.recipe.recipe import load_recipe
from posttrain.rundir.facts import write_recipe

RECIPE = """
model: {init: {}}
task: {name: math, path: rows.jsonl, train: 20, eval: 10, demonstrations: 5}
rewards: [format]
"""
LINE = {"stage": "final", "step": 3, "n": 10, "pass@1": 0.5}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A recipe, its rows, and what its run leaves behind."""
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"{i} + {i}?", "answer": str(2 * i), "solution": f"{2 * i}"} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.yaml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "mine.yaml")
    run = tmp_path / "run"
    for name in ("model", "warmup"):
        (run / name).mkdir(parents=True)
    write_recipe(run / "recipe.yaml", recipe.resolved())
    data = recipe.task.load(recipe.run.seed)
    (run / "data.json").write_text(json.dumps({"trained_prompts": prompt_hashes(data.train, data.demonstrations)}))
    (run / "environment.json").write_text("{}")
    (run / "eval.jsonl").write_text(json.dumps(LINE | {"judge": {"rewards": [], "threshold": 1.0}}) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("what", "model", "stage"),
    [("run", "model", "final"), ("run/model", "model", "final"), ("run/warmup", "warmup", None)],
)
def test_a_run_and_the_models_in_it(folder, what, model, stage):
    found = asked(what, None, [])
    assert (folder / found.model).resolve() == (folder / "run" / model).resolve()
    assert found.own
    assert not found.changed
    assert (found.recorded or {}).get("stage") == stage
    assert held_out(found) == load_recipe("mine.yaml").task.load(0).eval
    assert trained_on(found, held_out(found)) == ""


def test_what_is_changed_is_said(folder):
    changed = asked("run", None, ["task.eval=7", "evaluate.k=1", "evaluate.threshold=0.5"]).changed
    assert changed == ["task.eval: 10 -> 7", "evaluate.threshold: 1.0 -> 0.5"]


def test_a_run_of_before_the_judge_was_recorded_is_judged_as_it_was(folder):
    (folder / "run" / "eval.jsonl").write_text(json.dumps(LINE) + "\n")
    found = asked("run", None, [])
    assert [each.name for each in found.recipe.evaluate.reward or []] == ["math_answer"]
    assert not found.changed
    chosen = asked("run", None, ["evaluate.reward=format"])
    assert [each.name for each in chosen.recipe.evaluate.reward or []] == ["format"]
    assert len(chosen.changed) == 1


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("override", ["task.eval=40", "run.seed=3"])
def test_problems_that_were_trained_on_are_refused(folder, override, kept):
    if not kept:
        (folder / "run" / "data.json").unlink()  # then the rows are drawn again
    found = asked("run", None, [override])
    rows = held_out(found)
    with pytest.raises(
        DataError, match=r"of the \d+ problems are among those that run was trained on(.|\n)*--allow-overlap"
    ):
        trained_on(found, rows)
    assert "was trained on" in trained_on(found, rows, allowed=True)


def test_a_task_named_anew_is_checked_against_the_run_too(folder):
    settings = ["task.path=rows.jsonl", "task.eval=40"]
    found = asked("run/model", "math", settings)
    assert not found.own
    with pytest.raises(DataError, match="25 of the 40"):
        trained_on(found, held_out(found))


def test_no_demonstrations_are_asked_for(folder):
    rows = [{"question": f"{i} - 1?", "answer": str(i - 1)} for i in range(6)]
    (folder / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(held_out(asked("some/model", "math", ["path=plain.jsonl", "eval=6"]))) == 6


@pytest.mark.parametrize(
    ("what", "task", "said"),
    [
        ("mine.yaml", None, r"made by its run(.|\n)*expected(.|\n)*--model"),
        ("absent.yaml", None, "does not exist"),
        ("some/model", None, r"no task is named(.|\n)*--task"),
        ("some/model", "mat", "did you mean math"),
    ],
)
def test_what_cannot_be_evaluated(folder, what, task, said):
    with pytest.raises(ConfigError, match=said):
        asked(what, task, [])


def test_a_run_without_a_model(folder):
    for name in ("model", "warmup"):
        (folder / "run" / name).rmdir()
    with pytest.raises(ConfigError, match=r"no model yet(.|\n)*posttrain run"):
        asked("run", None, [])


def test_a_recipe_with_a_model(folder):
    assert asked("mine.yaml", None, [], "some/model").model == "some/model"
    assert asked("mine.yaml", None, ["model=other/model"]).model == "other/model"


def test_a_recipe_whose_model_is_a_sum_is_not_evaluated_as_the_first(folder):
    merged = "model={merge: {models: [owner/one, owner/two], ratios: [0.5, 0.5]}}"
    with pytest.raises(ConfigError, match="made by its run"):
        asked("mine.yaml", None, [merged])


@pytest.mark.parametrize("what", ["run/model", "shared"])
def test_the_models_own_rendering_holds_for_another_task(folder, what):
    """Of a run's model and of an exported folder; a recipe beside it switches no code on."""
    quiet = ["hybrid.args.chat_template_kwargs={enable_thinking: false}", "model={name: o/m, trust_remote_code: true}"]
    for place in (folder / "run", folder / "shared"):
        place.mkdir(exist_ok=True)
        write_recipe(place / "recipe.yaml", load_recipe(folder / "mine.yaml", quiet).resolved())
    found = asked(what, "math", ["path=plain.jsonl"])
    assert found.recipe.hybrid.template_kwargs == {"enable_thinking": False}
    assert not found.recipe.model.trust_remote_code
    assert found.kept == ['chat_template_kwargs {"enable_thinking": false}']
    changed = asked(what, "math", ["path=plain.jsonl", 'hybrid.args.chat_template_kwargs={"enable_thinking":true}'])
    assert changed.recipe.hybrid.template_kwargs == {"enable_thinking": True}
