"""What can go wrong in a run: each a clear message and a status, and nothing that was done is lost."""

from __future__ import annotations

import json

import pytest
import torch

from posttrain.storage.checkpoints import is_whole
from tests.pipeline.runs import assert_same_run, at_step, in_evaluation, lines, no_room, train

JUDGED = "evaluate.reward={name: format}"  # so that the first evaluation does not end a run
GRPO = ("hybrid.controller.name=grpo_only",)


def reward(name):
    return f"rewards=[{{path: rewards.py:{name}}}]"


def refused(folder, *overrides, code):
    ended = train(folder, *overrides)
    assert ended.code == code, ended.text
    assert "Traceback" not in ended.text
    assert ended.text.count("  fix: ") == 1, ended.text
    return ended.text


def errors(folder):
    return [json.loads(line) for line in (folder / "run" / "errors.jsonl").read_text().splitlines()]


def test_a_reward_that_always_raises(folder):
    said = refused(folder, *GRPO, reward("never"), code=1)
    assert "reward 'never': it failed on all 4 gold completions that it was tried on" in said
    assert not (folder / "run").exists()
    said = refused(folder, *GRPO, reward("only_demonstrations"), "warmup.steps=0", code=1)
    assert "reward 'only_demonstrations': it failed on all of 8 completions of the evaluation" in said
    assert "ZeroDivisionError: no completion is good enough" in said
    assert "\non '" in said, "the completion is shown"


def test_a_reward_that_always_raises_in_training(folder):
    said = refused(folder, *GRPO, reward("only_demonstrations"), "warmup.steps=0", JUDGED, code=1)
    assert "reward 'only_demonstrations': 24 of the last 24 completions could not be scored" in said
    assert "24x ZeroDivisionError: no completion is good enough" in said
    assert "\n     on '" in said, "the completion is shown"
    kept = errors(folder)
    assert len(kept) == 24
    assert {line["step"] for line in kept} == {1, 2, 3}
    assert kept[0].keys() >= {"reward", "prompt", "completion", "error"}
    steps = lines(folder / "run", "steps.jsonl")
    assert [line["step"] for line in steps if line["stage"] == "hybrid"] == [1, 2]
    assert is_whole(folder / "run/checkpoints/hybrid/checkpoint-2")


def test_a_reward_that_sometimes_raises(folder):
    overrides = (*GRPO, reward("sometimes"), JUDGED, "scoring.max_error_rate=1.0")
    ended = train(folder, *overrides)
    assert ended.code == 0, ended.text
    kept = errors(folder)
    assert 0 < len(kept) < 80, "some of the 80 completions, not all"
    assert all(len(line["completion"]) % 2 == 0 for line in kept)
    assert "All reward functions returned None" not in ended.text, "TRL's own words about it"
    assert f"rewards failed {len(kept)} times in this run: see run/errors.jsonl" in ended.text
    assert "ValueError: an even number of characters" in ended.text, "the first is shown when it happens"

    # Killed and resumed, a failure of a step that is done twice counts once
    (folder / "killed").mkdir()
    for name in ("recipe.yaml", "rewards.py"):
        (folder / "killed" / name).write_text((folder / name).read_text())
    overrides = (*overrides, "hybrid.save_steps=3")
    assert train(folder / "killed", *overrides, fault=in_evaluation("hybrid")).code < 0
    assert errors(folder / "killed")[-1]["step"] == 4, "a step that has to be done again"
    assert train(folder / "killed", *overrides).code == 0
    assert errors(folder / "killed") == kept


def test_a_reward_that_takes_an_absent_column(folder):
    said = refused(folder, reward("absent_column"), code=1)
    assert "the data has no column 'answer'" in said
    assert not (folder / "run").exists(), "refused before anything was made"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("task.eval=0", "no evaluation rows"),
        ("task.train=0", "no prompts"),
        ("task.demonstrations=0", "no demonstrations"),
    ],
)
def test_empty_data(folder, override, named):
    assert named in refused(folder, override, code=2)
    assert not (folder / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(folder):
    assert "run.device is cuda, and torch sees no GPU" in refused(folder, "run.device=cuda", code=2)
    assert not (folder / "run").exists()


def test_a_learning_rate_that_makes_the_warmup_nan(folder):
    said = refused(folder, "warmup.learning_rate=1.0e+30", "warmup.save_steps=1", code=1)
    assert "warmup, step 2: skipped, for its gradient was not finite" in said
    assert "step 5: the gradient was not finite 4 steps in a row (the last ones)" in said
    assert "lower the learning rate" in said
    assert "--restart" in said
    checkpoints = folder / "run/checkpoints/warmup"
    assert [path.name for path in checkpoints.glob("checkpoint-*")] == ["checkpoint-1"]
    assert is_whole(checkpoints / "checkpoint-1")
    ended = train(folder, "--restart")
    assert ended.code == 0, ended.text
    assert (folder / "run.1/checkpoints/warmup/checkpoint-1").is_dir()


@pytest.mark.parametrize(("stage", "step"), [("warmup", 3), ("hybrid", 5)])
def test_no_room_for_a_checkpoint(folder, reference, stage, step):
    ended = train(folder, fault=at_step(stage, step, no_room))
    assert ended.code == 1, ended.text
    assert "Traceback" not in ended.text
    assert "could not be written" in ended.text
    assert "make room, then resume: checkpoint-" in ended.text
    checkpoints = list((folder / "run/checkpoints" / stage).glob("checkpoint-*"))
    assert checkpoints
    assert all(is_whole(path) for path in checkpoints)
    ended = train(folder, "--resume")
    assert ended.code == 0, ended.text
    assert_same_run(reference(), folder / "run")


def test_no_room_for_the_first_model(folder, reference):
    ended = train(folder, fault=no_room)
    assert ended.code == 1, ended.text
    assert "Traceback" not in ended.text
    assert "make room, then start again" in ended.text
    assert train(folder).code == 0
    assert_same_run(reference(), folder / "run")


def test_the_directory_of_another_run(folder):
    (folder / "run").mkdir()
    (folder / "run" / "thesis.tex").write_text("years of work")
    ended = train(folder)
    assert ended.code == 1
    assert "thesis.tex" in ended.text
    assert [path.name for path in (folder / "run").glob("[!.]*")] == ["thesis.tex"]


def test_a_model_folder_that_is_not_there(folder):
    said = refused(folder, "model.init=null", "model.name=./models/absent", code=2)
    assert "there is no folder './models/absent'" in said
    assert "model" in said
    assert not (folder / "run").exists(), "a corrected name must not meet a run of the wrong one"


def test_a_model_folder_without_a_model(folder):
    (folder / "models").mkdir()
    said = refused(folder, "model.init=null", "model.name=./models", code=2)
    assert "the model './models' cannot be loaded" in said


def test_nothing_of_the_libraries_is_said(folder, reference):
    """A whole run says when it starts, where it is, how it does, and where to look; every line is ours."""
    ended = train(folder)
    starts = [line.split(" ", 1)[1].split(" ")[0].rstrip(",") for line in ended.text.splitlines()]
    assert starts[:4] == ["reading", "loading", "loading", "starting"]
    assert set(starts[4:]) <= {"start", "warmup", "hybrid", "final", "pass@1:", "done:", "go"}, ended.text
