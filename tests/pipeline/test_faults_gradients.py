"""Gradients that are really NaN: the step is skipped, counted and told, and too many of them end the run."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.pipeline.runs import (
    assert_same_run,
    at_step,
    both,
    infinite_weight,
    interrupt,
    kill,
    lines,
    nan_gradient,
    train,
    write_recipe,
)

EVERY = ("hybrid.save_steps=1", "warmup.save_steps=1")


def stage(folder, name):
    return [line for line in lines(folder / "run", "steps.jsonl") if line["stage"] == name]


def skipped(folder, name):
    return [line["step"] for line in stage(folder, name) if line["skipped"]]


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [tensor for part in parts for tensor in tensors(part)]


def weights_and_moments(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    optimizer = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    return [*weights.values(), *tensors(optimizer)]


@pytest.mark.parametrize("fault", [nan_gradient, infinite_weight])
@pytest.mark.parametrize("name", ["warmup", "hybrid"])
def test_a_skipped_step_changes_neither_parameters_nor_the_optimizer(folder, name, fault):
    sft = ("hybrid.controller.name=sft_only",) if fault is infinite_weight else ()
    ended = train(folder, *sft, *EVERY, fault=both(fault(name, 4), at_step(name, 4, interrupt)))
    assert ended.code == 130, ended.text
    assert f"{name}, step 4: skipped, for its gradient was not finite; the model is as it was" in ended.text
    before, after = (
        weights_and_moments(folder / "run" / "checkpoints" / name / f"checkpoint-{step}") for step in (3, 4)
    )
    assert len(before) == len(after) > 20
    assert all(one.equal(other) for one, other in zip(before, after, strict=True))
    ended = train(folder, *sft, *EVERY)
    assert ended.code == 0, ended.text
    assert skipped(folder, name) == [4]


def test_skipped_steps_are_counted_in_the_end_and_in_the_report(folder):
    ended = train(folder, *EVERY, fault=both(nan_gradient("warmup", 2), nan_gradient("hybrid", 5, 6)))
    assert ended.code == 0, ended.text
    assert "1 of the 5 steps of the warmup were skipped" in ended.text
    assert "2 of the 10 steps of the hybrid were skipped" in ended.text
    assert (skipped(folder, "warmup"), skipped(folder, "hybrid")) == ([2], [5, 6])
    page = (folder / "run" / "report.html").read_text()
    row = page[page.index("Skipped steps") :][:200]
    assert ">3<" in row.replace(" ", "").replace("\n", "")

    line = stage(folder, "warmup")[1]
    assert (line["sft_norm"], line["grad_norm"]) == (None, None)
    norms = [line["sft_norm"] for line in stage(folder, "warmup") if not line["skipped"]]
    done = json.loads((folder / "run" / "state.json").read_text())["done"]
    assert done["warmup"]["g_warmup"] == pytest.approx(sum(norms) / 4)

    # No checkpoint between them, and one as soon as a step counts again
    for name, absent in (("warmup", {2}), ("hybrid", {5, 6})):
        kept = {path.name for path in (folder / "run" / "checkpoints" / name).iterdir()}
        assert kept == {f"checkpoint-{line['step']}" for line in stage(folder, name) if line["step"] not in absent}


def test_a_checkpoint_that_was_due_in_a_skipped_step_follows(folder):
    assert train(folder, fault=nan_gradient("hybrid", 4)).code == 0
    kept = {path.name for path in (folder / "run" / "checkpoints" / "hybrid").iterdir()}
    assert kept == {f"checkpoint-{step}" for step in (2, 5, 6, 8, 10)}


def test_killed_and_resumed_around_skipped_steps_equals_never_killed(folder, tmp_path):
    poison = both(nan_gradient("warmup", 3), nan_gradient("hybrid", 5, 7))
    never = write_recipe(tmp_path / "never")
    assert train(never, fault=poison).code == 0
    assert train(folder, fault=both(poison, at_step("warmup", 4, kill))).code < 0
    assert train(folder, fault=both(poison, at_step("hybrid", 7, kill))).code < 0
    ended = train(folder, fault=poison)
    assert ended.code == 0, ended.text
    assert_same_run(never / "run", folder / "run")


@pytest.mark.parametrize("name", ["warmup", "hybrid"])
def test_too_many_in_a_row_end_the_run_even_with_a_stop_between_them(folder, name):
    limit = (*EVERY, f"{name}.max_skipped_steps=2")
    poison = nan_gradient(name, 2, 3, 4)
    assert train(folder, *limit, fault=both(poison, at_step(name, 3, interrupt))).code == 130
    ended = train(folder, *limit, fault=poison)
    assert ended.code == 1, ended.text
    assert "step 4: the gradient was not finite 3 steps in a row (" in ended.text
    assert "max_skipped_steps = 2 of them" in ended.text
    assert "--accept-changes" in ended.text
    assert "Traceback" not in ended.text
    assert skipped(folder, name) == [2, 3]


def test_a_warmup_may_not_end_in_skipped_steps(folder):
    ended = train(folder, *EVERY, fault=nan_gradient("warmup", 4, 5))
    assert ended.code == 1, ended.text
    assert "step 5: the gradient was not finite 2 steps in a row (the last ones)" in ended.text
    names = {path.name for path in (folder / "run" / "checkpoints" / "warmup").iterdir()}
    assert names == {"checkpoint-1", "checkpoint-2", "checkpoint-3"}
    ended = train(folder, *EVERY)  # what made them NaN is gone
    assert ended.code == 0, ended.text
    assert "warmup after step 3 of 5" in ended.text


def test_weights_that_are_not_finite_any_more_say_so(folder):
    """A learning rate that no gradient survives: the next rollouts cannot be sampled."""
    ended = train(folder, "hybrid.learning_rate=1.0e+38", "hybrid.controller.name=grpo_only", "warmup.steps=0")
    assert ended.code == 1, ended.text
    assert "the model's logits are not finite, so that nothing can be sampled from it" in ended.text
    assert "lower the learning rate" in ended.text
    assert "Traceback" not in ended.text
