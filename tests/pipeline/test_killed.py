"""Killed with SIGKILL and started again equals never killed, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from posttrain.storage.checkpoints import is_whole
from tests.pipeline.runs import (
    ONE_THREAD,
    assert_same_run,
    at_step,
    before_line_of_evaluation,
    in_evaluation,
    lines,
    train,
    while_saving,
)

ALTERNATE = ("hybrid.controller.name=alternate", "hybrid.controller.sft_steps=2", "hybrid.controller.grpo_steps=3")
WINDOW = ("hybrid.controller.name=grpo_only", "hybrid.grpo.steps_per_generation=4", "hybrid.save_steps=1")
BLEND = ("hybrid.controller.name=sasr", "hybrid.controller.mode=blend", "hybrid.gradient_accumulation_steps=2")
LORA = ("lora.r=4", "lora.lora_dropout=0.2")


def killed_and_resumed(folder, reference, fault, overrides=()):
    ended = train(folder, *overrides, fault=fault)
    assert ended.code == -signal.SIGKILL, ended.text
    ended = train(folder, *overrides, "--resume")
    assert ended.code == 0, ended.text
    assert_same_run(reference(*overrides), folder / "run")
    return ended.text


@pytest.mark.parametrize("step", [1, 3, 5], ids=["before-any-checkpoint", "middle", "second-epoch"])
def test_in_the_warmup(folder, reference, step):
    said = killed_and_resumed(folder, reference, at_step("warmup", step))
    assert ("warmup after step" in said) == (step > 1)
    assert lines(folder / "run", "steps.jsonl")[4]["demonstration_cursor"] == 20  # of 12: the second epoch


def test_in_the_second_epoch_of_the_prompts(folder, reference):
    done = lines(reference(), "steps.jsonl")
    step = next(line["step"] for line in done if line.get("prompt_cursor", 0) > 10 and line["step"] % 2)
    said = killed_and_resumed(folder, reference, at_step("hybrid", step))
    assert f"hybrid after step {step - 1} of 10" in said


def test_inside_a_generation_window(folder, reference):
    killed_and_resumed(folder, reference, at_step("hybrid", 7), WINDOW)
    cursors = [line["prompt_cursor"] for line in lines(folder / "run", "steps.jsonl") if line["stage"] == "hybrid"]
    assert cursors == [16] * 4 + [32] * 4 + [48] * 2


@pytest.mark.parametrize("step", [3, 6], ids=["SFT-to-GRPO", "GRPO-to-SFT"])
def test_right_after_a_switch(folder, reference, step):
    overrides = (*ALTERNATE, "hybrid.save_steps=1")
    killed_and_resumed(folder, reference, at_step("hybrid", step), overrides)
    mixes = [line["mix"]["sft"] for line in lines(folder / "run", "steps.jsonl") if line["stage"] == "hybrid"]
    assert mixes == [1.0, 1.0, 0.0, 0.0, 0.0] * 2


def test_in_a_blend_with_accumulated_gradients(folder, reference):
    killed_and_resumed(folder, reference, at_step("hybrid", 5), BLEND)


@pytest.mark.parametrize("place", [("warmup", 3), ("hybrid", 7)], ids=["warmup", "hybrid"])
def test_under_lora_with_dropout(folder, reference, place):
    killed_and_resumed(folder, reference, at_step(*place), LORA)
    assert not list((folder / "run" / "model").glob("model*.safetensors"))


@pytest.mark.parametrize("stage", ["start", "warmup", "hybrid", "final"])
def test_while_evaluating(folder, reference, stage):
    killed_and_resumed(folder, reference, in_evaluation(stage))


@pytest.mark.parametrize("stage", ["hybrid", "final"])
def test_between_an_evaluation_and_its_line(folder, reference, stage):
    killed_and_resumed(folder, reference, before_line_of_evaluation(stage))


@pytest.mark.parametrize("name", ["init", "warmup", "model", "checkpoint-2"])
def test_while_saving(folder, reference, name):
    killed_and_resumed(folder, reference, while_saving(name))
    run = folder / "run"
    checkpoints = list((run / "checkpoints").glob("*/checkpoint-*"))
    assert all(is_whole(path) for path in checkpoints), checkpoints
    assert not list(run.rglob("*.staging*")), "what was half written is still there"


@pytest.mark.slow
def test_from_outside_at_any_moment(folder, reference):
    """Nothing patched: a fresh interpreter, killed when steps.jsonl has grown to a length, twice over."""
    start = [sys.executable, "-m", "posttrain", "run", "recipe.yaml"]
    for length in (4, 10):
        process = subprocess.Popen(start, cwd=folder, env={**os.environ, **ONE_THREAD}, stderr=subprocess.DEVNULL)
        file = folder / "run" / "steps.jsonl"
        while process.poll() is None and not (file.exists() and file.read_bytes().count(b"\n") >= length):
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    ended = train(folder)
    assert ended.code == 0, ended.text
    assert_same_run(reference(), folder / "run")


def test_twice_in_the_same_place(folder, reference):
    for _ in range(2):
        assert train(folder, fault=at_step("hybrid", 5)).code == -signal.SIGKILL
    assert train(folder).code == 0
    assert_same_run(reference(), folder / "run")
