"""Trackers: what arrives at them from both stages, on one axis, in one run; and trackers that are not there or fail."""

from __future__ import annotations

import json
import sqlite3
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from posttrain.errors import ConfigError
from posttrain.watching.tracker_packages import PACKAGES, check_installed
from posttrain.watching.trackers import flat, means, run_arguments
from tests.pipeline.runs import assert_same_run, at_step, command, lines, train

TO_TENSORBOARD = "run.report_to=[tensorboard]"


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: (step, value) by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(each.step, each.value) for each in events.Scalars(name)] for name in events.Tags()["scalars"]}


def global_step(line: dict) -> int:
    return line["step"] + (5 if line["stage"] in ("hybrid", "final") else 0)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory) -> Path:
    """A run that was killed at step 9 and went on from step 6, before an evaluation that it had made already."""
    from tests.pipeline.runs import write_recipe

    folder = write_recipe(tmp_path_factory.mktemp("tracked"))
    for fault in (at_step("hybrid", 9), None):
        ended = train(folder, TO_TENSORBOARD, "hybrid.save_steps=6", fault=fault)
        assert ended.code == (-9 if fault else 0), ended.text
    return folder / "run"


def test_every_number_of_both_stages_arrives_once_and_at_its_step(resumed):
    seen = scalars(resumed)
    recorded = [json.loads(line) for line in (resumed / "steps.jsonl").read_text().splitlines()]
    wanted: dict[str, list[int]] = {}
    for line in recorded:
        for name, _ in flat(line):
            wanted.setdefault(f"train/{line['stage']}/{name}", []).append(global_step(line))
    assert {"train/warmup/sft_norm", "train/hybrid/p", "train/hybrid/mix/sft", "train/hybrid/kl"} < set(wanted)
    for name, steps in wanted.items():
        assert [step for step, _ in seen[name]] == steps, name
    for name in ("p", "sft_norm", "grpo_norm", "kl", "reward", "entropy"):
        values = [line[name] for line in recorded if line["stage"] == "hybrid" and line[name] is not None]
        assert [value for _, value in seen[f"train/hybrid/{name}"]] == pytest.approx(values, rel=1e-5), name
    assert "train/hybrid/completions/mean_length" in seen, "what TRL logs besides"


def test_evaluations_stand_on_the_same_axis(resumed):
    evaluations = lines(resumed, "eval.jsonl")
    assert [global_step(line) for line in evaluations] == [0, 5, 9, 13, 15]
    seen = scalars(resumed)
    assert [step for step, _ in seen["eval/pass_at_1"]] == [0, 5, 9, 13, 15]
    assert [value for _, value in seen["eval/mean_length"]] == pytest.approx(
        [line["mean_length"] for line in evaluations]
    )
    for name, points in seen.items():
        assert all(a < b for (a, _), (b, _) in pairwise(points)), f"{name} goes back"


def test_trackers_change_nothing_of_a_run(resumed, reference):
    assert_same_run(resumed, reference())  # which saves more often


def test_log_every_sends_means(folder):
    short = ("warmup.steps=1", "hybrid.steps=5", "evaluate.every=0")
    ended = train(folder, TO_TENSORBOARD, "run.log_every=3", "evaluate.at_start=false", *short)
    assert ended.code == 0, ended.text
    seen, hybrid = scalars(folder / "run"), lines(folder / "run", "steps.jsonl")[1:]
    assert seen["train/hybrid/learning_rate"] == [
        (4, pytest.approx(sum(line["learning_rate"] for line in hybrid[:3]) / 3)),
        (6, pytest.approx(sum(line["learning_rate"] for line in hybrid[3:]) / 2)),
    ], "the last ones with the end of the stage"
    assert [value for _, value in seen["train/hybrid/step"]] == [3, 5], "what counts is not averaged"


def _fails_on_its_third_entry() -> None:
    from transformers.integrations import TensorBoardCallback

    original, calls = TensorBoardCallback.on_log, []

    def on_log(self, *args, **kwargs):
        calls.append(0)
        if len(calls) == 3:
            raise OSError("no route to host")
        return original(self, *args, **kwargs)

    TensorBoardCallback.on_log = on_log


def test_a_tracker_that_fails_does_not_end_the_run(folder):
    ended = train(folder, TO_TENSORBOARD, "hybrid.steps=2", "warmup.steps=2", fault=_fails_on_its_third_entry)
    assert ended.code == 0, ended.text
    assert ended.text.count("tensorboard failed and gets no more of this run: OSError: no route to host") == 1
    assert [step for step, _ in scalars(folder / "run")["eval/pass_at_1"]] == [0]


def _cannot_start() -> None:
    from transformers.integrations import TensorBoardCallback

    def on_train_begin(self, *args, **kwargs):
        raise OSError("read-only")

    TensorBoardCallback.on_train_begin = on_train_begin


