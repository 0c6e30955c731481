"""A run whose adapter begins with a part of the base: what it begins with, stopped and resumed, and exported."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from posttrain.cli import main
from posttrain.models.load import load_policy
from posttrain.reading.compare_weights import run_changes
from posttrain.rundir.layout import Layout
from tests.pipeline.runs import at_step, interrupt, lines, train

LORA = ("hybrid.steps=4", "warmup.steps=3", "evaluate.every=0", "lora={kind: pissa, r: 4, lora_alpha: 4}")
IDS = torch.tensor([[5, 9, 2, 40, 7]])


def logits(folder):
    with torch.no_grad():
        return load_policy(folder, trainable=False).eval()(IDS).logits


def test_pissa_begins_as_the_base_and_stays_what_it_is(folder, tmp_path):
    ended = train(folder, *LORA)
    assert ended.code == 0, ended.text
    run = folder / "run"
    torch.testing.assert_close(logits(run / "rest" / "adapter"), logits(run / "init"), atol=1e-5, rtol=1e-5)
    config = json.loads((run / "model" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str((run / "rest").resolve())
    assert config["init_lora_weights"] is True
    assert main(["export", str(run), "--merge-lora", "--to", str(tmp_path / "out")]) == 0
    torch.testing.assert_close(logits(tmp_path / "out"), logits(run / "model"), atol=1e-5, rtol=1e-5)
    change = run_changes(Layout(run))["start"]  # of the adapter to what it began with, not of all that is in it
    assert 0 < change.relative_l2 < 1

    cut = folder / "cut"
    assert train(folder, *LORA, "run.dir=cut", fault=at_step("hybrid", 2, interrupt)).code == 130
    assert train(folder, *LORA, "run.dir=cut").code == 0
    whole, again = (load_file(one / "model" / "adapter_model.safetensors") for one in (run, cut))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    one, other = (lines(one, "eval.jsonl") for one in (run, cut))
    assert [line["pass@1"] for line in one] == [line["pass@1"] for line in other]


def ranks(folder):
    values = load_file(folder / "adapter_model.safetensors")
    return {name: (value != 0).flatten().tolist() for name, value in values.items() if "lora_E" in name}


@pytest.mark.parametrize("stage", ["warmup", "hybrid"])
def test_adalora_spends_its_budget_in_the_warmup_and_keeps_the_ranks(folder, tmp_path, stage):
    adalora = (*LORA[:3], "lora={kind: adalora, r: 2, lora_alpha: 8, args: {init_r: 5, tfinal: 1}}")
    assert train(folder, *adalora, "warmup.save_steps=1").code == 0
    run = folder / "run"
    left = ranks(run / "warmup")
    assert sum(map(sum, left.values())) == 2 * len(left)
    assert {len(kept) for kept in left.values()} == {5}
    assert ranks(run / "model") == left
    assert main(["export", str(run), "--merge-lora", "--to", str(tmp_path / "out")]) == 0
    torch.testing.assert_close(logits(tmp_path / "out"), logits(run / "model"), atol=1e-5, rtol=1e-5)

    again = (*adalora, "warmup.save_steps=1", "run.dir=cut")
    assert train(folder, *again, fault=at_step(stage, 2, interrupt)).code == 130
    assert train(folder, *again).code == 0
    whole, cut = (load_file(folder / name / "model" / "adapter_model.safetensors") for name in ("run", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    ("overrides", "seen"),
    [
        (["lora={kind: pissa, r: 64}"], "r: 64"),
        (["lora={kind: dora}", "hybrid.average={last: 2}"], "average, and"),
    ],
)
def test_what_cannot_be_split_or_averaged_is_said_before_a_step(folder, overrides, seen):
    ended = train(folder, *LORA[:3], *overrides)
    assert ended.code == 2, ended.text
    assert seen in ended.text
    assert not (folder / "run" / "steps.jsonl").exists()
