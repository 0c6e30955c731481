"""How long a run will take: by its own steps where its directory has some, else by the cost model.

The cost model's coefficients hold for the machine that they were measured on. `coefficients.json` is what ships; see
`planning/__main__.py` for how it is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean

from posttrain.errors import DataError, PosttrainError
from posttrain.models.cost_counts import ModelShape, StepWork
from posttrain.planning.amounts import Amounts
from posttrain.planning.cost import CostModel, read_measured
from posttrain.planning.past import Past
from posttrain.recipe.arithmetic import BatchPlan
from posttrain.recipe.recipe import Recipe

ACCURACY = "within 31 % there"
"""Of a part of a step, on the machine that was measured: tests/planning/test_cost.py holds the model to it."""


@dataclass(frozen=True)
class Phase:
    """Seconds of one kind of work, each time it is done.

    Attributes:
        seconds: As expected; None: not known.
        most: Were every completion as long as its limit; the same where nothing is sampled.
        source: `recorded`: by steps of this run; `model`; or `unknown`.
        counted: Recorded steps that it is the mean of.
    """

    seconds: float | None
    most: float | None
    source: str
    counted: int = 0


@dataclass(frozen=True, kw_only=True)
class Time:
    """What a run will take. Loading, saving and starting processes are not in it, nor is scoring.

    Attributes:
        phases: By name: warmup, sft, grpo, both, evaluation.
        least: Seconds of the whole run with the cheaper half wherever the controller may choose; None: not known.
        begun: If the mix stays as it begins.
        most: With the dearer half, and every completion as long as it may be.
        half: If half of the hybrid steps are SFT; None: not known, or not the controller's to choose.
        machine: What the cost model was measured on; empty where none was asked.
    """

    phases: dict[str, Phase]
    least: float | None
    begun: float | None
    most: float | None
    half: float | None
    machine: str


def shipped() -> CostModel:
    """The coefficients that come with the package, of a CPU."""
    return CostModel.from_json((files("posttrain.planning") / "coefficients.json").read_text(encoding="utf-8"))


def measured(path: str | Path) -> CostModel:
    """Coefficients fitted to what benchmarks/scaling.py measured.

    Raises:
        DataError: There is no such file, or it holds something else.
    """
    try:
        machine, points = read_measured(path)
    except PosttrainError:
        raise
    except (OSError, ValueError) as error:
        fix = "python benchmarks/scaling.py --json FILE"
        raise DataError(f"cannot be read: {error}", expected="measured points", where=str(path), fix=fix) from error
    return CostModel.fit(points, machine=machine)


def time_of(
    recipe: Recipe,
    plan: BatchPlan,
    much: Amounts,
    *,
    works: tuple[Mapping[str, StepWork], Mapping[str, StepWork]],
    shape: ModelShape | None,
    costs: CostModel | None,
    past: Past | None,
) -> Time:
    """Seconds of each kind of step and of the run.

    Args:
        recipe: The recipe.
        plan: Its batch arithmetic.
        much: What the run takes.
        works: What one process does in each moment, with completions as they are expected and at their limit.
        shape: Of the model; None: not known.
        costs: Coefficients of the machine that it will run on; None: there are none.
        past: What the run directory shows.
    """
    expected, limit = (_predicted(recipe, plan, much, some, shape, costs) if shape and costs else {} for some in works)
    own = _recorded(past)
    phases = {}
    for name in _names(much):
        if own.get(name):
            mean = fmean(own[name])
            phases[name] = Phase(mean, mean, "recorded", len(own[name]))
        elif name in expected and math.isfinite(expected[name]):
            phases[name] = Phase(expected[name], max(expected[name], limit[name]), "model")
        else:
            phases[name] = Phase(None, None, "unknown")
    least, begun, most, half = _totals(much, phases)
    used = costs.machine if costs and any(phase.source == "model" for phase in phases.values()) else ""
    return Time(phases=phases, least=least, begun=begun, most=most, half=half, machine=used)


def _names(much: Amounts) -> list[str]:
    """The kinds of steps that a run has."""
    names = ["warmup"] if much.warmup_steps else []
    if _blends(much):
        names.append("both")
    else:
        names += ["sft"] if much.sft_steps.most else []
        names += ["grpo"] if much.grpo_steps.most else []
    return [*names, "evaluation"]


def _blends(much: Amounts) -> bool:
    """Whether every step has both halves."""
    return bool(much.hybrid_steps) and much.sft_steps.least == much.grpo_steps.least == much.hybrid_steps


def _recorded(past: Past | None) -> dict[str, tuple[float, ...]]:
    if past is None:
        return {}
    return {
        "warmup": past.warmup_seconds, "sft": past.sft_seconds, "grpo": past.grpo_seconds, "both": past.both_seconds,
        "evaluation": past.evaluation_seconds,
    }  # fmt: skip


def _predicted(
    recipe: Recipe, plan: BatchPlan, much: Amounts, works: Mapping[str, StepWork], shape: ModelShape, costs: CostModel
) -> dict[str, float]:
    """Seconds by the cost model, NaN where a part was not measured."""
    found = {name: costs.predict(shape, works[name]).total_seconds for name in ("warmup", "sft") if name in works}
    engine = recipe.rollout.uses_vllm()  # the coefficients of sampling are of transformers
    if "grpo" in works:
        parts = costs.predict(shape, works["grpo"]).seconds
        steps = plan.generation_batch / plan.completions_per_step * recipe.hybrid.grpo.num_iterations
        sampling = math.nan if engine else costs.part_seconds("generation", shape, works["sampling"])
        found["grpo"] = sampling / steps + sum(parts[name] for name in ("training", "logprobs", "optimizer"))
    if "sft" in found and "grpo" in found:
        found["both"] = found["sft"] + found["grpo"] - costs.predict(shape, works["sft"]).seconds["optimizer"]
    once = math.nan if engine else costs.part_seconds("generation", shape, works["evaluation"])
    rounds = math.ceil(much.evaluation_completions / plan.num_processes / max(1, works["evaluation"].rows))
    found["evaluation"] = once * rounds
    return found


def _totals(
    much: Amounts, phases: Mapping[str, Phase]
) -> tuple[float | None, float | None, float | None, float | None]:
    """Seconds of the run: the least, as the mix begins, the most; and with half of the hybrid steps each."""

    def total(halves: Sequence[tuple[str, float]], *, most: bool) -> float | None:
        seconds = 0.0
        counts = [("warmup", much.warmup_steps), *halves, ("evaluation", much.evaluations)]
        for name, count in counts:
            if not count:
                continue
            each = phases[name].most if most else phases[name].seconds
            if each is None:
                return None
            seconds += count * each
        return seconds

    steps, sft, grpo = much.hybrid_steps, much.sft_steps, much.grpo_steps
    if _blends(much):
        both = [("both", float(steps))]
        return total(both, most=False), total(both, most=False), total(both, most=True), None
    begun = total([("sft", sft.begun), ("grpo", grpo.begun)], most=False)
    if sft.known and grpo.known:
        counts = [("sft", float(sft.most)), ("grpo", float(grpo.most))]
        return begun, begun, total(counts, most=True), None
    ends = [
        [("sft", float(sft.most)), ("grpo", float(grpo.least))],
        [("sft", float(sft.least)), ("grpo", float(grpo.most))],
    ]
    low = [value for end in ends if (value := total(end, most=False)) is not None]
    high = [value for end in ends if (value := total(end, most=True)) is not None]
    both_known = len(low) == len(ends)
    half = total([("sft", steps / 2), ("grpo", steps / 2)], most=False)
    return (min(low) if both_known else None), begun, (max(high) if both_known else None), half
