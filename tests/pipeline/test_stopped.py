"""Ctrl-C: the step is finished, all is saved, the way to go on is named; and going on equals never stopped."""

from __future__ import annotations

import pytest

from posttrain.running.callbacks import how_to_go_on
from tests.pipeline.runs import assert_same_run, at_step, in_evaluation, interrupt, lines, train


@pytest.mark.parametrize(
    ("stage", "step", "goes_on"),
    [
        ("warmup", 3, "warmup after step 3 of 5"),
        ("warmup", 5, "hybrid from its beginning"),
        ("hybrid", 4, "hybrid after step 4 of 10"),
        ("hybrid", 10, "only the final evaluation is left"),
    ],
    ids=["warmup", "last-of-warmup", "where-an-evaluation-is-due", "last-of-hybrid"],
)
def test_a_stop_in_a_step(folder, reference, stage, step, goes_on):
    ended = train(folder, fault=at_step(stage, step, interrupt))
    assert ended.code == 130, ended.text
    assert "stopping after this step, then saving" in ended.text
    assert "stopped as asked, and saved. To go on: posttrain run recipe.yaml --resume" in ended.text
    assert "Traceback" not in ended.text
    last = lines(folder / "run", "steps.jsonl")[-1]
    assert (last["stage"], last["step"]) == (stage, step)
    assert (folder / "run" / "checkpoints" / stage / f"checkpoint-{step}").is_dir()
    assert (folder / "run" / "report.html").is_file()
    ended = train(folder, "--resume")
    assert ended.code == 0, ended.text
    assert goes_on in ended.text
    assert_same_run(reference(), folder / "run")


@pytest.mark.parametrize("stage", ["warmup", "hybrid"])
def test_a_stop_in_an_evaluation(folder, reference, stage):
    """The evaluation is finished; the next stage does not begin."""
    ended = train(folder, fault=in_evaluation(stage, interrupt))
    assert ended.code == 130, ended.text
    assert lines(folder / "run", "eval.jsonl")[-1]["stage"] == stage
    assert train(folder).code == 0
    assert_same_run(reference(), folder / "run")


@pytest.mark.parametrize("budget", ["null", "{steps: 8}"])
def test_a_stop_where_one_of_the_spread_evaluations_is_due(folder, reference, budget):
    overrides = ("evaluate.every=0", "evaluate.times=4", f"hybrid.budget={budget}", "hybrid.steps=8")
    assert train(folder, *overrides, fault=at_step("hybrid", 4, interrupt)).code == 130
    made = [line["step"] for line in lines(folder / "run", "eval.jsonl") if line["stage"] == "hybrid"]
    assert made == [2]
    assert train(folder, *overrides).code == 0
    made = [line["step"] for line in lines(folder / "run", "eval.jsonl") if line["stage"] in ("hybrid", "final")]
    assert made == [2, 4, 6, 8]
    assert_same_run(reference(*overrides), folder / "run")


def test_a_stop_without_checkpoints(folder, reference):
    """A recipe that saves only at a stage's end still saves when it is stopped."""
    overrides = ("warmup.save_steps=null", "hybrid.save_steps=null")
    assert train(folder, *overrides, fault=at_step("hybrid", 5, interrupt)).code == 130
    assert train(folder, *overrides).code == 0
    assert_same_run(reference(), folder / "run")


def test_a_second_interrupt_stops_at_once(folder, reference):
    ended = train(folder, fault=at_step("hybrid", 5, twice))
    assert ended.code == 130
    assert ended.text.rstrip().endswith("interrupted")
    assert train(folder).code == 0
    assert_same_run(reference(), folder / "run")


def twice():
    interrupt()
    interrupt()


def test_how_to_go_on_is_a_command_that_works():
    run = ["/bin/posttrain", "run", "a b.yaml", "task.people=[2, 3]", "--restart"]
    assert how_to_go_on(run) == "posttrain run 'a b.yaml' 'task.people=[2, 3]' --resume"
    assert how_to_go_on(["/lib/posttrain/__main__.py", "run", "r.yaml", "--resume"]) == "posttrain run r.yaml --resume"
    assert how_to_go_on(["script.py"]) == "call run() again with the same recipe"


# ---- the guard of the run directory, through the command ----


def test_resuming_nothing_is_refused(folder):
    ended = train(folder, "--resume")
    assert ended.code == 1
    assert "there is no run to resume" in ended.text
    assert "leave out --resume" in ended.text
    assert not (folder / "run" / "recipe.yaml").exists()


def test_a_finished_run_is_left_alone(folder, reference):
    run = reference()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    ended = train(run.parent)
    assert ended.code == 0
    assert "run is finished, nothing to do: see run/report.html" in ended.text
    changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed <= {"environment.json", "recipe.yaml", ".lock"}


def test_another_recipe_is_refused_accepted_or_given_a_directory_of_its_own(folder):
    assert train(folder, fault=at_step("hybrid", 5)).code < 0
    before = lines(folder / "run", "steps.jsonl")
    ended = train(folder, "hybrid.learning_rate=2.0e-3", "hybrid.save_steps=5")
    assert ended.code == 1
    assert "hybrid.learning_rate: 0.001 -> 0.002" in ended.text
    assert "save_steps" not in ended.text, "when a run saves does not change what it learns"
    assert "--accept-changes" in ended.text
    assert "--restart" in ended.text
    assert lines(folder / "run", "steps.jsonl") == before, "nothing was touched"

    ended = train(folder, "hybrid.learning_rate=2.0e-3", "--accept-changes")
    assert ended.code == 0, ended.text
    assert "changed since the last start: hybrid.learning_rate: 0.001 -> 0.002" in ended.text
    after = lines(folder / "run", "steps.jsonl")
    rates, former = ([line["learning_rate"] for line in some] for some in (after, before))
    assert rates[:9] == former[:9], "steps 1 to 4 of the hybrid stage were kept"
    assert rates[9:] == pytest.approx([2.0e-3 * (11 - step) / 10 for step in range(5, 11)])
    assert [line["step"] for line in after] == [*range(1, 6), *range(1, 11)]

    ended = train(folder, "--restart")
    assert ended.code == 0, ended.text
    assert lines(folder / "run.1", "steps.jsonl") == after
    assert lines(folder / "run", "steps.jsonl") != after


def test_a_changed_reward_is_another_run(folder):
    assert train(folder, fault=at_step("hybrid", 5)).code < 0
    source = folder / "rewards.py"
    source.write_text(source.read_text().replace("/ 20", "/ 10"))
    ended = train(folder)
    assert ended.code == 1
    assert "fingerprint of reward rewards" in ended.text
