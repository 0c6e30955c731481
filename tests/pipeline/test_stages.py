"""How the stages hand over to one another, which of them a recipe may leave out, and the ways in beside `run`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from posttrain.cli import main
from posttrain.inputs.inputs import load_data
from posttrain.recipe.recipe import load_recipe
from posttrain.running.pipeline import run
from tests.pipeline.light_rewards import length
from tests.pipeline.runs import at_step, forked, interrupt, lines, train


def ended_well(folder, *overrides):
    ended = train(folder, *overrides)
    assert ended.code == 0, ended.text
    return ended.text


def stage(folder, name):
    return [line for line in lines(folder / "run", "steps.jsonl") if line["stage"] == name]


def test_evaluating_does_not_change_training(folder, reference):
    ended_well(folder, "evaluate.every=0", "evaluate.at_start=false")
    run = folder / "run"
    assert lines(run, "steps.jsonl") == lines(reference(), "steps.jsonl")
    assert [line["stage"] for line in lines(run, "eval.jsonl")] == ["warmup", "final"]
    assert (run / "model/model.safetensors").read_bytes() == (reference() / "model/model.safetensors").read_bytes()


def test_sampled_evaluations_do_not_change_training_either(folder, reference):
    ended_well(folder, "evaluate.every=2", "evaluate.k=[1,2]", "evaluate.samples=2")
    run = folder / "run"
    assert lines(run, "steps.jsonl") == lines(reference(), "steps.jsonl")
    evaluated = [(line["stage"], line["step"]) for line in lines(run, "eval.jsonl")]
    assert evaluated == [("start", 0), ("warmup", 5), *(("hybrid", s) for s in (2, 4, 6, 8)), ("final", 10)]
    assert all(set(line["pass@k"]) == {"1", "2"} for line in lines(run, "eval.jsonl"))


def test_g_warmup_is_the_mean_of_the_last_norms(folder):
    ended_well(folder, "warmup.norm_window=3", "hybrid.steps=1", "evaluate.every=0")
    norms = [line["sft_norm"] for line in stage(folder, "warmup")]
    expected = sum(norms[-3:]) / 3
    assert json.loads((folder / "run/state.json").read_text())["done"]["warmup"]["g_warmup"] == pytest.approx(expected)
    assert stage(folder, "hybrid")[0]["controller"]["g_warmup"] == pytest.approx(expected)


def test_the_hybrid_stage_continues_the_demonstrations(folder):
    """SFT only, at the same settings: 3 + 4 steps take the rows that 7 steps of warm-up take."""
    sft = ("hybrid.controller.name=sft_only", "hybrid.per_device_train_batch_size=4", "evaluate.every=0")
    flat = ("warmup.lr_scheduler_type=constant", "hybrid.lr_scheduler_type=constant", "hybrid.learning_rate=1.0e-2")
    ended_well(folder, *sft, *flat, "warmup.steps=3", "hybrid.steps=4", "run.dir=split")
    ended_well(folder, *sft, *flat, "warmup.steps=7", "hybrid.steps=0", "run.dir=whole")
    split, whole = (lines(folder / name, "steps.jsonl") for name in ("split", "whole"))
    assert [line["demonstration_cursor"] for line in split] == [line["demonstration_cursor"] for line in whole]
    # The optimizer's memory begins anew in the hybrid stage, so only its first step starts from the same weights
    assert split[3]["sft_loss"] == pytest.approx(whole[3]["sft_loss"], abs=1e-5)
    assert split[3]["sft_norm"] == pytest.approx(whole[3]["sft_norm"], rel=1e-4)


def test_accumulated_gradients_in_the_warmup(folder):
    """4 rows at once or in 4 parts: the same mean over tokens, the same norm."""
    common = ("hybrid.steps=0", "evaluate.at_start=false")
    ended_well(folder, *common, "run.dir=at_once")
    parts = ("warmup.per_device_train_batch_size=1", "warmup.gradient_accumulation_steps=4")
    ended_well(folder, *common, *parts, "run.dir=in_parts")
    at_once, in_parts = (lines(folder / name, "steps.jsonl") for name in ("at_once", "in_parts"))
    for one, other in zip(at_once, in_parts, strict=True):
        assert one["sft_loss"] == pytest.approx(other["sft_loss"], abs=1e-4)
        assert one["sft_norm"] == pytest.approx(other["sft_norm"], rel=1e-3)
        assert one["demonstration_cursor"] == other["demonstration_cursor"]


def test_a_run_of_the_warmup_alone(folder):
    said = ended_well(folder, "hybrid.steps=0")
    run = folder / "run"
    assert "hybrid" not in said
    assert (run / "model/model.safetensors").read_bytes() == (run / "warmup/model.safetensors").read_bytes()
    assert [line["stage"] for line in lines(run, "eval.jsonl")] == ["start", "warmup", "final"]
    assert "nothing to do" in ended_well(folder, "hybrid.steps=0")


def test_a_run_without_warmup(folder):
    ended_well(folder, "warmup.steps=0", "hybrid.controller.name=grpo_only", "task.demonstrations=0", "hybrid.steps=3")
    assert not stage(folder, "warmup")
    assert [line["mix"] for line in stage(folder, "hybrid")] == [{"sft": 0.0, "grpo": 1.0}] * 3
    assert [line["stage"] for line in lines(folder / "run", "eval.jsonl")] == ["start", "final"]


def test_sft_only_needs_no_prompts(folder):
    ended_well(folder, "hybrid.controller.name=sft_only", "task.train=0", "hybrid.steps=2")
    assert [line["rollouts"] for line in stage(folder, "hybrid")] == [0, 0]


def test_a_time_limit_ends_the_stage(folder):
    said = ended_well(folder, "hybrid.time_limit_s=0.001")
    assert "hybrid ended after step 1 of 10: hybrid.time_limit_s is spent" in said
    assert lines(folder / "run", "eval.jsonl")[-1]["step"] == 1
    assert (folder / "run/model/model.safetensors").is_file()


@pytest.mark.parametrize(("stage_name", "step"), [("warmup", 2), ("hybrid", 3)])
def test_a_stage_that_ends_early_unasked_is_not_done(folder, stage_name, step):
    """As transformers' own handling of SIGTERM would end it. The run goes on where it ended."""
    ended = train(folder, "evaluate.every=0", fault=partial(_end_early, stage_name, step))
    assert ended.code == 1, ended.text
    assert f"the {stage_name} stage ended after step {step}, and it was not asked to" in ended.text
    state = folder / "run" / "state.json"
    assert stage_name not in (json.loads(state.read_text())["done"] if state.exists() else {})
    ended_well(folder, "evaluate.every=0")
    assert [line["step"] for line in stage(folder, "hybrid")] == list(range(1, 11))


