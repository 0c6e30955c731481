"""What goes wrong on one process only, under a `HybridTrainer` on two: all of them do the same about it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from posttrain.controllers import SASR, Mix, SFTOnly, Static
from posttrain.processes.ranks import Ranks
from posttrain.storage.checkpoints import seal
from posttrain.training.ledger import FolderRecorder
from tests.distributed.processes import ranks
from tests.distributed.training import Case, StopAt, build, save_tiny

SIZE = {"per_device_train_batch_size": 4, "kl_sample": 0.0}


class Tamper(TrainerCallback):
    """Changes what one process holds."""

    def __init__(self, step, change):
        self.step, self.change, self.trainer = step, change, None

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step and not state.is_world_process_zero:
            self.change(self.trainer)


class Contrary(Static):
    """Would have the second process do the opposite."""

    contrary = False

    def decide(self, state):
        mix = super().decide(state)
        return Mix(mix.grpo, mix.sft, p=mix.p, reason="the opposite") if self.contrary else mix


class Broken(Static):
    def decide(self, state):
        raise ZeroDivisionError("in the controller")


class FullDisk(FolderRecorder):
    """Can't write one of its files."""

    def __init__(self, folder, file):
        super().__init__(folder)
        self.file = file

    def forget_after(self, step):
        self._fail("start")

    def step(self, record):
        self._fail(f"step {record['step']}")

    def completions(self, step, rows):
        self._fail(f"completions {step}")

    def _fail(self, file):
        if file == self.file:
            raise OSError(28, "No space left on device", file)


def run(trainer, resume=False):
    """The error that a training ends with, and whether every process knows that all of them raise it."""
    try:
        trainer.train(resume_from_checkpoint=resume)
    except Exception as error:
        return type(error).__name__, str(error), getattr(error, "shared", False)
    return None


def troubles(model_folder: Path, folder: Path) -> dict:
    """All cases one after the other; a case that leaves a process waiting stops this by the time limit."""
    us = Ranks.join(on_cpu=True, time_limit_s=60)
    seen: dict = {}

    def make(name, controller, callbacks=None, agreement=None, recorder=None, **changes):
        case = Case(controller, {**SIZE, "max_steps": 6, **changes})
        more = {"callbacks": callbacks, "agreement": agreement, "recorder": recorder}
        trainer = build(model_folder, folder / name, case, **more)
        for callback in callbacks or ():
            callback.trainer = trainer
        return trainer

    def drift(trainer):
        trainer.controller_state = {**trainer.controller_state, "g_last": 1e6}

    seen["state"] = run(make("state", SASR(), [Tamper(3, drift)], compare_ranks_every=2))
    trainer = make("cursor", SFTOnly(), [Tamper(1, lambda t: t.sft.stream.take(1))], compare_ranks_every=2)
    seen["cursor"] = run(trainer)
    seen["never"] = run(make("never", SASR(), [Tamper(3, drift)], compare_ranks_every=0))
    seen["agreement"] = run(make("agreement", SASR(), agreement={"recipe": f"hash {us.number}"}))

    controller = Contrary(sft_share=0.5)
    controller.contrary = not us.is_main
    trainer = make("contrary", controller)
    seen["contrary"] = (
        run(trainer),
        trainer.last_record["reason"],
        trainer.last_record["mix"],
        trainer.sft.stream.cursor,
    )
    seen["broken"] = run(make("broken", Broken()))

    for file in ("start", "step 2", "completions 2"):
        trainer = make(file, Static(sft_share=0.0), recorder=FullDisk(folder / file, file))
        seen[f"disk, {file}"] = run(trainer), trainer.state.global_step

    trainer = make("sampling", Static(sft_share=0.0))
    trainer._seeded.sample = _fails_on_the_second(trainer._seeded.sample, trainer)
    seen["sampling"] = run(trainer), trainer.state.global_step

    def poisoned(name, steps, **changes):
        trainer = make(name, SFTOnly(), gradient_accumulation_steps=2, **changes)
        skipped: list[bool] = []
        handle = trainer.model.get_output_embeddings().weight.register_hook(
            lambda g: g * math.nan if not us.is_main and trainer.state.global_step + 1 in steps else g
        )
        trainer.add_callback(_Noted(trainer, skipped))
        error = run(trainer)
        handle.remove()
        finite = all(bool(torch.isfinite(p).all()) for p in trainer.model.parameters())
        return error, skipped, finite

    seen["nan"] = poisoned("nan", {2, 3})
    seen["fatal"] = poisoned("fatal", {2, 3, 4}, max_skipped_steps=2)

    windows = {"steps_per_generation": 4, "compare_ranks_every": 0}
    assert run(make("window", Static(sft_share=0.0), [StopAt(2)], **windows)) is None
    checkpoint = folder / "window" / "checkpoint-2"
    us.wait()
    if us.is_main:
        (checkpoint / "rollouts-rank1.safetensors").write_bytes(b"torn")
        (checkpoint / "manifest.json").unlink()
        seal(checkpoint)
    us.wait()
    seen["window"] = run(make("window", Static(sft_share=0.0), **windows), resume=True)
    return seen


