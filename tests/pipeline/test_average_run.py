"""A run that averages its last checkpoints, and one that begins with several models as one."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file

from posttrain.cli import main
from tests.pipeline.runs import lines, train

AVERAGED = (
    "hybrid.average={last: 3, weights: [0.2, 0.3, 0.5]}", "hybrid.save_steps=2", "hybrid.save_total_limit=3",
    "hybrid.steps=6", "evaluate.every=0", "evaluate.at_start=false",
)  # fmt: skip


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_the_last_checkpoints_are_averaged_beside_the_final_model(folder, tmp_path):
    ended = train(folder, *AVERAGED)
    assert ended.code == 0, ended.text
    run = folder / "run"
    assert "averaging 3 checkpoints: 0.2 of step 2, 0.3 of step 4, 0.5 of step 6" in ended.text
    parts = [weights(run / "checkpoints" / "hybrid" / f"checkpoint-{step}") for step in (2, 4, 6)]
    found = weights(run / "averaged")
    for name, value in found.items():
        hand = sum(ratio * part[name] for ratio, part in zip((0.2, 0.3, 0.5), parts, strict=True))
        torch.testing.assert_close(value, hand)
    assert [line["stage"] for line in lines(run, "eval.jsonl")] == ["warmup", "averaged", "final"]
    assert json.loads((run / "state.json").read_text())["done"]["averaged"]["checkpoints"] == [2, 4, 6]
    assert main(["export", str(run), "--stage", "averaged", "--to", str(tmp_path / "out")]) == 0
    assert all(torch.equal(value, found[name]) for name, value in weights(tmp_path / "out").items())
    assert "Average of checkpoints" in (tmp_path / "out" / "README.md").read_text()

    start = (
        f"model={{merge: {{models: ['{run}/warmup', '{run}/averaged'], ratios: [0.5, 0.5]}}}}",
        "warmup.steps=0",
        "hybrid.controller={name: grpo_only}",
    )
    ended = train(folder, *start, "hybrid.steps=1", "evaluate.every=0", "run.dir=merged")
    assert ended.code == 0, ended.text
    assert "merging 0.5 * " in ended.text
    merged, warmed = weights(folder / "merged" / "merged"), weights(run / "warmup")
    assert all(torch.equal(value, 0.5 * warmed[name] + 0.5 * found[name]) for name, value in merged.items())