def test_a_tracker_that_cannot_start_ends_the_run_at_its_beginning(folder):
    ended = train(folder, TO_TENSORBOARD, fault=_cannot_start)
    assert ended.code == 2, ended.text
    assert "tensorboard could not be started: read-only" in ended.text
    assert not (folder / "run" / "eval.jsonl").exists()


def test_a_tracker_that_is_not_installed_is_named_before_there_is_a_run(folder):
    ended = train(folder, "run.report_to=[tensorboard,comet_ml]")
    assert ended.code == 2
    assert "pip install comet-ml" in ended.text
    assert "run.report_to" in ended.text
    assert not (folder / "run").exists()


def test_installed_trackers_are_found():
    check_installed(["tensorboard"])
    with pytest.raises(ConfigError, match="pip install azureml-sdk"):
        check_installed(["azure_ml"])


def test_all_trackers_of_a_recipe_are_those_of_transformers():
    from typing import get_args

    from transformers.integrations import get_reporting_integration_callbacks

    from posttrain.recipe.sections import Tracker

    assert len(get_reporting_integration_callbacks(list(get_args(Tracker)))) == len(get_args(Tracker))
    assert set(PACKAGES) <= set(get_args(Tracker))


def test_means_of_lines():
    records = [
        {"a": 1.0, "n": 1, "mix": {"sft": 0.5}, "skipped": True},
        {"a": None, "n": 2, "skipped": False},
        {"a": 3.0},
    ]
    assert means(records) == {"a": 2.0, "n": 2, "mix/sft": 0.5, "skipped": 0.5}
    assert dict(flat({"ci95": [0.1, 0.2], "list": [1], "text": "x"})) == {"ci95_low": 0.1, "ci95_high": 0.2}


def test_the_recipe_describes_the_run():
    arguments = run_arguments({"warmup": {"steps": 3}}, {"run_name": "kk"}, {"project": "mine"})
    assert arguments.to_dict() == {"warmup": {"steps": 3}}
    assert json.loads(arguments.to_json_string()) == {"warmup": {"steps": 3}}
    assert (arguments.run_name, arguments.project, arguments.push_to_hub) == ("kk", "mine", False)


# ---- what a tracker lacks of a run that goes on ----


def _in_session(run: Path, **options):
    """The trackers of one session of a run in this process."""
    from posttrain.rundir.layout import Layout
    from posttrain.watching.trackers import Trackers

    said = []
    return Trackers(["tensorboard"], Layout(run), {}, said.append, **options), said


def _line(step: int, stage: str = "hybrid", **more) -> dict:
    return {"stage": stage, "step": step, "reward": float(step), **more}


def _write(run: Path, warmup: int, hybrid: int) -> None:
    """What a run of so many steps has recorded, with an evaluation before, between and after every second step."""
    run.mkdir(exist_ok=True)
    steps = [_line(n, "warmup") for n in range(1, warmup + 1)] + [_line(n) for n in range(1, hybrid + 1)]
    evals = [("start", 0), ("warmup", warmup), *(("hybrid", n) for n in range(2, hybrid + 1, 2))]
    (run / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps))
    (run / "eval.jsonl").write_text(
        "".join(json.dumps({"stage": stage, "step": step, "pass_at_1": step / 10}) + "\n" for stage, step in evals)
    )