def _end_early(stage_name: str, step: int) -> None:
    from posttrain.running.callbacks import StopWhenAsked

    def on_step_end(self, args, state, control, **kwargs):
        if (Path(args.output_dir).name, state.global_step) == (stage_name, step):
            control.should_save = control.should_training_stop = True

    StopWhenAsked.on_step_end = on_step_end


def test_lora_trains_the_adapter_alone(folder, reference):
    ended_well(folder, "lora.r=4", "lora.lora_dropout=0.2")
    run = folder / "run"
    assert (run / "init/model.safetensors").read_bytes() == (reference() / "init/model.safetensors").read_bytes()
    warmed, final = (load_file(run / name / "adapter_model.safetensors") for name in ("warmup", "model"))
    assert all("lora_" in name for name in final)
    assert any(not warmed[name].equal(final[name]) for name in final)
    assert AutoTokenizer.from_pretrained(run / "model").eos_token == "<|end|>"


@pytest.mark.parametrize("overrides", [(), ("lora.r=4", "lora.lora_dropout=0.2")], ids=["full", "lora"])
def test_eval_of_the_saved_model_repeats_the_final_line(folder, reference, overrides):
    """From another working directory; the untrained model's greedy texts tell models apart where pass@1 is 0."""
    run = reference(*overrides)
    ended = forked(folder, "eval", str(run), "--out", "eval.json")
    assert ended.code == 0, ended.text
    assert "every digit as the run recorded it" in ended.text
    assert "changed:" not in ended.text
    record, final = json.loads((folder / "eval.json").read_text()), lines(run, "eval.jsonl")[-1]
    told_apart = ("stage", "step", "seconds")
    assert {key: record[key] for key in record if key not in told_apart} == {
        key: final[key] for key in final if key not in told_apart
    }
    assert record["judge"]["rewards"][0]["name"] == "rewards"
    rows = pq.read_table(run / "completions" / "eval-final-000010.parquet").to_pylist()
    assert [row["prompt"] for row in rows] == [
        row["prompt"] for row in load_data(load_recipe(run / "recipe.yaml")).eval
    ]


def test_eval_of_a_run_says_what_was_changed_and_refuses_what_was_trained_on(reference, monkeypatch, capsys):
    run = reference()
    monkeypatch.chdir(run)
    assert main(["eval", "warmup", "evaluate.batch_size=4", "--reward", "knights_knaves", "--k", "2"]) == 0
    said = capsys.readouterr().out
    assert "evaluate.batch_size: 8 -> 4" in said
    assert "evaluate.samples: 1 -> 2" in said
    assert "judged by knights_knaves, which passes" in said
    assert "as the run recorded it" not in said
    # Demonstrations and prompts of the run are among those of a larger held-out set of another split
    assert main(["eval", "model", "task.split=content", "task.eval=400"]) == 2
    refused = capsys.readouterr().err
    assert "was trained on" in refused
    assert "--allow-overlap" in refused
    assert main(["eval", "model", "task.split=content", "task.eval=400", "--allow-overlap"]) == 0
    assert "of the 400 problems are among those" in capsys.readouterr().out


def test_run_as_a_library_with_a_function_as_reward(folder, monkeypatch):
    monkeypatch.chdir(folder)
    recipe = load_recipe("recipe.yaml", ["hybrid.steps=2", "hybrid.controller.name=grpo_only", "evaluate.every=0"])
    result = run(recipe, rewards=[length])
    assert set(stage(folder, "hybrid")[0]["rewards"]) == {"rewards", "length"}
    assert [line["stage"] for line in result.evaluations] == ["start", "warmup", "final"]
    assert (result.model / "model.safetensors").is_file()
    assert result.report.is_file()
    assert run(recipe, rewards=[length]).evaluations == result.evaluations


def test_going_on_after_a_stop_under_a_time_limit(folder):
    """The seconds of both sessions count: the limit was spent before the stop, so no step is added."""
    limit = ("hybrid.time_limit_s=0.001",)
    assert train(folder, *limit, fault=at_step("hybrid", 1, interrupt)).code == 130
    ended_well(folder, *limit)
    assert len(stage(folder, "hybrid")) == 1
