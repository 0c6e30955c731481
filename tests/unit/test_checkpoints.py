"""Checkpoints: whole or not there, whatever interrupts the writing; and what a hybrid one holds beside the model."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from posttrain.checkpoints import MANIFEST, STAGING, is_whole, latest_checkpoint, seal, staged, step_of
from posttrain.errors import CheckpointError, ResumeError
from posttrain.resume_state import load_state, load_window, save_state, save_window


def write(folder, step, content=b"weights"):
    with staged(folder, f"checkpoint-{step}") as staging:
        inner = staging / f"checkpoint-{step}" / "optimizer"
        inner.mkdir(parents=True)
        (inner / "state.bin").write_bytes(b"moments")
        if isinstance(content, BaseException):
            raise content
        (inner.parent / "model.bin").write_bytes(content)
    return folder / f"checkpoint-{step}"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_appears_when_it_is_complete(tmp_path):
    with staged(tmp_path / "run", "checkpoint-4") as staging:
        (staging / "checkpoint-4").mkdir()
        (staging / "checkpoint-4" / "model.bin").write_bytes(b"12345")
        assert latest_checkpoint(tmp_path / "run") is None
        assert not (tmp_path / "run" / "checkpoint-4").exists()
    assert names(tmp_path / "run") == ["checkpoint-4"]
    assert is_whole(tmp_path / "run" / "checkpoint-4")
    assert json.loads((tmp_path / "run" / "checkpoint-4" / MANIFEST).read_text()) == {"model.bin": 5}


def test_writing_a_step_again_replaces_it_whole(tmp_path):
    (write(tmp_path, 2) / "left-over.bin").write_bytes(b"x")
    again = write(tmp_path, 2, b"other weights")
    assert (again / "model.bin").read_bytes() == b"other weights"
    assert names(again) == [MANIFEST, "model.bin", "optimizer"]
    assert is_whole(again)


@pytest.mark.parametrize("error", [OSError("disk"), RuntimeError("[enforce fail] write failed"), KeyboardInterrupt()])
def test_an_exception_leaves_the_previous_checkpoint_and_nothing_else(tmp_path, error):
    previous = write(tmp_path, 2)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else CheckpointError
    with pytest.raises(expected):
        write(tmp_path, 3, error)
    assert names(tmp_path) == ["checkpoint-2"]
    assert is_whole(previous)


def test_what_a_kill_left_in_staging_is_no_part_of_the_next_checkpoint(tmp_path):
    left = tmp_path / STAGING / "checkpoint-2"
    left.mkdir(parents=True)
    (left / "from-before.bin").write_bytes(b"x")
    assert latest_checkpoint(tmp_path) is None
    assert names(write(tmp_path, 2)) == [MANIFEST, "model.bin", "optimizer"]


def test_a_block_that_wrote_nothing_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="start again"), staged(tmp_path, "checkpoint-1"):
        pass
    assert names(tmp_path) == []


def test_only_the_main_process_clears_and_publishes(tmp_path):
    (tmp_path / STAGING / "checkpoint-1").mkdir(parents=True)
    waits = []
    with staged(tmp_path, "checkpoint-1", is_main=False, wait=lambda: waits.append(names(tmp_path))) as staging:
        (staging / "checkpoint-1" / "rank1.bin").write_bytes(b"x")
    assert names(tmp_path) == [STAGING]
    assert (tmp_path / STAGING / "checkpoint-1" / "rank1.bin").exists()
    waits.clear()
    with staged(tmp_path, "checkpoint-1", wait=lambda: waits.append(names(tmp_path))) as staging:
        (staging / "checkpoint-1").mkdir()
    # Others write only after it was cleared, and go on only after it was published
    assert waits == [[STAGING], [STAGING], [STAGING, "checkpoint-1"]]


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from posttrain.checkpoints import staged
from posttrain.errors import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with staged(Path(sys.argv[1]), "checkpoint-9") as staging:
        (staging / "checkpoint-9").mkdir()
        {save}
except CheckpointError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "save",
    [
        "torch.save(torch.zeros(200_000), staging / 'checkpoint-9' / 'optimizer.pt')",
        "from safetensors.torch import save_file; "
        "save_file({'w': torch.zeros(200_000)}, staging / 'checkpoint-9' / 'model.safetensors')",
    ],
    ids=["torch", "safetensors"],
)
def test_a_disk_that_is_really_full_leaves_the_previous_checkpoint_and_says_so(tmp_path, save):
    previous = write(tmp_path, 8)
    code = FULL_DISK.replace("{save}", save)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "checkpoint-9 could not be written" in done.stdout
    assert "MiB are free" in done.stdout
    assert "resume: checkpoint-8 is whole" in done.stdout
    assert names(tmp_path) == ["checkpoint-8"]
    assert is_whole(previous)


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: (c / "model.bin").write_bytes(b"weight"),
        lambda c: (c / "model.bin").write_bytes(b""),
        lambda c: (c / "optimizer" / "state.bin").unlink(),
        lambda c: (c / MANIFEST).unlink(),
        lambda c: (c / MANIFEST).write_text(""),
        lambda c: (c / MANIFEST).write_text('{"model.bin": 7'),
        lambda c: (c / MANIFEST).write_text("[]"),
    ],
    ids=["truncated", "emptied", "missing", "no-manifest", "empty-manifest", "torn-manifest", "other-json"],
)
def test_a_damaged_checkpoint_is_not_whole_and_is_passed_over(tmp_path, damage):
    good, torn = write(tmp_path, 2), write(tmp_path, 10)
    assert latest_checkpoint(tmp_path) == torn
    damage(torn)
    assert not is_whole(torn)
    assert latest_checkpoint(tmp_path) == good


def test_the_latest_is_by_number_among_names_that_are_checkpoints(tmp_path):
    for step in (9, 10, 2):
        write(tmp_path, step)
    for odd in ("checkpoint-", "checkpoint-99-old", "checkpoint-x", "checkpoint-98.tmp", "xcheckpoint-97"):
        (tmp_path / odd).mkdir()
        seal(tmp_path / odd)
    (tmp_path / "checkpoint-96").write_text("a file")
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert (latest.name, step_of(latest)) == ("checkpoint-10", 10)
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_sealing_again_keeps_a_checkpoint_whole(tmp_path):
    checkpoint = write(tmp_path, 1)
    (checkpoint / "more.bin").write_bytes(b"more")
    seal(checkpoint)
    assert is_whole(checkpoint)


# ---- the state beside the model ----


def test_state_comes_back_and_another_trainers_checkpoint_is_refused(tmp_path):
    state = {"controller": {"g_last": 0.1 + 0.2, "kl": None, "step": 3}, "prompts": 17, "window": None}
    save_state(tmp_path, state)
    assert load_state(tmp_path) == state
    with pytest.raises(ResumeError, match="HybridTrainer wrote"):
        load_state(tmp_path / "nowhere")


def test_a_window_comes_back_bit_for_bit_in_its_order(tmp_path):
    batches = [
        {
            "ids": torch.arange(6).reshape(2, 3) + number,
            "mask": torch.tensor([True, False]),
            "advantages.raw": torch.tensor([0.1, torch.nan]) * number,
            "num_items_in_batch": torch.tensor(number),
            "bf16": torch.tensor([[1.5, 2.5], [3.5, 4.5]], dtype=torch.bfloat16).T,
        }
        for number in range(12)
    ]
    save_window(tmp_path, 1, batches)
    loaded = load_window(tmp_path, 1, torch.device("cpu"))
    assert len(loaded) == 12
    for before, after in zip(batches, loaded, strict=True):
        assert before.keys() == after.keys()
        for key, value in before.items():
            torch.testing.assert_close(after[key], value, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(ResumeError, match="no rollouts for process 0"):
        load_window(tmp_path, 0, torch.device("cpu"))
