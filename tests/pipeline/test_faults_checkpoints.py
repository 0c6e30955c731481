"""Checkpoints and saved models that something tore after they were written: named, explained, passed over."""

from __future__ import annotations

import shutil

import pytest

from posttrain.storage.checkpoints import MANIFEST
from tests.pipeline.runs import assert_same_run, at_step, interrupt, lines, train


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda c: truncate(c / "optimizer.pt"), "optimizer.pt has "),
        (lambda c: (c / "model.safetensors").unlink(), "model.safetensors is missing, "),
        (lambda c: (c / MANIFEST).unlink(), "it has no manifest.json"),
        (lambda c: (c / MANIFEST).write_text('{"model.safe'), "manifest.json cannot be read: "),
        (lambda c: flip_a_bit(c / "model.safetensors"), "but other contents than were written"),
    ],
    ids=["truncated", "missing", "no-manifest", "torn-manifest", "flipped-bit"],
)
def test_the_checkpoint_before_the_torn_one_is_used_and_both_are_named(folder, reference, damage, said):
    assert train(folder, fault=at_step("hybrid", 7)).code < 0
    checkpoints = folder / "run" / "checkpoints" / "hybrid"
    damage(checkpoints / "checkpoint-6")
    ended = train(folder, "--resume")
    assert ended.code == 0, ended.text
    (line,) = [line for line in ended.text.splitlines() if "torn" in line]
    assert "hybrid: checkpoint-6 is torn (" in line
    assert said in line
    assert line.endswith("now called torn-checkpoint-6; going on from checkpoint-4")
    assert "resuming run: hybrid after step 4 of 10" in ended.text
    assert_same_run(reference(), folder / "run")
    assert {path.name for path in checkpoints.iterdir()} == {
        *(f"checkpoint-{step}" for step in (2, 4, 6, 8, 10)),
        "torn-checkpoint-6",
    }
    assert "torn" not in train(folder).text, "said once"


def test_in_the_warmup_too(folder, reference):
    assert train(folder, fault=at_step("warmup", 5)).code < 0
    truncate(folder / "run" / "checkpoints" / "warmup" / "checkpoint-4" / "scheduler.pt")
    ended = train(folder)
    assert ended.code == 0, ended.text
    assert "warmup: checkpoint-4 is torn (scheduler.pt has " in ended.text
    assert "warmup after step 2 of 5" in ended.text
    assert_same_run(reference(), folder / "run")


def test_when_all_are_torn_the_run_waits_for_a_person(folder, reference):
    assert train(folder, fault=at_step("hybrid", 5)).code < 0
    run = folder / "run"
    checkpoints, before = run / "checkpoints" / "hybrid", lines(run, "steps.jsonl")
    shutil.copytree(run, folder / "copy")
    for checkpoint in checkpoints.iterdir():
        truncate(checkpoint / "model.safetensors")
    ended = train(folder)
    assert ended.code == 1
    assert "no checkpoint is whole:\n    checkpoint-4: model.safetensors has " in ended.text
    assert "\n    checkpoint-2: model.safetensors has " in ended.text
    assert "Traceback" not in ended.text
    assert lines(run, "steps.jsonl") == before, "nothing was touched"

    # Either way that it names works: the stage from its beginning, or a copy
    checkpoints.rename(folder / "away")
    ended = train(folder)
    assert "hybrid from its beginning" in ended.text
    assert_same_run(reference(), run)
    shutil.rmtree(run)
    (folder / "copy").rename(run)
    ended = train(folder)
    assert "hybrid after step 4 of 10" in ended.text
    assert_same_run(reference(), run)


@pytest.mark.parametrize("name", ["init", "warmup"])
def test_a_saved_model_that_is_not_as_it_was_written_is_not_gone_on_from(folder, reference, name):
    assert train(folder, fault=at_step("hybrid", 3, interrupt)).code == 130
    weights = folder / "run" / name / "model.safetensors"
    whole = weights.read_bytes()
    flip_a_bit(weights)
    ended = train(folder)
    assert ended.code == 1
    assert f"run/{name}: the model that was saved here is torn: model.safetensors has the " in ended.text
    assert "from a copy" in ended.text
    weights.write_bytes(whole)
    assert train(folder).code == 0
    assert_same_run(reference(), folder / "run")


def test_a_torn_one_does_not_push_out_a_whole_one(folder):
    """With two checkpoints kept, neither the torn one nor its number counts among them."""
    keep = ("hybrid.save_total_limit=2",)
    assert train(folder, *keep, fault=at_step("hybrid", 7)).code < 0
    checkpoints = folder / "run" / "checkpoints" / "hybrid"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-4", "checkpoint-6"]
    truncate(checkpoints / "checkpoint-6" / "optimizer.pt")
    ended = train(folder, *keep, fault=at_step("hybrid", 5, interrupt))
    assert ended.code == 130, ended.text
    names = sorted(path.name for path in checkpoints.iterdir())
    assert names == ["checkpoint-4", "checkpoint-5", "torn-checkpoint-6"]