def _fails_on_the_second(sample, trainer):
    def failing(*args, **kwargs):
        if trainer.state.global_step == 2 and not trainer.ranks.is_main:
            raise torch.OutOfMemoryError("while sampling")
        return sample(*args, **kwargs)

    return failing


class _Noted(TrainerCallback):
    def __init__(self, trainer, skipped):
        self.trainer, self.skipped = trainer, skipped

    def on_step_end(self, args, state, control, **kwargs):
        self.skipped.append(self.trainer.last_record["skipped"])


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("troubles")
    return ranks(2, troubles, save_tiny(folder / "model"), folder, folder=folder)


def test_processes_that_drifted_apart_stop_with_what_differs(seen):
    for of in seen:
        kind, text, shared = of["state"]
        assert (kind, shared) == ("TrainingError", True)
        assert "after step 4: the processes have drifted apart:" in text
        assert "controller's g_last: " in text
        assert "1000000.0 (rank 1)" in text
        assert "cursor" not in text
        assert "demonstration cursor: 16 (rank 0), 17 (rank 1)" in of["cursor"][1]
        assert of["never"] is None


def test_what_the_processes_are_told_is_compared_before_the_first_step(seen):
    for of in seen:
        assert "before the first step: the processes have drifted apart:" in of["agreement"][1]
        assert "recipe: 'hash 0' (rank 0), 'hash 1' (rank 1)" in of["agreement"][1]


def test_the_main_process_decides_for_all(seen):
    one, two = (of["contrary"] for of in seen)
    assert one == two
    assert one[0] is None
    assert one[1] != "the opposite"


def test_an_error_in_the_decision_reaches_all(seen):
    assert seen[0]["broken"] == ("ZeroDivisionError", "in the controller", True)
    assert seen[1]["broken"] == ("TrainingError", "rank 0: ZeroDivisionError: in the controller", True)


def test_a_gradient_that_is_not_finite_on_one_process_is_skipped_on_all(seen):
    for of in seen:
        assert of["nan"] == (None, [False, True, True, False, False, False], True)
        (kind, text, shared), skipped, finite = of["fatal"]
        assert (kind, shared) == ("TrainingError", True)
        assert "3 steps in a row" in text
        assert (skipped, finite) == ([False, True, True], True)


def test_a_file_that_one_process_cannot_read_stops_all(seen):
    for of in seen:
        kind, text, shared = of["window"]
        assert (kind, shared) == ("ResumeError", True)
        assert "rollouts-rank1.safetensors" in text


@pytest.mark.parametrize(("file", "steps"), [("start", 0), ("step 2", 2), ("completions 2", 1)])
def test_what_the_main_process_cannot_record_ends_all(seen, file, steps):
    one, two = (of[f"disk, {file}"] for of in seen)
    assert one == (("OSError", f"[Errno 28] No space left on device: '{file}'", True), steps)
    assert two == (("TrainingError", f"rank 0: OSError: [Errno 28] No space left on device: '{file}'", True), steps)


def test_a_process_that_cannot_sample_ends_all(seen):
    one, two = (of["sampling"] for of in seen)
    assert one == (("TrainingError", "rank 1: OutOfMemoryError: while sampling", True), 2)
    assert two == (("OutOfMemoryError", "while sampling", True), 2)
