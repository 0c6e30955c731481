"""A disk that is really full, read-only or gone: what was there before is whole, and the message says what to do."""

from __future__ import annotations

import re
import shutil
from functools import partial

import pytest

from posttrain.storage.checkpoints import is_whole
from tests.pipeline.runs import assert_same_run, at_step, both, in_evaluation, train
from tests.pipeline.small_disk import READ_ONLY, available, fill, on_small_disk, with_room_again

needs_mounts = pytest.mark.skipif(not available(), reason="no process may mount a file system here")

ROOM = r"expected: (about |more than )?[\d.]+ (bytes|KiB|MiB) of room; [\d.]+ (bytes|KiB|MiB) are free"
NOTHING_ELSE = ("hybrid.save_steps=null", "evaluate.every=0", "run.save_completions_every=0")
COMPLETIONS = ("hybrid.controller.name=grpo_only", "hybrid.save_steps=null", "evaluate.every=0")

# What is full when: the settings, the moment, the room left, and what the error is about
PLACES = {
    "checkpoint": ((), lambda fill: at_step("hybrid", 4, fill(leave=40_000)), "checkpoint-4 could not be written"),
    "steps.jsonl": (NOTHING_ELSE, lambda fill: at_step("hybrid", 2, fill()), "run/steps.jsonl: could not be written"),
    "rollouts": (COMPLETIONS, lambda fill: at_step("hybrid", 2, fill()), "step-000003.parquet: could not be written"),
    "evaluation": ((), lambda fill: in_evaluation("hybrid", fill()), "eval-hybrid-000004.parquet: could not be"),
    "warmup model": (
        (),
        lambda fill: at_step("warmup", 5, fill(leave=60_000, leave_like="checkpoints/warmup/checkpoint-4")),
        "run: warmup could not be written",
    ),
    "final model": (
        (),
        lambda fill: at_step("hybrid", 10, fill(leave=60_000, leave_like="checkpoints/hybrid/checkpoint-8")),
        "run: model could not be written",
    ),
    "report": ((), lambda fill: in_evaluation("final", fill(leave=36_000)), "run/report.html: could not be written"),
}  # fmt: skip


@needs_mounts
@pytest.mark.parametrize("place", PLACES)
def test_a_full_disk(folder, reference, place):
    run = folder / "run"
    overrides, moment, named = PLACES[place]
    ended = train(folder, *overrides, fault=both(moment(partial(fill, run)), on_small_disk(run)))
    assert ended.code == 1, ended.text
    assert "Traceback" not in ended.text
    assert named in ended.text
    assert re.search(r"o space left on device|os error 28|only \d+ of \d+ bytes fitted", ended.text), ended.text
    assert re.search(ROOM, ended.text), ended.text
    assert re.search(r"fix: (make room|free some disk space), then ", ended.text)

    with_room_again(run)
    checkpoints = list(run.glob("checkpoints/*/checkpoint-*"))
    assert all(is_whole(path) for path in checkpoints)
    assert not list(run.rglob("*.tmp")) + list(run.rglob(".staging"))
    if place == "checkpoint":
        assert "then resume: checkpoint-2 is whole" in ended.text
    ended = train(folder, *overrides, "--resume")
    assert ended.code == 0, ended.text
    assert_same_run(reference(*overrides), run)


@needs_mounts
def test_a_directory_that_cannot_be_written(folder):
    ended = train(folder, fault=on_small_disk(folder / "run", flags=READ_ONLY))
    assert ended.code == 1, ended.text
    assert "Traceback" not in ended.text
    assert "run: the run directory cannot be written: " in ended.text
    assert "run.dir=..." in ended.text


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_directory_that_is_removed_or_moved_under_a_run(folder, reference, how):
    run, elsewhere = folder / "run", folder / "elsewhere"
    away = partial(shutil.rmtree, run) if how == "removed" else partial(run.rename, elsewhere)
    # In a step with an evaluation and a checkpoint, whose writing makes the directory anew
    ended = train(folder, fault=at_step("hybrid", 4, away))
    assert ended.code == 1, ended.text
    assert "Traceback" not in ended.text
    assert "run: the run directory was removed or moved away while the run was at work in it" in ended.text
    assert not (run / "steps.jsonl").exists()
    assert not (run / "report.html").exists()
    if how == "moved":
        shutil.rmtree(run, ignore_errors=True)
        elsewhere.rename(run)
        ended = train(folder)
        assert ended.code == 0, ended.text
        assert_same_run(reference(), run)
