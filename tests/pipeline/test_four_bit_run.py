"""A whole run on a base in 4 bits: stopped and gone on with, evaluated again, exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from posttrain.export.export import export
from posttrain.models.load import load_policy
from posttrain.rundir.facts import read_recipe
from tests.pipeline.runs import at_step, forked, lines
from tests.pipeline.test_killed import killed_and_resumed

FOUR_BIT = ("model.load_in_4bit=true", "model.init.hidden_size=64", "lora.r=4")
NF4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": False, "on_gpu": False}
IDS = torch.tensor([[3, 50, 12, 7, 99, 5]])


@pytest.fixture(scope="module")
def run(reference) -> Path:
    return reference(*FOUR_BIT)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_both_stages_train_an_adapter_in_float32(run):
    warmed, final = (load_file(run / stage / "adapter_model.safetensors") for stage in ("warmup", "model"))
    for values in (warmed, final):
        assert {each.dtype for each in values.values()} == {torch.float32}
        assert any("lora_B" in name and each.any() for name, each in values.items())
        # A trainer that rounds to bfloat16 leaves zeros in the lower half of each number
        assert any((each.view(torch.int32) & 0xFFFF).any() for each in values.values())
    assert any(not torch.equal(warmed[name], final[name]) for name in warmed)
    steps = lines(run, "steps.jsonl")
    assert {(line["mix"]["sft"], line["mix"]["grpo"]) for line in steps if line["stage"] == "hybrid"} == {
        (1, 0),
        (0, 1),
    }
    assert json.loads((run / "environment.json").read_text())["versions"]["bitsandbytes"]


@pytest.mark.parametrize(("stage", "step"), [("warmup", 3), ("hybrid", 5)])
def test_killed_and_resumed_equals_never_stopped(folder, reference, stage, step):
    killed_and_resumed(folder, reference, at_step(stage, step), FOUR_BIT)


def test_an_evaluation_is_repeated_to_the_digit(run):
    ended = forked(run.parent, "eval", "run")
    assert ended.code == 0, ended.text
    assert "every digit as the run recorded it" in ended.text


def test_a_smoke_test_tries_it_with_a_tiny_base_in_four_bits(folder):
    ended = forked(folder, "run", "recipe.yaml", "--smoke", *FOUR_BIT, "hybrid.controller=grpo_only", "warmup.steps=0")
    assert ended.code == 0, ended.text
    (tried,) = folder.glob("*-smoke/run/recipe.yaml")
    assert read_recipe(tried)["model"]["load_in_4bit"] is True


def test_a_merged_export_is_the_policy_that_was_evaluated(run, tmp_path):
    notes = export(run, tmp_path / "out", merge_lora=True).notes
    assert any("4 bits" in note for note in notes)
    policy = load_policy(run / "model", four_bit=NF4, trainable=False)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(merged), logits(policy), atol=1e-5)
    assert not torch.allclose(logits(load_policy(run / "model")), logits(policy), atol=1e-3)


def test_an_exported_adapter_says_what_it_was_trained_on(run, tmp_path):
    notes = export(run, tmp_path / "out", base_model="some/base").notes
    assert any("4 bits" in note for note in notes)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4'" in card
    assert read_recipe(tmp_path / "out" / "recipe.yaml")["model"]["load_in_4bit"] is True
