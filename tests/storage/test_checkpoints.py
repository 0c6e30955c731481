"""Checkpoints: whole or not there, whatever interrupts the writing; and what a hybrid one holds beside the model."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch

from posttrain.errors import CheckpointError, ResumeError
from posttrain.storage import checkpoints
from posttrain.storage.checkpoints import (
    MANIFEST,
    STAGING,
    checksum,
    is_whole,
    latest_checkpoint,
    put_aside_torn,
    seal,
    staged,
    step_of,
    usable_checkpoint,
    why_torn,
)
from posttrain.training.checkpoints.resumable import check_resumable
from posttrain.training.checkpoints.resume_state import (
    FORMAT,
    STATE,
    describe_window,
    load_state,
    load_window,
    save_state,
    save_window,
)
from posttrain.training.window.cut import Cut


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
    manifest = json.loads((tmp_path / "run" / "checkpoint-4" / MANIFEST).read_text())
    assert manifest == {"model.bin": [5, checksum(tmp_path / "run" / "checkpoint-4" / "model.bin")]}


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


def test_what_the_listing_does_not_show_is_sealed_if_it_is_named(tmp_path):
    """A network file system may open a file of another node's before it lists it; here a link to a folder does so."""
    checkpoint, elsewhere = tmp_path / "checkpoint-1", tmp_path / "elsewhere"
    checkpoint.mkdir()
    elsewhere.mkdir()
    (checkpoint / "listed.bin").write_bytes(b"1")
    (elsewhere / "other.bin").write_bytes(b"22")
    (checkpoint / "link").symlink_to(elsewhere)
    seal(checkpoint, ["listed.bin", "link/other.bin"])
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    assert {name: size for name, (size, _) in manifest.items()} == {"link/other.bin": 2, "listed.bin": 1}


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from posttrain.storage.checkpoints import staged
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
    previous = write(tmp_path, 8, bytes(150_000))
    code = FULL_DISK.replace("{save}", save)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "checkpoint-9 could not be written" in done.stdout
    assert re.search(r"expected: about 146\.6 KiB of room; [\d.]+ .iB are free", done.stdout), done.stdout
    assert "resume: checkpoint-8 is whole" in done.stdout
    assert names(tmp_path) == ["checkpoint-8"]
    assert is_whole(previous)


DAMAGES = [
    (lambda c: (c / "model.bin").write_bytes(b"weight"), "model.bin has 6 bytes, 7 expected"),
    (lambda c: (c / "model.bin").write_bytes(b""), "model.bin has 0 bytes, 7 expected"),
    (lambda c: (c / "optimizer" / "state.bin").unlink(), "optimizer/state.bin is missing, 7 bytes expected"),
    (lambda c: (c / MANIFEST).unlink(), "it has no manifest.json, which is written last"),
    (lambda c: (c / MANIFEST).write_text(""), "manifest.json cannot be read: Expecting value"),
    (lambda c: (c / MANIFEST).write_text('{"model.bin": 7'), "manifest.json cannot be read: Expecting ','"),
    (lambda c: (c / MANIFEST).write_bytes(b"\xff{}"), "manifest.json cannot be read: 'utf-8' codec"),
    (lambda c: (c / MANIFEST).write_text("[]"), "manifest.json is not a list of files"),
    (lambda c: (c / MANIFEST).write_text('{"model.bin": [7]}'), "manifest.json is not a list of files"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=[said[:20] for _, said in DAMAGES])
def test_a_damaged_checkpoint_is_not_whole_passed_over_and_explained(tmp_path, damage, said):
    good, torn = write(tmp_path, 2), write(tmp_path, 10)
    assert latest_checkpoint(tmp_path) == torn
    assert usable_checkpoint(tmp_path)[1] == []
    damage(torn)
    assert not is_whole(torn)
    assert latest_checkpoint(tmp_path) == good
    (reason,) = usable_checkpoint(tmp_path)[1]
    assert reason.startswith(f"checkpoint-10: {said}")


def flip(file, place=3):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_a_flipped_bit_is_found_by_the_checksum_alone(tmp_path):
    torn = write(tmp_path, 2)
    flip(torn / "optimizer" / "state.bin")
    assert is_whole(torn), "sizes are all that is looked at when a checkpoint is chosen"
    assert "optimizer/state.bin has the 7 bytes expected, but other contents" in (why_torn(torn, contents=True) or "")


def test_the_checksum_sees_every_piece_and_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "PIECE", 16)
    file = tmp_path / "model.bin"
    file.write_bytes(bytes(range(100)))
    whole = checksum(file)
    for place in range(100):
        flip(file, place)
        assert checksum(file) != whole
        flip(file, place)
    assert checksum(file) == whole
    file.write_bytes(bytes([*range(16, 32), *range(16), *range(32, 100)]))
    assert checksum(file) != whole
    file.write_bytes(b"")
    assert checksum(file) == "00000000"


