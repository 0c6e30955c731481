"""What a recipe asks for and DeepSpeed's ZeRO cannot give, said before it starts; `processes/zero.py` says why."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from posttrain.errors import ConfigError
from posttrain.processes.deepspeed_releases import unsound
from posttrain.processes.zero import INSTEAD
from posttrain.recipe.mistakes import raise_all
from posttrain.recipe.recipe import Recipe
from posttrain.recipe.section import AGAINST_START


def check_recipe(recipe: Recipe, stage: int, *, offloads: bool = False) -> None:
    """Refuse a recipe that a ZeRO stage cannot carry out, before its warm-up has taken hours.

    Args:
        recipe: The recipe, on as many processes as it will run on.
        stage: Of ZeRO.
        offloads: Whether its optimizer is kept on the CPU.

    Raises:
        ConfigError: With each key and what to set.
    """
    accumulated = [
        unsound(stage, offloads=offloads, accumulation=section.gradient_accumulation_steps, where=recipe.where(key))
        for key, section in (
            ("warmup.gradient_accumulation_steps", recipe.warmup),
            ("hybrid.gradient_accumulation_steps", recipe.hybrid),
        )
        if section.steps
    ]
    raise_all([*filter(None, accumulated), *_apart(recipe, stage)], "the recipe")


def _apart(recipe: Recipe, stage: int) -> list[ConfigError]:
    """What of the hybrid stage needs more than one gradient a step, or whole weights."""
    early = recipe.warmup.steps and recipe.warmup.sft_weight in AGAINST_START
    before = [no_start(recipe.where("warmup.sft_weight"))] if early else []
    if recipe.warmup.steps and recipe.warmup.muscle:
        before.append(no_start(recipe.where("warmup.muscle"), "muscle, which compares"))
    if not recipe.hybrid.steps:
        return before
    needs = apart(recipe.hybrid.controller)
    problems = before + [
        refused(seen, recipe.where(f"hybrid.controller.{key}"), fix) for key, (seen, fix) in needs.items()
    ]
    if stage == 3 and recipe.hybrid.kl.sample > 0 and recipe.hybrid.controller.shares()[1]:
        problems.append(no_kl(recipe.where("hybrid.kl.sample")))
    if recipe.hybrid.sft_weight in AGAINST_START:
        problems.append(no_start(recipe.where("hybrid.sft_weight")))
    if recipe.hybrid.method and recipe.hybrid.method.teacher_kl:
        problems.append(no_teacher_kl(recipe.where("hybrid.method")))
    return problems


def apart(controller: Any) -> dict[str, tuple[str, str]]:
    """Settings of a controller for which a gradient must be seen apart from a step: what is seen, and what to set."""
    needs = {}
    if getattr(controller, "mode", None) == "blend" and all(controller.shares()):
        if any(each.name == "mode" for each in fields(controller)):
            needs["mode"] = ("blend", "set it to step")
        else:
            needs["name"] = (f"{controller.name}, a blend", "take a controller of one loss a step")
    if getattr(controller, "refresh_every", 0):
        needs["refresh_every"] = (str(controller.refresh_every), "set it to 0")
    return needs


def refused(seen: str, where: str, fix: str) -> ConfigError:
    """The error of a setting that needs the SFT gradient apart from a step."""
    return ConfigError(
        f"{seen}, under DeepSpeed",
        expected="no need for the SFT gradient apart from a step: DeepSpeed steps inside of its backward",
        where=where,
        fix=f"{fix}, or {INSTEAD}",
    )


def no_teacher_kl(where: str) -> ConfigError:
    """The error of a KL over the whole vocabulary, for which the head's weight is needed beside TRL's loss."""
    return ConfigError(
        "teacher_kl, under DeepSpeed",
        expected="0: ZeRO gathers the head's weight for TRL's loss alone",
        where=where,
        fix=f"leave teacher_kl out, or {INSTEAD}",
    )


def no_start(where: str, what: str = f"one of {', '.join(AGAINST_START)}, which compare") -> ConfigError:
    """The error of a loss for which the starting policy's values take the place of the present ones."""
    return ConfigError(
        f"{what} with the starting policy, under DeepSpeed",
        expected="weights that change places in the model, which DeepSpeed keeps copies of",
        where=where,
        fix=f"take another loss, or {INSTEAD}",
    )


def no_kl(where: str) -> ConfigError:
    """The error of measuring the KL to weights that ZeRO-3 has cut up."""
    return ConfigError(
        "the KL to the starting policy under ZeRO-3",
        expected="0: ZeRO-3 has no whole weights to copy",
        where=where,
        fix=f"set it to 0, or {INSTEAD}, or zero2",
    )
