"""Whole studies of a tiny recipe: an arm is the run that it would be alone, and a kill sets nothing back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from posttrain.rundir.layout import Layout
from posttrain.storage.lock import at_work
from posttrain.study.judged import judge
from posttrain.study.study import Study
from tests.pipeline.forking import Started, forking
from tests.pipeline.runs import ONE_THREAD, assert_same_run, forked, lines, write_recipe

STUDY = """
recipe: recipe.yaml
budget: {steps: 8}
seeds: [0]
tune:
  seed: 100
  arms: {switch: {hybrid.learning_rate: [1.0e-4, 1.0e-3]}}
evaluations: 2
arms:
  sft_only: {hybrid.controller: sft_only}
  switch: {hybrid.controller: {name: switch, at: 0.5}}
"""


STUDY_COMMAND = ("study", "study.yaml", "--dir", "st")


def start(folder: Path, *more: str) -> Started:
    """The study and its runs, forked."""
    return Started(folder, *STUDY_COMMAND, *more, fault=forking)


def start_afresh(folder: Path) -> subprocess.Popen:
    """The study and its runs, each in an interpreter of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "posttrain", *STUDY_COMMAND],
        cwd=folder, env={**os.environ, **ONE_THREAD}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def studied(tmp_path_factory) -> tuple[Path, str]:
    """A study that was killed in the middle of an arm, and then went on to its end."""
    folder = write_recipe(tmp_path_factory.mktemp("study"))
    (folder / "study.yaml").write_text(STUDY)
    first = start_afresh(folder)
    arm = Layout(folder / "st" / "runs" / "sft_only-seed0")
    while not arm.last_checkpoint() and first.poll() is None:
        time.sleep(0.05)
    first.kill()
    first.wait()
    deadline = time.monotonic() + 120
    while at_work(arm.path) is not None:  # it follows the study: told to stop, it saves
        assert time.monotonic() < deadline, "the run goes on without its study"
        time.sleep(0.1)
    second = start(folder)
    said, _ = second.communicate()
    assert second.returncode == 0, said
    return folder, said


def sessions(run: Path) -> int:
    return len(json.loads((run / "environment.json").read_text())["sessions"])


@pytest.mark.slow
def test_a_killed_study_goes_on_and_makes_no_run_twice(studied):
    folder, said = studied
    assert "started runs/sft_only-seed0" in said
    assert "started warmups/seed0\n" not in said  # it was done
    assert sessions(folder / "st" / "runs" / "sft_only-seed0") == 2
    runs = ["warmups/seed0", "warmups/seed100", "tuning/switch-1", "tuning/switch-2", "runs/switch-seed0"]
    assert [sessions(folder / "st" / run) for run in runs] == [1] * 5
    again = start(folder)
    text, _ = again.communicate()
    assert again.returncode == 0
    assert "started" not in text
    assert "switch" in text  # the table


@pytest.mark.slow
def test_an_arm_is_the_recipe_run_alone_bit_for_bit(studied):
    folder, _ = studied
    study = Study(folder / "study.yaml", folder / "st")
    (result,) = [arm for arm in judge(study)["arms"] if arm["name"] == "switch"]
    point = result["tuned"]["point"]
    overrides = [f"{key}={json.dumps(value)}" for key, value in point.items()]
    ended = forked(
        folder, "run", "recipe.yaml", "hybrid.controller={name: switch, at: 0.5}", "hybrid.budget={steps: 8}",
        "evaluate.times=2", "evaluate.every=0", "run.dir=alone", *overrides,
    )  # fmt: skip
    assert ended.code == 0, ended.text
    alone, arm = folder / "alone", folder / "st" / "runs" / "switch-seed0"
    assert_same_run(alone, arm)
    evaluated = lines(arm, "eval.jsonl")
    assert [line["step"] for line in evaluated if line["stage"] == "hybrid"] == [4]  # half of the budget


@pytest.mark.slow
def test_the_judgement_is_on_file_and_what_was_spent_beside_it(studied):
    folder, _ = studied
    judged = json.loads((folder / "st" / "study.json").read_text())
    assert [arm["state"] for arm in judged["arms"]] == ["done", "done"]
    assert [each["arm"] for each in judged["differences"]] == ["sft_only"]
    spent = {arm["name"]: arm["spent"] for arm in judged["arms"]}
    assert spent["sft_only"]["steps"] == spent["switch"]["steps"] == 8
    assert spent["sft_only"]["sampled_tokens"] == 0 < spent["switch"]["sampled_tokens"]
    assert [len(arm["curve"][0]) for arm in judged["arms"]] == [3, 3]  # warm-up, half of it, the end
    assert any("one seed" in note for note in judged["notes"])
    assert "| switch |" in (folder / "st" / "study.md").read_text()
    page = (folder / "st" / "study.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.slow
def test_a_changed_arm_is_refused_by_its_key(studied):
    folder, _ = studied
    changed = STUDY.replace("at: 0.5", "at: 0.25")
    (folder / "changed.yaml").write_text(changed)
    ended = forked(folder, "study", "changed.yaml", "--dir", "st")
    assert ended.code == 1
    assert "hybrid.controller.at: 0.5 -> 0.25" in ended.text
    assert "the arm switch has changed" in ended.text


@pytest.mark.slow
def test_a_warm_up_of_another_recipe_is_refused(studied):
    folder, _ = studied
    ended = forked(
        folder, "run", "recipe.yaml", "warmup.learning_rate=1e-3", "run.dir=other", "--warmup-from", "st/warmups/seed0"
    )
    assert ended.code == 1
    assert "warmup.learning_rate: 0.01 -> 0.001" in ended.text


@pytest.mark.slow
def test_a_failing_arm_does_not_stop_the_others_and_ctrl_c_saves(tmp_path):
    folder = write_recipe(tmp_path)
    text = STUDY.replace("tune:\n  seed: 100\n  arms: {switch: {hybrid.learning_rate: [1.0e-4, 1.0e-3]}}\n", "")
    text = text.replace("at: 0.5}", "at: 0.5}, rewards: [{path: rewards.py:never}], warmup.steps: 2")
    (folder / "study.yaml").write_text(text.replace("seeds: [0]", "seeds: [0, 1]"))
    ended = forked(folder, *STUDY_COMMAND, "--only", "switch", fault=forking)
    assert ended.code == 1
    assert "FAILED runs/switch-seed0" in ended.text or "FAILED warmups" in ended.text
    process = start(folder, "--only", "sft_only")
    arm = Layout(folder / "st" / "runs" / "sft_only-seed0")
    while not arm.last_checkpoint() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()
    assert process.returncode == 130, said
    assert "To go on: the same command" in said
    assert at_work(arm.path) is None
    assert arm.last_checkpoint()