def test_torn_checkpoints_are_put_aside_and_the_one_used_is_named(tmp_path):
    for step in (2, 4, 6, 8):
        write(tmp_path, step)
    (tmp_path / "checkpoint-2" / "model.bin").unlink()
    flip(tmp_path / "checkpoint-6" / "model.bin")
    (tmp_path / "checkpoint-8" / MANIFEST).unlink()
    (tmp_path / "torn-checkpoint-8").mkdir()
    (tmp_path / "torn-checkpoint-8" / "of-an-earlier-time").touch()
    lines = put_aside_torn(tmp_path)
    assert [line.partition(" is torn")[0] for line in lines] == ["checkpoint-8", "checkpoint-6", "checkpoint-2"]
    assert all("now called torn-checkpoint-" in line for line in lines)
    assert [line.partition("; ")[2] for line in lines] == ["going on from checkpoint-4"] * 2 + [""]
    assert names(tmp_path) == ["checkpoint-4", "torn-checkpoint-2", "torn-checkpoint-6", "torn-checkpoint-8"]
    assert not (tmp_path / "torn-checkpoint-8" / "of-an-earlier-time").exists()
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert put_aside_torn(tmp_path) == []
    assert put_aside_torn(tmp_path / "nowhere") == []


def test_when_all_are_torn_nothing_is_touched_and_a_person_decides(tmp_path):
    for step in (2, 4):
        (write(tmp_path, step) / "model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError) as caught:
        put_aside_torn(tmp_path)
    for piece in ("checkpoint-4: model.bin has 0 bytes, 7 expected", "checkpoint-2: ", "from a copy", "beginning"):
        assert piece in str(caught.value)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-4"]


def test_a_manifest_from_before_there_were_checksums_counts(tmp_path):
    checkpoint = write(tmp_path, 2)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    (checkpoint / MANIFEST).write_text(json.dumps({name: size for name, (size, _) in manifest.items()}))
    assert why_torn(checkpoint, contents=True) is None
    (checkpoint / "model.bin").write_bytes(b"x")
    assert why_torn(checkpoint) == "model.bin has 1 bytes, 7 expected"


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


# ---- what can be gone on from ----

WHOLE = ("model.safetensors", "optimizer.pt", "scheduler.pt")
SHARDS = ("pytorch_model_fsdp_0/.metadata", "optimizer_0/.metadata", "scheduler.pt")
ZERO = ("model.safetensors", "global_step2/mp_rank_00_model_states.pt", "latest")


def checkpoint_with(folder, files):
    for name in files:
        (folder / "checkpoint-2" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "checkpoint-2" / name).touch()
    return folder / "checkpoint-2"


@pytest.mark.parametrize("start", ["whole", "fsdp", "deepspeed"])
@pytest.mark.parametrize(
    ("files", "readable", "said", "fix"),
    [
        (WHOLE, "whole", "saved whole, by one process or under DDP", "--config ddp"),
        (SHARDS, "fsdp", "saved in shards, under FSDP", "--config fsdp2"),
        (("pytorch_model_fsdp.bin", "optimizer.bin", "scheduler.pt"), "fsdp", "under FSDP", "--config fsdp2"),
        (ZERO, "deepspeed", "saved under DeepSpeed", "--config zero2"),
    ],
)
def test_a_checkpoint_is_read_by_a_start_that_shards_alike(tmp_path, files, readable, said, fix, start):
    checkpoint = checkpoint_with(tmp_path, files)
    how = {"fsdp": start == "fsdp", "deepspeed": start == "deepspeed"}
    if start == readable:
        check_resumable(checkpoint, **how)
        return
    now = {"whole": "does not shard", "fsdp": "shards with FSDP", "deepspeed": "shards with DeepSpeed"}[start]
    with pytest.raises(ResumeError) as caught:
        check_resumable(checkpoint, **how)
    for piece in (said, f"this start {now}", fix, "--restart"):
        assert piece in str(caught.value)


@pytest.mark.parametrize("start", ["whole", "fsdp", "deepspeed"])
@pytest.mark.parametrize(
    ("files", "said"),
    [
        (WHOLE[:1], r"lacks the optimizer's state \(optimizer.pt\) and the schedule's state \(scheduler.pt\)"),
        (WHOLE[:2], r"lacks the schedule's state"),
        ((WHOLE[0], WHOLE[2]), r"lacks the optimizer's state \(optimizer.pt\): "),
        (SHARDS[:2], r"lacks the schedule's state"),
        ((SHARDS[0], SHARDS[2]), r"lacks the optimizer's state \(optimizer_0\): "),
        ((), "lacks"),
    ],
)
def test_a_checkpoint_without_its_optimizer_is_not_gone_on_from(tmp_path, files, said, start):
    """However it starts: so is what save_only_model leaves under DeepSpeed or FSDP."""
    with pytest.raises(ResumeError, match=said):
        check_resumable(checkpoint_with(tmp_path, files), fsdp=start == "fsdp", deepspeed=start == "deepspeed")


# ---- the state beside the model ----


def test_state_comes_back_and_a_checkpoint_of_another_trainer_or_time_is_refused(tmp_path):
    state = {"controller": {"g_last": 0.1 + 0.2, "kl": None, "step": 3}, "prompts": 17, "window": None}
    save_state(tmp_path, state)
    assert load_state(tmp_path) == {**state, "format": FORMAT}
    with pytest.raises(ResumeError, match="HybridTrainer wrote"):
        load_state(tmp_path / "nowhere")
    (tmp_path / STATE).write_text(json.dumps(state))
    with pytest.raises(ResumeError, match="has the format 1"):
        load_state(tmp_path)


def test_a_window_comes_back_bit_for_bit_in_its_order_or_is_missed(tmp_path):
    cut = Cut(rows=24, micro_batches=12, steps=4, iterations=1)
    share = {
        "completion_ids": torch.arange(72).reshape(24, 3),
        "mask": torch.tensor([True, False] * 12),
        "advantages.raw": torch.tensor([0.1, torch.nan] * 12),
        "num_items_in_batch": torch.tensor(7),
        "bf16": torch.arange(48, dtype=torch.bfloat16).reshape(2, 24).T,
    }
    save_window(tmp_path, 0, share | {"texts": ["not a tensor"] * 24})
    saved, here = describe_window(cut, 1), {"rank": 0, "world_size": 1, "device": torch.device("cpu")}
    loaded = load_window(tmp_path, saved, cut, **here)
    assert loaded.keys() == share.keys()
    for key, value in share.items():
        torch.testing.assert_close(loaded[key], value, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(ResumeError, match="now a window has 48 for 4, 1 times"):
        load_window(tmp_path, saved, cut._replace(rows=48), **here)
    (tmp_path / "rollouts-rank0.safetensors").write_bytes(b"torn")
    with pytest.raises(ResumeError, match=r"rollouts of the window .* cannot be read"):
        load_window(tmp_path, saved, cut, **here)
