"""Checkpoints that several processes write and read: all of them have one whole, or all of them say why not."""

from __future__ import annotations

import json
import resource
import signal
import threading
import time
from pathlib import Path

import pytest
from transformers import TrainerCallback

from posttrain.controllers import Alternate
from posttrain.processes.ranks import Ranks
from posttrain.storage import checkpoints
from posttrain.storage.checkpoints import MANIFEST, STAGING, is_whole, staged
from tests.distributed.processes import ranks
from tests.distributed.runs import after_step, on_rank, on_ranks
from tests.distributed.training import Case, build, save_tiny

SAVING = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 4, "kl_sample": 0.0}
CASE = Case(Alternate(sft_steps=1, grpo_steps=1), {**SAVING, "steps_per_generation": 2, "num_iterations": 2})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def told(work) -> tuple[str, str, bool] | None:
    """The error that the work ends with, and whether every process knows that all of them raise it."""
    try:
        work()
    except Exception as error:
        return type(error).__name__, str(error), getattr(error, "shared", False)
    return None


def files_only(small: bool) -> None:
    """Let no file grow beyond 10,000 bytes (more than a process prints), which is a full disk to this process alone."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000 if small else hard, hard))


class Full(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            files_only(small=True)


# ---- staged, by itself ----


def stage(folder: Path, us: Ranks, name: str, full: tuple[int, ...] = ()) -> None:
    with staged(folder, name, ranks=us) as staging:
        (staging / name).mkdir(exist_ok=True)
        (staging / name / f"rank{us.number}.bin").write_bytes(b"x" * (us.number + 1))
        if us.number in full:
            Path("/dev/full").write_text("no room")


def stagings(folder: Path) -> dict:
    us = Ranks.join(on_cpu=True, time_limit_s=60)
    checkpoints.VISIBLE_WITHIN_S = 2.0
    stage(folder, us, "checkpoint-1")
    us.wait()
    seen = {"published": names(folder), "whole": is_whole(folder / "checkpoint-1")}
    us.wait()  # the other one has looked, too
    for full in ((0,), (1,), (0, 1)):
        said = told(lambda full=full: stage(folder, us, "checkpoint-2", full))
        us.wait()
        seen[full] = said, names(folder)
        us.wait()
    us.decided(lambda: (folder / "checkpoint-3").write_text("in the way"))
    seen["in the way"] = told(lambda: stage(folder / "checkpoint-3", us, "checkpoint-4"))

    own = folder if us.is_main else folder / "other node"  # which sees the main process's files never or late
    seen["apart"] = told(lambda: stage_apart(own, us, "checkpoint-5")), names(folder)
    if us.is_main:
        threading.Thread(target=bring, args=(folder / "other node" / STAGING, folder / STAGING)).start()
    began = time.monotonic()
    seen["late"] = told(lambda: stage_apart(own, us, "checkpoint-6"))
    seen["waited"] = time.monotonic() - began
    return seen


def stage_apart(folder: Path, us: Ranks, name: str) -> None:
    with staged(folder, name, ranks=us) as staging:
        (staging / name).mkdir(parents=True, exist_ok=True)
        (staging / name / f"rank{us.number}.bin").write_bytes(b"x" * (us.number + 1))


def bring(there: Path, here: Path) -> None:
    """What a network file system does: another node's file is short, and whole after a second."""
    time.sleep(0.5)
    (here / "checkpoint-6" / "rank1.bin").write_bytes(b"x")
    time.sleep(0.5)
    (here / "checkpoint-6" / "rank1.bin").write_bytes((there / "checkpoint-6" / "rank1.bin").read_bytes())


@pytest.fixture(scope="module")
def of_staging(tmp_path_factory):
    folder = tmp_path_factory.mktemp("staging") / "checkpoints"
    return folder, ranks(2, stagings, folder, folder=folder.parent / "logs", time_limit_s=60)


def test_what_all_wrote_is_published_once(of_staging):
    folder, both = of_staging
    for seen in both:
        assert seen["published"] == ["checkpoint-1"]
        assert seen["whole"]
    assert json.loads((folder / "checkpoint-1" / MANIFEST).read_text()).keys() == {"rank0.bin", "rank1.bin"}


@pytest.mark.parametrize("full", [(0,), (1,), (0, 1)])
def test_when_one_cannot_write_all_say_so_in_the_same_words(of_staging, full):
    (mine, left), (others, _) = (seen[full] for seen in of_staging[1])
    assert mine == others
    kind, text, shared = mine
    assert kind == "CheckpointError"
    assert "checkpoint-2 could not be written: [Errno 28] No space left on device" in text
    assert "then resume: checkpoint-1 is whole" in text
    assert shared
    assert left == ["checkpoint-1"]


def test_a_staging_folder_that_cannot_be_made_is_every_ones_error(of_staging):
    for seen in of_staging[1]:
        kind, text, shared = seen["in the way"]
        assert (kind, shared) == ("CheckpointError", True)
        assert "checkpoint-4 could not be written: [Errno 20] Not a directory" in text


def test_a_file_of_another_node_that_never_comes_is_an_error(of_staging):
    for seen in of_staging[1]:
        (kind, text, shared), left = seen["apart"]
        assert (kind, shared) == ("CheckpointError", True)
        assert "rank1.bin with 2 bytes, which rank 1 sees, cannot be seen by the main process after 2 s" in text
        assert "a file system that all nodes share" in text
        assert "checkpoint-5" not in left