def _add(run: Path, trackers, line: dict) -> None:
    with (run / "steps.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    trackers.step(line)


def test_a_tracker_that_is_new_to_a_run_gets_what_came_before_step_by_step(tmp_path):
    run = tmp_path / "run"
    _write(run, warmup=2, hybrid=4)
    trackers, _ = _in_session(run)
    with trackers:
        _add(run, trackers, _line(5))
        trackers.send({"completions/mean_length": 9.0})
    seen = scalars(run)
    assert seen["train/warmup/reward"] == [(1, 1.0), (2, 2.0)]
    assert seen["train/hybrid/reward"] == [(3, 1.0), (4, 2.0), (5, 3.0), (6, 4.0), (7, 5.0)]
    assert seen["train/hybrid/completions/mean_length"] == [(7, 9.0)]
    assert seen["eval/pass_at_1"] == [
        (step, pytest.approx(value)) for step, value in ((0, 0), (2, 0.2), (4, 0.2), (6, 0.4))
    ]


def test_steps_that_a_kill_lost_go_out_in_their_groups(tmp_path):
    run = tmp_path / "run"
    _write(run, warmup=1, hybrid=8)
    (run / "trackers.json").write_text(
        json.dumps({"id": "ab", "sent": 4, "evaluated": 3, "trackers": {"tensorboard": {"sent": 4, "evaluated": 3}}})
    )
    trackers, _ = _in_session(run, log_every=3)
    with trackers:
        _add(run, trackers, _line(9))
        trackers.send({})
    assert scalars(run)["train/hybrid/reward"] == [(7, 5.0), (10, 8.0)], "as without the kill"
    assert [step for step, _ in scalars(run)["eval/pass_at_1"]] == [5, 7, 9]


def test_what_lies_after_the_checkpoint_is_not_replayed(tmp_path):
    run = tmp_path / "run"
    _write(run, warmup=2, hybrid=8)
    trackers, _ = _in_session(run)
    with trackers:
        _write(run, warmup=2, hybrid=4)  # as the stage does when it goes on from its checkpoint
        _add(run, trackers, _line(5, reward=50.0))
        trackers.send({})
    assert [step for step, _ in scalars(run)["train/hybrid/reward"]] == [3, 4, 5, 6, 7]
    assert scalars(run)["train/hybrid/reward"][-1] == (7, 50.0)
    assert [step for step, _ in scalars(run)["eval/pass_at_1"]] == [0, 2, 4, 6]


def test_a_tracker_that_is_added_does_not_send_the_others_anything_twice(tmp_path):
    from posttrain.watching.tracker_memory import TrackerMemory

    memory = TrackerMemory(tmp_path / "trackers.json", print)
    memory.note(["tensorboard"], "sent", 7)
    again = TrackerMemory(tmp_path / "trackers.json", print)
    assert again.id == memory.id
    assert (again.last("tensorboard"), again.last("wandb")) == (7, 0)
    again.forget_from(5)
    assert (again.last("tensorboard"), again.last("tensorboard", "evaluated")) == (4, -1)


@pytest.mark.parametrize("content", [b"", b'{"id": "ab", "se', b"[1]", b"\xff\xfe", b'{"id": 3, "trackers": [1]}'])
def test_a_memory_that_is_damaged_counts_as_absent(tmp_path, content):
    run = tmp_path / "run"
    _write(run, warmup=1, hybrid=1)
    (run / "trackers.json").write_bytes(content)
    trackers, said = _in_session(run)
    with trackers:
        pass
    assert [step for step, _ in scalars(run)["train/hybrid/reward"]] == [2]
    told = [text for text in said if "trackers.json cannot be read" in text]
    assert len(told) == len(said) == (content[:8] != b'{"id": 3')
    assert json.loads((run / "trackers.json").read_text())["trackers"] == {"tensorboard": {"sent": 2, "evaluated": 1}}


def test_a_changed_recipe_sends_the_steps_that_are_made_anew(folder):
    short = ("hybrid.save_steps=2", "evaluate.every=0", "warmup.steps=2")
    ended = train(folder, TO_TENSORBOARD, "hybrid.steps=5", *short, fault=at_step("hybrid", 4))
    assert ended.code == -9, ended.text
    (folder / "run" / "trackers.json").unlink()
    for events in (folder / "run" / "tensorboard").iterdir():
        events.unlink()
    ended = train(folder, TO_TENSORBOARD, "hybrid.steps=4", *short, "--resume", "--accept-changes")
    assert ended.code == 0, ended.text
    seen = scalars(folder / "run")
    assert [step for step, _ in seen["train/warmup/sft_loss"]] == [1, 2]
    assert [step for step, _ in seen["train/hybrid/p"]] == [3, 4, 5, 6]
    recorded = [line["learning_rate"] for line in lines(folder / "run", "steps.jsonl") if line["stage"] == "hybrid"]
    assert [value for _, value in seen["train/hybrid/learning_rate"]] == pytest.approx(recorded)
    assert [step for step, _ in seen["eval/pass_at_1"]] == [0, 2, 6]


# ---- clients that are not installed with the tests: large, or at odds with a pinned version ----


def _environment(**settings: str) -> None:
    import os

    os.environ.update(settings)


def test_wandb_has_one_run_of_both_stages(folder):
    pytest.importorskip("wandb", reason="62 MB; its runs are read offline where it is installed")
    offline = {"WANDB_MODE": "offline", "WANDB_DIR": str(folder), "WANDB_SILENT": "true"}
    for fault in (at_step("hybrid", 8), None):
        setup = partial(_environment, **offline)
        ended = train(folder, "run.report_to=[wandb]", fault=partial(_both, setup, fault) if fault else setup)
        assert ended.code == (-9 if fault else 0), ended.text
    found = list((folder / "wandb").glob("offline-run-*"))
    assert len(found) == 2, "one a session"
    assert len({each.name.split("-", 3)[-1] for each in found}) == 1, "of one run"


def test_trackio_has_one_run_of_both_stages(folder, monkeypatch):
    pytest.importorskip("trackio", reason="wants an older pillow than the tests' vLLM has")
    monkeypatch.setenv("TRACKIO_DIR", str(folder / "trackio"))  # read when it is imported
    ended = command(folder, "run", "recipe.yaml", "run.report_to=[trackio]", "run.tracking.project=mine")
    assert ended.code == 0, ended.text
    with sqlite3.connect(folder / "trackio" / "mine.db") as database:
        rows = database.execute("select run_name, metrics from metrics order by id").fetchall()
    assert len({name for name, _ in rows}) == 1
    steps = [json.loads(metrics)["train/global_step"] for _, metrics in rows]
    assert steps == sorted(steps)
    assert set(range(16)) <= set(steps)


def _both(*faults) -> None:
    for fault in faults:
        fault()
