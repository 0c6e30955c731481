"""How long `posttrain plan` says that a run takes: by the cost model, or by the run's own steps."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from posttrain.models.cost_counts import StepWork
from posttrain.planning.cost import CostModel
from posttrain.planning.past import Past, differences, past_of, tells_of
from posttrain.planning.seconds import shipped, time_of
from posttrain.planning.work import Assumed, works_of
from posttrain.recipe.recipe import Recipe
from posttrain.rundir.facts import write_recipe
from tests.planning.plans import large, numbers, recipe

POINTS = Path(__file__).parents[2] / "benchmarks" / "results" / "scaling.json"


def test_what_ships_is_what_was_measured(capsys, monkeypatch) -> None:
    """Made anew by `python -m posttrain.planning benchmarks/results/scaling.json > .../coefficients.json`."""
    monkeypatch.setattr(sys, "argv", ["planning", str(POINTS)])
    runpy.run_module("posttrain.planning", run_name="__main__")
    found, made = shipped(), CostModel.from_json(capsys.readouterr().out)
    assert found.machine == made.machine
    assert {name: pytest.approx(each, rel=1e-6) for name, each in made.coefficients.items()} == found.coefficients


def timed(some: Recipe, past: Past | None = None, costs: CostModel | None = None):
    plan, much = numbers(some)
    assumed = Assumed(prompt=20, demonstration=40, labels=0.5, completion=10, longest=20)
    works = works_of(some, plan, assumed, held_out=50, trained=None)
    more = works_of(some, plan, replace(assumed, completion=20), held_out=50, trained=None)
    return time_of(some, plan, much, works=(works, more), shape=large()[0].shape, costs=costs, past=past)


def test_a_runs_own_seconds_are_taken_first() -> None:
    some = recipe(
        warmup={"steps": 5}, hybrid={"steps": 10, "controller": {"name": "sasr", "gamma": 1.0}},
        rollout={"engine": "transformers"}, evaluate={"at_start": False},
    )  # fmt: skip
    past = Past(
        path="r", warmup_seconds=(1.0, 3.0), sft_seconds=(2.0,), grpo_seconds=(7.0, 9.0), evaluation_seconds=(4.0,)
    )
    time = timed(some, past)
    assert (time.least, time.begun, time.most) == (10 + 20 + 8, 10 + 50 + 8, 10 + 80 + 8)
    assert time.half == 10 + 5 * 2 + 5 * 8 + 8
    fixed = recipe(warmup={"steps": 5}, hybrid={"steps": 10, "controller": {"name": "sft_only"}})
    assert timed(fixed, past).half is None
    assert (time.phases["grpo"].source, time.phases["grpo"].counted, time.machine) == ("recorded", 2, "")
    half = timed(some, replace(past, grpo_seconds=()))
    assert half.phases["grpo"].source == "unknown"
    assert half.begun is None
    costs = shipped()
    half = timed(some, replace(past, grpo_seconds=()), costs)
    assert (half.phases["grpo"].source, half.phases["sft"].source, half.machine) == ("model", "recorded", costs.machine)
    assert half.phases["grpo"].most > half.phases["grpo"].seconds  # type: ignore[operator]


def test_predicted_seconds_are_the_cost_models() -> None:
    some = recipe(
        warmup={"steps": 3},
        hybrid={"steps": 4, "controller": {"name": "grpo_only"}},
        rollout={"engine": "transformers"},
    )
    costs, shape = shipped(), large()[0].shape
    time = timed(some, None, costs)
    assert shape
    assert time.phases["warmup"].seconds == pytest.approx(
        costs.predict(
            shape, StepWork(demonstrations=8, demonstration=40, labels=0.5, demonstration_batch=8)
        ).total_seconds
    )
    step = StepWork(rows=8, group=8, prompt=20, completion=10, longest=20, micro_batch=8, logprob_rows=2)
    assert time.phases["grpo"].seconds == pytest.approx(costs.predict(shape, step).total_seconds)
    each = StepWork(rows=50, prompt=20, completion=10, longest=20)
    assert time.phases["evaluation"].seconds == pytest.approx(costs.part_seconds("generation", shape, each))
    assert time.begun == pytest.approx(sum(
        time.phases[name].seconds * count for name, count in (("warmup", 3), ("grpo", 4), ("evaluation", 3))
    ))  # fmt: skip
    assert timed(some.model_copy(update={"rollout": some.rollout.model_copy(update={"engine": "vllm"})}), None, costs
                 ).phases["grpo"].source == "unknown"  # fmt: skip


def test_what_a_run_directory_shows(tmp_path) -> None:
    lines = [
        {"stage": "warmup", "step": 1, "mix": {"sft": 1.0, "grpo": 0.0}, "seconds": {"total": 2.0}},
        {"stage": "hybrid", "step": 1, "mix": {"sft": 0.0, "grpo": 1.0}, "seconds": {"total": 5.0}, "kl": 0.1,
         "zero_std_share": 0.5, "completion_length": 12.0, "truncated_share": 0.25},
        {"stage": "hybrid", "step": 2, "mix": {"sft": 1.0, "grpo": 0.0}, "seconds": {"total": 3.0}, "kl": None},
        {"stage": "hybrid", "step": 3, "mix": {"sft": 0.5, "grpo": 0.5}, "seconds": {"total": 6.0}, "kl": 0.3},
    ]  # fmt: skip
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert past_of(tmp_path / "none") is None
    past = past_of(tmp_path)
    assert past == Past(
        path=str(tmp_path), warmup_seconds=(2.0,), sft_seconds=(3.0,), grpo_seconds=(5.0,), both_seconds=(6.0,),
        dead_share=0.5, kl=(0.1, 0.3), completion=12.0, truncated=0.25,
    )  # fmt: skip
    # Of a run that refills, dead groups are those of all that were taken
    refilled = tmp_path / "refilled"
    refilled.mkdir()
    line = {**lines[1], "zero_std_share": 0.0, "refill": {"prompts": 10, "replaced": 6, "still_dead": 1, "unused": 2}}
    (refilled / "steps.jsonl").write_text(json.dumps(line) + "\n")
    assert past_of(refilled).dead_share == 0.7
    evals = [
        {"stage": "start", "step": 0, "pass@1": 0.1, "seconds": 1.0},
        {"stage": "warmup", "step": 1, "pass@1": 0.3},
    ]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in evals))
    (tmp_path / "pass_rates.jsonl").write_text('{"prompt": "a", "pass_rate": 0.5}\n')
    past = past_of(tmp_path)
    assert past
    assert (past.solve_rate, past.evaluation_seconds, past.rates) == (0.3, (1.0,), (0.5,))


def test_steps_of_another_recipe_tell_nothing(tmp_path) -> None:
    some = recipe(hybrid={"steps": 10})
    assert differences(tmp_path, some) == []
    write_recipe(tmp_path / "recipe.yaml", some.resolved())
    assert differences(tmp_path, some) == []
    longer = recipe(hybrid={"steps": 20})
    assert differences(tmp_path, longer) == [], "a run without a step begins anew"
    (tmp_path / "steps.jsonl").write_text("{}\n")
    assert differences(tmp_path, longer) == ["hybrid.steps: 10 -> 20"]
    assert tells_of(differences(tmp_path, longer))
    assert not tells_of(differences(tmp_path, recipe(hybrid={"steps": 10, "per_device_train_batch_size": 16})))
