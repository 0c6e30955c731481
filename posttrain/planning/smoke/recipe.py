"""What a smoke test makes of a recipe: the same run, small enough for a CPU. Pure functions; loads no torch.

Kept are what decides which code runs: the data, the rewards, the controller, accumulation over several micro-batches,
several prompts or a part of one in each, the adapter, the KL, the loss. Scaled down is what decides how long it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from posttrain.controllers import GRPOOnly, SFTOnly, Switch
from posttrain.inputs.judged import own_reward_configs
from posttrain.recipe.model_sections import ModelSection
from posttrain.recipe.recipe import Recipe
from posttrain.recipe.sections import RewardConfig
from posttrain.recipe.stage_sections import StageSection
from posttrain.tasks import TaskData

STEPS = 2
"""Of each stage."""
GROUP = 2
"""Completions of a prompt."""
COMPLETION = 8
"""Tokens of a completion at most."""
DEMONSTRATED = 512
"""The same beside a method."""
ROWS = 4
"""Of each part: prompts, demonstrations, held out."""
VARIETY = {"import": "posttrain.planning.smoke.reward:variety"}
"""A reward beside the recipe's own (see `reward.py`)."""
SPLIT_RANK = 4
"""Of an adapter that begins with a part of the base, at most: no matrix of the tiny model may have a smaller side."""
GPU_ONLY: dict[str, Any] = {
    "bf16": False, "fp16": False, "bf16_full_eval": False, "fp16_full_eval": False, "tf32": None,
    "torch_compile": False, "use_liger_kernel": False,
}  # fmt: skip
"""Settings of a stage's `args` that a CPU or float32 has no use for, and what they are set to instead."""
OWN_IN_SMALL: dict[str, dict[str, Any]] = {
    "infinite": {"num_cooldown_steps": 1},
    "power": {"num_stable_steps": 0.5},
}
"""Arguments of our schedules that fit into `STEPS` and into one."""
NOT_IN_SMALL = ("wsd_s", "warmup_stable_decay")
"""Schedules that take more steps than there are: a decay of one changes no step's rate."""
_SIZED_LAYERS = ("layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "layer_replication")


@dataclass(frozen=True)
class Scaled:
    """A recipe as the smoke test runs it.

    Args:
        recipe: That recipe.
        not_tried: What of the original it leaves out, in words.
    """

    recipe: Recipe
    not_tried: list[str]


def scaled(recipe: Recipe, *, model: str | Path, folder: str | Path) -> Scaled:
    """The recipe on a CPU, 2 steps of each stage, a checkpoint after each.

    Args:
        recipe: A recipe that `plan.check` accepts on one process; so it does the result.
        model: The folder of the tiny model that stands for the recipe's.
        folder: The run directory to use instead of the recipe's.
    """
    left_out: list[str] = []
    accumulation, per_device = _micro_batches(recipe)
    measures = recipe.hybrid.curriculum is not None and recipe.hybrid.curriculum.completions > 0
    asks = recipe.warmup.curriculum is not None and recipe.warmup.curriculum.asks
    hybrid = recipe.hybrid.model_copy(
        update={
            "steps": min(recipe.hybrid.steps, STEPS),
            "warmup_steps": 0,
            "save_steps": 1,
            "max_skipped_steps": 0,  # of 2 steps none may be skipped
            "time_limit_s": None,
            "curriculum": None if measures else recipe.hybrid.curriculum,
            "average": _average(recipe),
            "gradient_accumulation_steps": accumulation,
            "per_device_train_batch_size": per_device,
            "demonstration_batch_size": 1 if recipe.hybrid.demonstration_batch_size else None,
            "grpo": recipe.hybrid.grpo.model_copy(update=_grpo(recipe, accumulation, left_out)),
            "kl": recipe.hybrid.kl.model_copy(update={"sample": 1.0 if recipe.hybrid.kl.sample else 0.0}),
            "controller": _controller(recipe.hybrid.controller),
            "method": _method(recipe.hybrid.method),
            "lr_scheduler_type": _schedule(recipe.hybrid, "hybrid", left_out),
            "args": _args(recipe.hybrid, "hybrid", left_out),
        }
    )
    warmup = recipe.warmup.model_copy(
        update={
            "steps": min(recipe.warmup.steps, STEPS),
            "warmup_steps": 0,
            "save_steps": 1,
            "max_skipped_steps": 0,
            "curriculum": None if asks else recipe.warmup.curriculum,
            "norm_window": recipe.warmup.norm_window and min(recipe.warmup.norm_window, STEPS),
            "gradient_accumulation_steps": min(recipe.warmup.gradient_accumulation_steps, 2),
            "per_device_train_batch_size": 1 if recipe.warmup.gradient_accumulation_steps > 1 else 2,
            "lr_scheduler_type": _schedule(recipe.warmup, "warmup", left_out),
            "args": _args(recipe.warmup, "warmup", left_out),
        }
    )
    if measures:
        left_out.append("the curriculum's pass rates: random weights solve no prompt")
    if asks and recipe.warmup.steps:
        left_out.append(f"the warm-up's curriculum: {STEPS} steps show little of the {asks} that it measures")
    update = {
        "model": _model(recipe, model, left_out),
        "lora": _lora(recipe, left_out),
        "rewards": [*_rewards(recipe), RewardConfig.model_validate(VARIETY)],
        "scoring": recipe.scoring.model_copy(update={"workers": 0 if recipe.scoring.workers == 0 else 1}),
        "warmup": warmup,
        "hybrid": hybrid,
        "rollout": _rollout(recipe, left_out),
        "evaluate": _evaluation(recipe),
        "run": _run(recipe, folder, left_out),
    }
    left_out += ["a GPU, and what needs its memory or its precision", "several processes", "the real weights"]
    return Scaled(recipe.model_copy(update=update), left_out)


def only(recipe: Recipe, kind: str, folder: str | Path) -> Recipe:
    """A scaled recipe's hybrid stage alone, all of its steps SFT or all of them GRPO.

    Args:
        recipe: What `scaled` gave.
        kind: "sft" or "grpo".
        folder: The run directory.
    """
    alone: dict[str, Any] = {"controller": SFTOnly(), "tokens": None, "length_budget": None}
    if kind != "sft":  # which has no demonstrations to weigh
        alone = {"controller": GRPOOnly(), "sft_weight": "nll", "sft_window": None, "sft_tries": None}
    return recipe.model_copy(
        update={
            "warmup": recipe.warmup.model_copy(update={"steps": 0, "norm_window": None}),
            "hybrid": recipe.hybrid.model_copy(update=alone),
            "evaluate": recipe.evaluate.model_copy(update={"every": 0, "at_start": False}),
            "run": recipe.run.model_copy(update={"dir": str(folder)}),
        }
    )


def few(data: TaskData, most: float) -> TaskData:
    """The rows that a smoke test trains and evaluates on, from each task of a mixture: the longest, and shorter ones.

    Args:
        data: All rows.
        most: Characters that a row may have; where all have more, the shortest are taken.
    """
    parts = {part: _chosen(getattr(data, part), most) for part in ("train", "demonstrations", "eval")}
    return replace(data, notes=[], **parts)


def characters(row: dict[str, Any]) -> int:
    """The length of a row's prompt and completion; messages count as they are written down."""
    return len(str(row["prompt"])) + len(str(row.get("completion", "")))


def tried(recipe: Recipe) -> list[str]:
    """What a smoke test of a recipe has tried, in words, once nothing failed."""
    names = {"warmup": "warm-up", "hybrid": "hybrid"}
    stages = [f"{names[stage]}" for stage in names if getattr(recipe, stage).steps]
    kinds = zip(("SFT", "GRPO"), recipe.hybrid.controller.shares(), strict=True)
    steps = [kind for kind, can in kinds if can] if recipe.hybrid.steps else ["SFT"]
    return [
        "all data",
        "every reward on rows of it",
        "the tokenizer on the longest rows",
        f"{' and '.join(steps)} steps{' on an adapter' if recipe.lora else ''}",
        f"a stop and a resume in {' and '.join(stages)}",
        "evaluations",
        "the model and the report at the end",
    ]


def _chosen(rows: Sequence[dict[str, Any]], most: float) -> list[dict[str, Any]]:
    by_task: dict[Any, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=characters, reverse=True):
        by_task.setdefault(row.get("task"), []).append(row)
    return [
        row for its in by_task.values() for row in _some([row for row in its if characters(row) <= most] or its[-ROWS:])
    ]


def _some(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of rows from long to short the first, two of the middle and the last."""
    places = [0, len(rows) // 2, len(rows) * 3 // 4, len(rows) - 1]
    return [rows[place] for place in dict.fromkeys(places)]


def _micro_batches(recipe: Recipe) -> tuple[int, int]:
    """Micro-batches a step and completions in each: one or several, and a part of a group or whole ones, as before."""
    hybrid = recipe.hybrid
    accumulation = min(hybrid.gradient_accumulation_steps, 2)
    generations = _steps_per_generation(recipe, accumulation) or accumulation
    part_of_a_group = hybrid.per_device_train_batch_size < hybrid.grpo.num_generations and generations % 2 == 0
    return accumulation, 1 if part_of_a_group else 2


def _steps_per_generation(recipe: Recipe, accumulation: int) -> int | None:
    """Micro-batches a generation: as many as a step's, fewer or more, as before."""
    window, step = recipe.hybrid.grpo.steps_per_generation, recipe.hybrid.gradient_accumulation_steps
    if window is None or window == step:
        return window and accumulation
    return 2 * accumulation if window > step else 1


def _grpo(recipe: Recipe, accumulation: int, left_out: list[str]) -> dict[str, Any]:
    grpo = recipe.hybrid.grpo
    if grpo.mask_truncated_completions:
        left_out.append("mask_truncated_completions: random weights do not end a completion")
    return {
        "num_generations": GROUP,
        # A method leaves out demonstrations that a completion could not be
        "max_completion_length": min(grpo.max_completion_length, DEMONSTRATED if recipe.hybrid.method else COMPLETION),
        "num_iterations": min(grpo.num_iterations, 2),
        "steps_per_generation": _steps_per_generation(recipe, accumulation),
        "mask_truncated_completions": False,
    }


def _controller(controller: Any) -> Any:
    """The recipe's own; a stale gradient norm is measured anew at once, and a switch comes behind the first step."""
    if isinstance(controller, Switch):
        return Switch(at=1)
    return replace(controller, refresh_every=1) if getattr(controller, "refresh_every", 0) else controller


def _method(method: Any) -> Any:
    """The recipe's own, in groups of the test's size; a first failure makes an SFT step."""
    if method is None:
        return None
    scaled = method.scaled_to(GROUP)
    return replace(scaled, buffer=1) if scaled.buffer else scaled


def _average(recipe: Recipe) -> Any:
    """Of both checkpoints that there are, if there are two."""
    section = recipe.hybrid.average
    if section is None or min(recipe.hybrid.steps, STEPS) < STEPS:
        return None
    weights = section.weights if isinstance(section.weights, str) else "uniform"
    return section.model_copy(update={"last": STEPS, "weights": weights})


def _schedule(section: StageSection, stage: str, left_out: list[str]) -> str:
    if section.lr_scheduler_type not in NOT_IN_SMALL:
        return section.lr_scheduler_type
    left_out.append(f"{stage}.lr_scheduler_type: {section.lr_scheduler_type}")
    return "constant"


def _args(section: StageSection, stage: str, left_out: list[str]) -> dict[str, Any]:
    args = section.args
    changed: dict[str, Any] = {
        name: GPU_ONLY[name] for name, value in args.items() if name in GPU_ONLY and value != GPU_ONLY[name]
    }
    optimizer = str(args.get("optim", ""))
    if any(part in optimizer for part in ("8bit", "4bit", "paged", "apex", "npu")):
        changed["optim"] = "adamw_torch"
    left_out += [f"{stage}.args.{name}: {args[name]}" for name in changed]
    if section.lr_scheduler_type in OWN_IN_SMALL:
        changed["lr_scheduler_kwargs"] = OWN_IN_SMALL[section.lr_scheduler_type]
    kept = {name: value for name, value in args.items() if not name.startswith("vllm_")}
    if section.lr_scheduler_type in NOT_IN_SMALL:
        kept.pop("lr_scheduler_kwargs", None)
    return {name: changed.get(name, value) for name, value in kept.items()}


def _model(recipe: Recipe, model: str | Path, left_out: list[str]) -> ModelSection:
    section, attention = recipe.model, recipe.model.attn_implementation
    if attention not in (None, "eager", "sdpa"):
        left_out.append(f"model.attn_implementation: {attention}")
        attention = None
    return section.model_copy(
        update={
            "name": str(model), "gguf": None, "init": None, "merge": None, "revision": None, "dtype": "float32",
            "attn_implementation": attention,
        }
    )  # fmt: skip


def _lora(recipe: Recipe, left_out: list[str]) -> Any:
    if recipe.lora is None:
        return None
    named = [name for name in _SIZED_LAYERS if recipe.lora.args.get(name)]
    left_out += [f"lora.args.{name}: the tiny model has fewer layers" for name in named]
    args = {name: value for name, value in recipe.lora.args.items() if name not in named}
    if recipe.lora.kind == "adalora":  # whose budget falls in the steps that there are
        args = {name: value for name, value in args.items() if name not in ("tinit", "tfinal", "deltaT")}
    rank = min(recipe.lora.r, SPLIT_RANK) if recipe.lora.splits_base else recipe.lora.r
    return recipe.lora.model_copy(update={"args": args, "r": rank})


def _rewards(recipe: Recipe) -> list[RewardConfig]:
    """The recipe's rewards, and where it names none the task's own, as `inputs.load_rewards` takes them."""
    return recipe.rewards or own_reward_configs(recipe.task)


def _rollout(recipe: Recipe, left_out: list[str]) -> Any:
    section = recipe.rollout
    if section.uses_vllm():
        server = f", its server {section.server_base_url}" if section.mode == "server" else ""
        left_out.append(f"vLLM{server}, the transfer of weights to it and its memory: transformers samples")
    return section.model_copy(
        update={
            "engine": "transformers",
            "mode": "colocate",
            "server_base_url": None,
            "max_model_length": None,
            "lora": "auto",
        }
    )


def _evaluation(recipe: Recipe) -> Any:
    section, sampled = recipe.evaluate, max(recipe.evaluate.k) > 1 or recipe.evaluate.samples > 1
    length = section.max_completion_length
    return section.model_copy(
        update={
            "every": 1 if section.every else 0,
            "k": sorted({min(k, 2) for k in section.k}),
            "samples": 2 if sampled else 1,
            "batch_size": min(section.batch_size, ROWS),
            "max_completion_length": length and min(length, COMPLETION),
            "reward": section.reward or _rewards(recipe),  # not the reward that the smoke test adds
        }
    )


def _run(recipe: Recipe, folder: str | Path, left_out: list[str]) -> Any:
    if recipe.run.report_to:
        left_out.append(f"sending figures to {', '.join(recipe.run.report_to)}")
    return recipe.run.model_copy(
        update={
            "dir": str(folder),
            "device": "cpu",
            "report_to": [],
            "tracking": None,
            "log_every": 1,
            "save_completions_every": 1,
        }
    )
