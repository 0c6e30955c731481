"""The run directory: what it keeps through kills and full disks, and whom it lets in."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from posttrain.errors import CheckpointError, DataError, ResumeError
from posttrain.rundir.completions import read_completions
from posttrain.rundir.facts import difference, flatten, processes_of, read_recipe
from posttrain.rundir.rundir import RunDir
from posttrain.rundir.unstarted import is_unstarted
from posttrain.storage import files

RECIPE = {
    "model": {"name": "tiny", "init": None},
    "task": {"name": "knights_knaves", "people": [2, 3]},
    "warmup": {"steps": 10, "learning_rate": 1e-05, "save_steps": 5, "args": {}},
    "hybrid": {"steps": 20, "controller": {"name": "sasr", "gamma": 1.0}},
    "evaluate": {"every": 5, "batch_size": 64},
    "run": {"dir": "runs/kk", "seed": 0, "report_to": []},
}
PRINTS = {"data": "sha256:1111", "reward knights_knaves": "sha256:2222"}


def changed(**dotted) -> dict:
    recipe = json.loads(json.dumps(RECIPE))
    for key, value in dotted.items():
        *parents, last = key.split("__")
        place = recipe
        for parent in parents:
            place = place[parent]
        place[last] = value
    return recipe


def start(path: Path, **options) -> RunDir:
    return RunDir.open(path, RECIPE, PRINTS, **options)


def begin(path: Path) -> None:
    """A run that has taken a step."""
    with start(path) as run:
        run.step({"stage": "warmup", "step": 1})


def test_a_new_run_writes_recipe_and_environment(tmp_path):
    with start(tmp_path / "deep" / "kk") as run:
        assert not run.resumed
        assert read_recipe(run.recipe_file) == RECIPE
        environment = json.loads(run.environment_file.read_text())
    assert environment["fingerprints"] == PRINTS
    assert environment["versions"]["python"].startswith("3.")
    assert {"torch", "trl", "transformers"} <= set(environment["versions"])
    assert environment["cpu_count"] >= 1
    assert len(environment["sessions"]) == 1
    assert not list(run.path.rglob("*.tmp"))


def test_the_same_recipe_resumes_by_itself_and_keeps_its_sessions(tmp_path):
    start(tmp_path / "kk").close()
    with start(tmp_path / "kk") as run:
        assert run.resumed
        assert run.changes == []
        assert len(json.loads(run.environment_file.read_text())["sessions"]) == 2


@pytest.mark.parametrize(
    ("recipe", "prints", "shown"),
    [
        (changed(hybrid__controller__gamma=2.0), PRINTS, "hybrid.controller.gamma: 1.0 -> 2.0"),
        (changed(hybrid__steps=40), PRINTS, "hybrid.steps: 20 -> 40"),
        (changed(run__seed=1), PRINTS, "run.seed: 0 -> 1"),
        (changed(task__people=[2]), PRINTS, "task.people: [2, 3] -> [2]"),
        (changed(warmup__args={"optim": "sgd"}), PRINTS, 'warmup.args.optim: (absent) -> "sgd"'),
        (RECIPE, {**PRINTS, "data": "sha256:9999"}, 'fingerprint of data: "sha256:1111" -> "sha256:9999"'),
        (RECIPE, {"data": "sha256:1111"}, 'knights_knaves: "sha256:2222" -> (absent)'),
    ],
)
def test_a_changed_recipe_data_set_or_reward_is_refused(tmp_path, recipe, prints, shown):
    begin(tmp_path / "kk")
    before = (tmp_path / "kk" / "recipe.yaml").read_bytes()
    with pytest.raises(ResumeError) as caught:
        RunDir.open(tmp_path / "kk", recipe, prints)
    for piece in (shown, "--accept-changes", "--restart", "kk.1", "run.dir="):
        assert piece in str(caught.value)
    assert (tmp_path / "kk" / "recipe.yaml").read_bytes() == before
    with RunDir.open(tmp_path / "kk", recipe, prints, accept_changes=True) as run:
        assert any(shown in line for line in run.changes)
        assert read_recipe(run.recipe_file) == recipe


def test_another_model_is_another_run_even_if_changes_are_accepted(tmp_path):
    begin(tmp_path / "kk")
    with pytest.raises(ResumeError, match=r'another model: model.name: "tiny" -> "large"'):
        RunDir.open(tmp_path / "kk", changed(model__name="large"), PRINTS, accept_changes=True)


def test_keys_that_do_not_matter_do_not_stop_a_run(tmp_path):
    start(tmp_path / "kk").close()
    harmless = changed(run__dir="elsewhere", run__report_to=["wandb"], evaluate__every=7, warmup__save_steps=2)
    with RunDir.open(tmp_path / "kk", harmless, PRINTS) as run:
        assert run.resumed
        assert 'run.dir: "runs/kk" -> "elsewhere"' in run.changes


def test_the_number_of_processes_that_began_it_is_remembered(tmp_path):
    assert processes_of(tmp_path / "kk") is None
    start(tmp_path / "kk", processes=4).close()
    start(tmp_path / "kk", processes=2).close()
    assert processes_of(tmp_path / "kk") == 4
    start(tmp_path / "kk", processes=2, restart=True).close()
    assert processes_of(tmp_path / "kk") == 2


def test_accepted_changes_reopen_the_hybrid_stage_only(tmp_path):
    with start(tmp_path / "kk") as run:
        for stage in ("start", "warmup", "hybrid", "final"):
            run.mark_done(stage, {"step": 1})
            run.evaluation({"stage": stage, "step": 1, "pass@1": 0.5}, [{"row": 0, "passed": True}])
    with RunDir.open(tmp_path / "kk", changed(hybrid__steps=40), PRINTS, accept_changes=True) as run:
        assert [bool(run.done(stage)) for stage in ("start", "warmup", "hybrid", "final")] == [1, 1, 0, 0]
        assert [line["stage"] for line in files.read_lines(run.eval_file)] == ["start", "warmup", "hybrid"]


def test_resume_says_what_must_be_there(tmp_path):
    with pytest.raises(ResumeError, match="no run to resume"):
        start(tmp_path / "kk", resume=True)
    start(tmp_path / "kk").close()
    start(tmp_path / "kk", resume=True).close()
    with pytest.raises(ResumeError, match=r"holds a run already[\s\S]*--restart"):
        start(tmp_path / "kk", resume=False)


def test_a_restart_moves_the_old_run_aside(tmp_path):
    for session in range(3):
        with start(tmp_path / "kk", restart=True) as run:
            assert not run.resumed
            run.step({"stage": "warmup", "step": session})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kk", "kk.1", "kk.2"]
    steps = [files.read_lines(tmp_path / name / "steps.jsonl")[0]["step"] for name in ("kk.1", "kk.2", "kk")]
    assert steps == [0, 1, 2]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ResumeError, match=r"thesis\.tex"):
        start(tmp_path)
    with pytest.raises(ResumeError, match=r"thesis\.tex"):
        start(tmp_path, restart=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_run_killed_while_it_was_created_can_be_created(tmp_path):
    start(tmp_path / "kk").close()
    (tmp_path / "kk" / "recipe.yaml").unlink()
    (tmp_path / "kk" / ".recipe.yaml.1.tmp").write_text("half a rec")
    with start(tmp_path / "kk") as run:
        assert not run.resumed


def test_stages_are_done_once(tmp_path):
    with start(tmp_path / "kk") as run:
        assert run.done("warmup") is None
        run.mark_done("warmup", {"g_warmup": 1.5, "loss": float("nan")})
    with start(tmp_path / "kk") as run:
        done = run.done("warmup")
        assert (done["g_warmup"], done["loss"]) == (1.5, None)
        assert run.done("hybrid") is None


# -- one process at a time -----------------------------------------------------------------------------------------


HOLD = """
import sys, time
from posttrain.rundir.rundir import RunDir
run = RunDir.open(sys.argv[1], {"a": 1}, {})
if len(sys.argv) > 2:
    import multiprocessing
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(20,), daemon=True).start()
print("open", flush=True)
time.sleep(20)
"""


def hold(path: Path, *extra: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), *extra], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def test_two_processes_cannot_share_a_directory_and_a_killed_one_lets_go(tmp_path):
    process = hold(tmp_path / "kk", "with a child that outlives it")
    try:
        for options in ({}, {"restart": True}):
            with pytest.raises(ResumeError, match=f"another process.*{process.pid}"):
                RunDir.open(tmp_path / "kk", {"a": 1}, {}, **options)
        process.kill()
        process.wait()
        RunDir.open(tmp_path / "kk", {"a": 1}, {}).close()
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_one_process_cannot_open_it_twice(tmp_path):
    with start(tmp_path / "kk"), pytest.raises(ResumeError, match="at work in this directory"):
        start(tmp_path / "kk")
    start(tmp_path / "kk").close()


def test_a_directory_that_moves_away_between_opening_and_locking_is_not_locked(tmp_path, monkeypatch):
    start(tmp_path / "kk").close()
    lockf = fcntl.lockf

    def moved_first(*args):
        (tmp_path / "kk").rename(tmp_path / "kk.1")
        lockf(*args)

    monkeypatch.setattr(fcntl, "lockf", moved_first)
    with pytest.raises(ResumeError, match="another process"):
        start(tmp_path / "kk")
    monkeypatch.undo()
    start(tmp_path / "kk.1").close()


def test_a_step_is_not_written_into_a_directory_that_took_the_place_of_the_run(tmp_path):
    with start(tmp_path / "kk") as run:
        run.step({"stage": "warmup", "step": 1})
        (tmp_path / "kk").rename(tmp_path / "kk.1")
        (tmp_path / "kk").mkdir()
        with pytest.raises(CheckpointError, match="removed or moved away"):
            run.step({"stage": "warmup", "step": 2})
    assert list((tmp_path / "kk").iterdir()) == []


@pytest.mark.parametrize("name", ["state.json", "environment.json", "recipe.yaml"])
@pytest.mark.parametrize("content", [b'{"done": {', b"\xff\xfe", b"[]", b""])
def test_a_torn_file_of_the_run_is_named(tmp_path, name, content):
    with start(tmp_path / "kk") as run:
        run.mark_done("warmup")
    (tmp_path / "kk" / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}: cannot be read: .*[\s\S]*--restart"):
        start(tmp_path / "kk")
    assert (tmp_path / "kk" / name).read_bytes() == content


def test_a_refused_run_does_not_keep_the_lock(tmp_path):
    begin(tmp_path / "kk")
    with pytest.raises(ResumeError):
        RunDir.open(tmp_path / "kk", changed(run__seed=5), PRINTS)
    start(tmp_path / "kk").close()


# -- lines ---------------------------------------------------------------------------------------------------------


def test_lines_hold_json_whatever_comes(tmp_path):
    file = tmp_path / "steps.jsonl"
    files.append_line(
        file,
        {"nan": float("nan"), "inf": [float("inf")], "np": np.float32(0.5), "row": np.arange(2), 3: (1, True),
         "text": "line\nbreak \u2028 é \ud83d", "path": Path("a/b"), "none": None},
    )  # fmt: skip
    assert file.read_bytes().count(b"\n") == 1
    assert files.read_lines(file) == [
        {"nan": None, "inf": [None], "np": 0.5, "row": [0, 1], "3": [1, True], "text": "line\nbreak \u2028 é ?",
         "path": "a/b", "none": None}
    ]  # fmt: skip


@pytest.mark.parametrize("torn", [b'{"stage": "hybrid", "st', b'{"stage": "hybrid"', b"\x00" * 40, b'3\n"x'])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    with start(tmp_path / "kk") as run:
        run.step({"stage": "warmup", "step": 1})
        run.step({"stage": "warmup", "step": 2})
        whole = run.steps_file.read_bytes()
    run.steps_file.write_bytes(whole + torn)
    assert [line["step"] for line in files.read_lines(run.steps_file)] == [1, 2]
    with start(tmp_path / "kk") as run:
        assert run.steps_file.read_bytes() == whole
        run.step({"stage": "warmup", "step": 3})
        assert [line["step"] for line in files.read_lines(run.steps_file)] == [1, 2, 3]


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path):
    file = tmp_path / "steps.jsonl"
    file.write_bytes(b'{"step": 1}\n{"step": 2}')
    assert files.drop_torn_end(file)
    files.append_line(file, {"step": 3})
    assert [line["step"] for line in files.read_lines(file)] == [1, 2, 3]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    file = tmp_path / "steps.jsonl"
    file.write_bytes(b'{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"steps\.jsonl: line 2"):
        files.read_lines(file)


def test_truncating_forgets_what_came_after_a_checkpoint(tmp_path):
    with start(tmp_path / "kk") as run:
        for stage, steps in (("start", [0]), ("warmup", [5, 10]), ("hybrid", [5, 10, 15]), ("final", [15])):
            for step in steps:
                run.step({"stage": stage, "step": step})
                run.evaluation({"stage": stage, "step": step}, [{"row": 0, "passed": True}])
        for step in (5, 10, 15):
            run.completions(step, [{"step": step, "completion": "x"}])
        run.truncate_steps("hybrid", 10)
        kept = [("start", 0), ("warmup", 5), ("warmup", 10), ("hybrid", 5), ("hybrid", 10)]
        for file in (run.steps_file, run.eval_file):
            assert [(line["stage"], line["step"]) for line in files.read_lines(file)] == kept
        assert {path.name for path in run.completions_folder.iterdir()} == {
            "step-000005.parquet", "step-000010.parquet", *(f"eval-{stage}-{step:06d}.parquet" for stage, step in kept)
        }  # fmt: skip
        run.truncate_steps("warmup", 5)
        assert {path.name for path in run.completions_folder.iterdir()} == {
            "eval-start-000000.parquet",
            "eval-warmup-000005.parquet",
        }
        assert [line["step"] for line in files.read_lines(run.steps_file)] == [0, 5]


def test_an_evaluation_made_again_takes_the_place_of_the_first(tmp_path):
    with start(tmp_path / "kk") as run:
        run.evaluation({"stage": "hybrid", "step": 5, "pass@1": 0.1}, [{"row": 0, "passed": False}])
        run.evaluation({"stage": "hybrid", "step": 5, "pass@1": 0.2}, [{"row": 0, "passed": True}])
        assert [line["pass@1"] for line in files.read_lines(run.eval_file)] == [0.2]
        assert read_completions(run.eval_completions_file("hybrid", 5)) == [{"row": 0, "passed": True}]


# -- a full disk ---------------------------------------------------------------------------------------------------


FULL = """
import resource, signal, sys
from pathlib import Path
from posttrain.storage import files
from posttrain.errors import CheckpointError
from posttrain.rundir.completions import write_completions
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
import random
text = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=20000))
writers = {
    "text": lambda: files.write_text(folder / "recipe.yaml", text),
    "json": lambda: files.write_json(folder / "state.json", {"x": text}),
    "line": lambda: files.append_line(folder / "steps.jsonl", {"x": text}),
    "parquet": lambda: write_completions(folder / "step-000001.parquet", [{"x": text}]),
}
for name, write in writers.items():
    try:
        write()
    except CheckpointError as error:
        print(name, "free some disk space" in str(error))
