"""A run that makes a new model compatible with the one before: from two finished runs, killed, on two processes."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from posttrain.cli import main
from tests.distributed.runs import on_ranks
from tests.pipeline.runs import at_step, lines, train, write_recipe

ALONE = ("hybrid.steps=0", "hybrid.controller=sft_only", "evaluate.at_start=false", "warmup.save_steps=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With an old run and a new one, which has an adapter on another model."""
    folder = write_recipe(tmp_path_factory.mktemp("muscle"))
    assert train(folder, *ALONE, "run.dir=old").code == 0
    wider = ("model.init.hidden_size=48", "lora.r=4", "warmup.steps=8")
    ended = train(folder, *ALONE, *wider, "run.dir=new")
    assert ended.code == 0, ended.text
    return folder


MUSCLE = (*ALONE, "model={name: new/model}", "warmup.muscle={old: old/model}", "warmup.steps=4")
HALVES = ("warmup.gradient_accumulation_steps=2", "warmup.per_device_train_batch_size=2")


def weights(run):
    return load_file(run / "model" / "adapter_model.safetensors")


def test_it_trains_the_new_models_adapter_and_goes_on_where_it_was_killed(folder, capsys, monkeypatch):
    ended = train(folder, *MUSCLE, "run.dir=whole")
    assert ended.code == 0, ended.text
    whole = folder / "whole"
    steps = lines(whole, "steps.jsonl")
    assert all(step["padded"] is None and 0 < step["toward_old"] <= 1 for step in steps)
    assert all(step["sft_trained_loss"] != step["sft_loss"] for step in steps)
    assert weights(whole).keys() == weights(folder / "new").keys(), "the task adapter goes on being trained"
    assert train(folder, *MUSCLE, "run.dir=cut", fault=at_step("warmup", 3)).code != 0
    assert train(folder, *MUSCLE, "run.dir=cut").code == 0
    assert all((value == weights(whole)[name]).all() for name, value in weights(folder / "cut").items())
    monkeypatch.chdir(folder)
    assert main(["compare", "old", "new", "whole", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"regressions", "wins", "negative_flip_rate"} <= told["differences"][1].keys()


def test_two_processes_equal_one(folder):
    assert train(folder, *MUSCLE, *HALVES, "run.dir=one").code == 0
    on_ranks(folder, *MUSCLE, "warmup.per_device_train_batch_size=2", "run.dir=two")
    one, two = (lines(folder / name, "steps.jsonl") for name in ("one", "two"))
    for mine, theirs in zip(one, two, strict=True):
        for key in ("sft_loss", "sft_trained_loss", "sft_norm", "toward_old"):
            assert theirs[key] == pytest.approx(mine[key], rel=5e-5), key
    for name, value in weights(folder / "one").items():
        assert (value - weights(folder / "two")[name]).norm() <= 5e-5 * value.norm()


def test_plan_counts_the_old_model_and_says_what_is_trained(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert main(["plan", "recipe.yaml", *MUSCLE, "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)["memory"]["moments"]["warmup"]
    held = sum(value.numel() for value in load_file(folder / "old" / "model" / "model.safetensors").values())
    assert parts["old model"] == 4 * held
    assert parts["KL snapshot"] == sum(4 * value.numel() for value in weights(folder / "new").values())
    assert main(["plan", "recipe.yaml", *MUSCLE]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "each token's KL to old/model where the policy's own next token is another" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("warmup.steps=0",), "nothing trains by it"),
        (("warmup.sft_weight=phi",), "another loss, and warmup.muscle"),
        (("warmup.args={loss_type: dft}",), "another loss, and warmup.muscle"),
        (("model={init: {hidden_size: 32, layers: 2, heads: 2}}",), "begins with a model that is trained already"),
        (("hybrid.steps=4", "hybrid.controller=sasr"), "compares the two stages' gradient norms"),
        (("warmup.muscle={old: other/model}",), "their tokens differ"),
        (("warmup.muscle={old: ./nowhere}",), "there is no folder './nowhere'"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_loads(folder, changes, said):
    if "differ" in said:
        assert train(folder, *ALONE, "task.names=6", "warmup.steps=1", "run.dir=other").code == 0
    ended = train(folder, *MUSCLE, *changes, "run.dir=refused")
    assert ended.code == 2, ended.text
    assert said in ended.text
    assert "warmup." in ended.text
    assert not (folder / "refused").exists()
