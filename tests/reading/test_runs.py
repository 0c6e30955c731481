"""The runs of a folder, by what their files say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli import main
from posttrain.errors import ConfigError, Interrupted, TrainingError
from posttrain.processes.ranks import Ranks
from posttrain.reading.runs import runs_in
from posttrain.rundir.facts import read_environment
from posttrain.rundir.rundir import RunDir
from posttrain.rundir.shared import SharedRunDir
from posttrain.storage.lock import Lock, at_work

RECIPE: dict[str, Any] = {
    "model": {"name": "org/model", "init": None}, "task": {"name": "math"}, "warmup": {"steps": 4},
    "hybrid": {"steps": 9},
}  # fmt: skip
LINE = {"stage": "hybrid", "step": 3, "n": 40, "pass@1": 0.25, "ci95": [0.125, 0.4]}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(sys, "argv", ["posttrain", "run", "recipes/mine.yaml", "hybrid.steps=9"])
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def a_run(
    path: Path, *, stage: str = "", step: int = 0, line: Any = None, recipe: Any = RECIPE, done: Any = ()
) -> Path:
    with RunDir.open(path, recipe, {}) as run:
        for number in range(1, step + 1):
            run.step({"stage": stage, "step": number})
        if line:
            run.evaluation(line, [])
        for each in done:
            run.mark_done(each)
    return path


def state(path: Path) -> tuple[str, str | None]:
    (run,) = runs_in(path)
    return run["state"], run["at"]


def test_states(folder):
    assert state(a_run(folder / "none")) == ("not started", None)
    assert state(a_run(folder / "warm", stage="warmup", step=2)) == ("stopped", "warm-up step 2 of 4")
    assert state(a_run(folder / "half", stage="hybrid", step=5)) == ("stopped", "hybrid step 5 of 9")
    done = a_run(folder / "all", stage="hybrid", step=9, done=["warmup", "hybrid", "final"])
    assert state(done) == ("finished", "hybrid step 9 of 9")


def test_a_line_that_a_kill_tore_is_passed_over(folder):
    run = a_run(folder / "half", stage="hybrid", step=5)
    with (run / "steps.jsonl").open("a") as file:
        file.write('{"stage": "hyb')
    assert state(run) == ("stopped", "hybrid step 5 of 9")


def test_what_is_told_of_a_run(folder):
    a_run(folder / "one", stage="hybrid", step=3, line=LINE)
    (run,) = runs_in(folder)
    assert run["when"].endswith("+00:00")
    assert {key: run[key] for key in run if key != "when"} == {
        "path": str(folder / "one"), "recipe": "recipes/mine.yaml", "model": "org/model", "task": "math",
        "state": "stopped", "at": "hybrid step 3 of 9", "pass@1": 0.25, "ci95": [0.125, 0.4], "n": 40,
        "evaluation": "hybrid",
    }  # fmt: skip


def test_runs_within_folders_the_latest_first_and_nothing_else(folder):
    for number, name in enumerate(("b", "deep/c", "a")):
        run = a_run(folder / name)
        for file in run.iterdir():
            os.utime(file, (1000 + number, 1000 + number))
    (folder / "recipes").mkdir()
    (folder / "recipes" / "recipe.yaml").write_text("model: x")
    (folder / "notes.txt").write_text("")
    assert [Path(run["path"]).name for run in runs_in(folder)] == ["a", "c", "b"]


def test_models_and_tasks_of_other_kinds(folder):
    tasks = {"tasks": [{"name": "rows", "label": "mine"}, {"name": "math", "label": None}]}
    a_run(folder / "one", recipe={**RECIPE, "model": {"init": {"layers": 1}}, "task": tasks})
    (run,) = runs_in(folder)
    assert (run["model"], run["task"]) == ("from scratch", "mine + math")


def test_a_run_whose_files_are_broken_is_listed(folder):
    run = a_run(folder / "one")
    (run / "recipe.yaml").write_text("a: [")
    a_run(folder / "two")
    states = {Path(run["path"]).name: run["state"] for run in runs_in(folder)}
    assert states == {"one": "unreadable", "two": "not started"}
    (folder / "library").mkdir()  # what a trainer without a recipe leaves
    (folder / "library" / "steps.jsonl").write_text(json.dumps({"stage": "hybrid", "step": 2}) + "\n")
    assert state(folder / "library") == ("stopped", "hybrid step 2")


def test_a_run_at_work(folder):
    run = a_run(folder / "one", stage="warmup", step=1)
    assert at_work(run) is None
    script = (
        "import sys; from pathlib import Path; from posttrain.storage.lock import Lock\n"
        "lock = Lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert at_work(run) == other.pid
        assert state(run) == ("running", "warm-up step 1 of 4")
        assert other.stdin is not None
        other.stdin.close()
    assert at_work(run) is None
    lock = Lock(run)
    assert at_work(run) == os.getpid()
    lock.release()


def test_a_run_that_failed_says_by_what_until_it_goes_on(folder):
    run = a_run(folder / "one", stage="hybrid", step=2)
    with pytest.raises(TrainingError), SharedRunDir.open(Ranks(), run, RECIPE, {}):
        raise TrainingError("the loss is NaN", expected="a number")
    assert state(run) == ("failed", "hybrid step 2 of 9: TrainingError: the loss is NaN")
    with pytest.raises(Interrupted), SharedRunDir.open(Ranks(), run, RECIPE, {}):
        raise Interrupted("stopped")
    assert state(run) == ("stopped", "hybrid step 2 of 9")
    assert [("failed" in each) for each in read_environment(run / "environment.json")["sessions"]] == [0, 1, 0]


def test_an_error_in_a_run_that_was_moved_away_makes_no_new_one(folder):
    run = a_run(folder / "one", stage="hybrid", step=2)
    with SharedRunDir.open(Ranks(), run, RECIPE, {}) as opened:
        run.rename(folder / "away")
        opened.__exit__(TrainingError, TrainingError("x"), None)
    assert not run.exists()
    assert state(folder / "away") == ("stopped", "hybrid step 2 of 9")


def test_the_command(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "no runs in runs\n"
    a_run(folder / "one", stage="hybrid", step=3, line=LINE)
    assert main(["runs", "--json"]) == 0
    assert [run["pass@1"] for run in json.loads(capsys.readouterr().out)] == [0.25]
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["runs", "runs"]) == 0
    said = capsys.readouterr().out
    for part in (
        "runs/one",
        "recipes/mine.yaml",
        "org/model",
        "stopped at hybrid step 3 of 9",
        "25.0 % (12.5 to 40.0)",
    ):
        assert part in said
    assert main(["runs", "none"]) == 2
    assert "none: does not exist" in capsys.readouterr().err
    (folder.parent / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        runs_in(folder.parent / "file")