def test_a_file_of_another_node_that_comes_late_is_waited_for_and_sealed(of_staging):
    folder, both = of_staging
    for seen in both:
        assert seen["late"] is None
        assert 0.9 < seen["waited"] < 2.0
    manifest = json.loads((folder / "checkpoint-6" / MANIFEST).read_text())
    assert {name: size for name, (size, _) in manifest.items()} == {"rank0.bin": 1, "rank1.bin": 2}
    assert is_whole(folder / "checkpoint-6")


# ---- trainers ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trainings")


@pytest.fixture(scope="module")
def tiny(folder):
    return save_tiny(folder / "tiny")


def full_on(rank: int, model_folder: Path, output: Path):
    """Training that one process cannot save after its second step: how it ends, and what is left."""
    us = Ranks.join(on_cpu=True, time_limit_s=60)
    callbacks = [Full()] if us.number == rank else []
    try:
        said = told(build(model_folder, output, CASE, callbacks=callbacks).train)
    finally:
        files_only(small=False)
    us.wait()
    us.wait()
    return said, [name for name in names(output) if name.startswith((".", "checkpoint-"))]


def goes_on(model_folder: Path, output: Path, resume=True):
    """Going on: how it ends, and how many files' checksums this process compared before its first step."""
    counted: list[Path] = []
    original = checkpoints.checksum

    class Stop(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            checkpoints.checksum = original

    trainer = build(model_folder, output, CASE, callbacks=[Stop()])
    checkpoints.checksum = lambda path: counted.append(path) or original(path)
    said = told(lambda: trainer.train(resume_from_checkpoint=resume))
    checkpoints.checksum = original
    return said, len(counted), trainer.state.global_step


def under_ddp(model_folder: Path, folder: Path) -> dict:
    seen = {f"full on {rank}": full_on(rank, model_folder, folder / f"ddp{rank}") for rank in (0, 1)}
    seen["goes on"] = goes_on(model_folder, folder / "ddp1")
    return seen


def under_fsdp(model_folder: Path, folder: Path) -> dict:
    return {
        "full on 1": full_on(1, model_folder, folder / "fsdp"),
        "from ddp": goes_on(model_folder, folder / "ddp1", str(folder / "ddp1" / "checkpoint-1")),
        "goes on": goes_on(model_folder, folder / "fsdp"),
    }


@pytest.fixture(scope="module")
def ddp(tiny, folder):
    return ranks(2, under_ddp, tiny, folder, folder=folder / "logs of ddp", time_limit_s=120)


@pytest.fixture(scope="module")
def fsdp(tiny, folder, ddp):
    return ranks(2, under_fsdp, tiny, folder, folder=folder / "logs of fsdp", time_limit_s=120, fsdp=True)


def assert_all_told(both, rank):
    (mine, left), (others, _) = (seen[f"full on {rank}"] for seen in both)
    kind, text, shared = mine
    assert mine == others
    assert (kind, shared) == ("CheckpointError", True)
    assert "checkpoint-2 could not be written: " in text
    assert "then resume: checkpoint-1 is whole" in text
    assert left == ["checkpoint-1"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_disk_that_is_full_for_one_process_ends_all_in_the_same_words(ddp, rank):
    assert_all_told(ddp, rank)


def test_a_shard_that_cannot_be_written_ends_all(fsdp):
    for seen in fsdp:
        (kind, text, shared), left = seen["full on 1"]
        assert (kind, shared) == ("CheckpointError", True)
        assert "checkpoint-2 could not be written: " in text
        assert "(rank 1)" in text
        assert "then resume: checkpoint-1 is whole" in text
        assert left == ["checkpoint-1"]


def test_the_main_process_alone_compares_checksums_and_all_go_on(ddp):
    (main, compared, step), (other, none, other_step) = (seen["goes on"] for seen in ddp)
    assert main is other is None
    assert compared > 5
    assert none == 0
    assert (step, other_step) == (2, 2)


def test_shards_go_on_as_shards(fsdp):
    for seen in fsdp:
        said, _, step = seen["goes on"]
        assert (said, step) == (None, 2)


def test_shards_are_refused_by_one_process(fsdp, tiny, folder):
    ((said, _, step),) = ranks(1, goes_on, tiny, folder / "fsdp", folder=folder / "logs of one", time_limit_s=60)
    kind, text, _ = said
    assert kind == "ResumeError"
    assert "was saved in shards, under FSDP, and this start does not shard" in text
    assert "--config fsdp2" in text
    assert "--restart" in text
    assert step == 0


def test_a_whole_checkpoint_is_refused_by_processes_that_shard(fsdp):
    for seen in fsdp:
        (kind, text, shared), _, step = seen["from ddp"]
        assert (kind, shared, step) == ("ResumeError", True, 0)
        assert "checkpoint-1 was saved whole, by one process or under DDP, and this start shards with FSDP" in text
        assert "--config ddp" in text


# ---- a whole run ----


def full() -> None:
    files_only(small=True)


def test_a_run_says_once_which_process_could_not_write(tmp_path):
    from tests.pipeline.runs import write_recipe

    run = write_recipe(tmp_path)
    main, other = on_ranks(run, fault=on_rank(1, after_step("hybrid", 4, full)), codes=[1, 1])
    assert "checkpoint-4 could not be written: " in main.text
    assert "rank 1" in main.text
    assert "checkpoint-2 is whole" in main.text
    assert "Traceback" not in main.text + other.text
    assert "could not be written" not in other.text
