"""A warm-up whose model is the average of the weights that trained."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.pipeline.runs import at_step, interrupt, train

pytest.importorskip("schedulefree")

FREE = (
    "hybrid.steps=1", "evaluate.every=0", "evaluate.at_start=false", "warmup.lr_scheduler_type=constant",
    "warmup.args.optim=schedule_free_adamw", "warmup.save_steps=1",
)  # fmt: skip


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_the_average_is_handed_on_and_a_stop_changes_nothing(folder):
    ended = train(folder, *FREE)
    assert ended.code == 0, ended.text
    run = folder / "run"
    trained, handed_on = weights(run / "checkpoints/warmup/checkpoint-5"), weights(run / "warmup")
    assert any(not torch.equal(value, trained[name]) for name, value in handed_on.items())
    assert train(folder, *FREE, "run.dir=cut", fault=at_step("warmup", 3, interrupt)).code == 130
    assert train(folder, *FREE, "run.dir=cut").code == 0
    again = weights(folder / "cut" / "warmup")
    assert all(torch.equal(value, again[name]) for name, value in handed_on.items())