"""


def test_files_that_no_longer_fit_leave_the_old_ones_whole(tmp_path):
    names = ("recipe.yaml", "state.json", "step-000001.parquet")
    for name in names:
        (tmp_path / name).write_text("old " + name)
    files.append_line(tmp_path / "steps.jsonl", {"step": 1})
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["text True", "json True", "line True", "parquet True"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "steps.jsonl"])
    for name in names:
        assert (tmp_path / name).read_text() == "old " + name
    assert (tmp_path / "steps.jsonl").read_bytes() == b'{"step": 1}\n'
    files.append_line(tmp_path / "steps.jsonl", {"step": 2})
    assert [line["step"] for line in files.read_lines(tmp_path / "steps.jsonl")] == [1, 2]


def test_a_disk_that_fails_at_the_sync_leaves_the_old_file(tmp_path, monkeypatch):
    files.write_json(tmp_path / "state.json", {"step": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        files.write_json(tmp_path / "state.json", {"step": 2})
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    assert json.loads((tmp_path / "state.json").read_text()) == {"step": 1}


def test_an_error_of_the_writer_leaves_the_old_file(tmp_path):
    def write_half(text: str) -> None:
        with files.replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text(text)
            raise KeyError("bug")

    files.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyError, match="bug"):
        write_half("half")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_differences_are_listed_in_order():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
    assert difference({"a": 1, "b": None}, {"b": True, "c": "x"}) == [
        "a: 1 -> (absent)",
        "b: null -> true",
        'c: (absent) -> "x"',
    ]


def test_lines_that_cannot_be_read_are_dropped_wherever_they_are(tmp_path):
    file = tmp_path / "alarms.jsonl"
    files.drop_broken_lines(file)
    assert not file.exists()
    file.write_text('{"step": 1}\n{torn\n[2]\n{"step":  3}\n{"st')
    files.drop_broken_lines(file)
    assert file.read_text() == '{"step": 1}\n{"step":  3}\n'


def test_a_run_that_has_taken_no_step_begins_anew_under_another_recipe(tmp_path):
    path = tmp_path / "kk"
    with start(path) as run:
        (run.path / "init").mkdir()
        (run.path / "init" / "config.json").write_text("{}")
    other = changed(hybrid__steps=30)
    assert is_unstarted(run)
    with pytest.raises(ResumeError, match=r"hybrid\.steps: 20 -> 30"):
        RunDir.open(path, other, PRINTS, resume=True)
    with RunDir.open(path, other, PRINTS) as run:
        assert not run.resumed
        assert run.changes == ["hybrid.steps: 20 -> 30", "no step had been taken: the run begins anew"]
        assert read_recipe(run.recipe_file) == other
        assert not (run.path / "init").exists(), "a model as the other recipe describes it"
        assert len(json.loads(run.environment_file.read_text())["sessions"]) == 1
        run.step({"stage": "warmup", "step": 1})
    assert not is_unstarted(run)
    with pytest.raises(ResumeError, match=r"hybrid\.steps: 30 -> 20"):
        start(path)


def test_the_evaluation_of_such_a_run_is_kept(tmp_path):
    path = tmp_path / "kk"
    with start(path) as run:
        run.evaluation({"stage": "start", "step": 0}, [{"row": 0, "passed": True}])
    with RunDir.open(path, RECIPE, {**PRINTS, "data": "sha256:3333"}) as run:
        assert run.changes[-2:] == [
            "no step had been taken: the run begins anew",
            "the evaluation that it had made is in kk.1",
        ]
        assert not run.evaluated("start", 0)
        with pytest.raises(ResumeError, match="at work"):
            start(path)  # the new directory is locked
    assert (tmp_path / "kk.1" / "eval.jsonl").exists()
    start(path).close()
