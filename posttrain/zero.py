"""What DeepSpeed's ZeRO cannot give a run, said before it starts.

DeepSpeed reduces gradients, clips them and steps inside of the last backward of a step. So there is one norm a step,
read after it, of the whole gradient: enough for SFT steps and GRPO steps, whose norms are those of other backends.
There is no gradient of one loss to be seen apart from a step, and none to be dropped before the optimizer has it: a
step whose gradient is not finite DeepSpeed leaves out itself, as 0.19 does in every precision, or has taken it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from posttrain.config import Recipe
from posttrain.config_errors import raise_all
from posttrain.errors import ConfigError, TrainingError

INSTEAD = "launch with --config fsdp2 or ddp"


def stage_of_launch(environ: Mapping[str, str]) -> int | None:
    """The ZeRO stage that `accelerate launch` asks its processes for; None without DeepSpeed or with a file of its."""
    stage = environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "")
    return int(stage) if environ.get("ACCELERATE_USE_DEEPSPEED") == "true" and stage.isdigit() else None


def check_recipe(recipe: Recipe, stage: int) -> None:
    """Refuse a recipe that a ZeRO stage cannot carry out, before its warm-up has taken hours.

    Raises:
        ConfigError: With each key and what to set.
    """
    if not recipe.hybrid.steps:
        return
    needs = _apart(recipe.hybrid.controller)
    problems = [_refused(seen, recipe.where(f"hybrid.controller.{key}"), fix) for key, (seen, fix) in needs.items()]
    if stage == 3 and recipe.hybrid.kl.sample > 0 and recipe.hybrid.controller.shares()[1]:
        problems.append(_no_kl(recipe.where("hybrid.kl.sample")))
    raise_all(problems, "the recipe")


def stage_of(accelerator: Any) -> int | None:
    """The ZeRO stage, 0 to 3; None without DeepSpeed."""
    if accelerator.distributed_type != "DEEPSPEED":
        return None
    return int(accelerator.state.deepspeed_plugin.zero_stage)


def is_partitioned(parameter: Any) -> bool:
    """Whether ZeRO-3 has cut a parameter up; every process must take part in using it."""
    return hasattr(parameter, "ds_id")


def load_whole() -> None:
    """Have transformers load models whole from here on, until a trainer is made.

    After a trainer under ZeRO-3, `from_pretrained` would cut up every model that is loaded, those too that are only
    evaluated and that no engine puts together again.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def check_gives_norms(accelerator: Any) -> None:
    """Refuse DeepSpeed without ZeRO, which tells no norm.

    Raises:
        ConfigError: With what does the same.
    """
    if stage_of(accelerator) == 0:
        raise ConfigError(
            "DeepSpeed without ZeRO, which gives no gradient norm",
            expected="ZeRO stage 1, 2 or 3",
            where="accelerate's deepspeed_config.zero_stage",
            fix="launch with --config ddp, which does the same",
        )


def check_zero(trainer: Any, *, measures_kl: bool, g_warmup: float | None) -> None:
    """Refuse what a `HybridTrainer` would need and DeepSpeed lacks.

    Args:
        trainer: Constructed as far as its accelerator, its controller and its demonstrations.
        measures_kl: Whether the KL to the starting policy is measured.
        g_warmup: The norm at the end of the warm-up, if it is known.

    Raises:
        ConfigError: With what to set.
    """
    stage, controller = stage_of(trainer.accelerator), trainer.controller
    if stage is None:
        return
    check_gives_norms(trainer.accelerator)
    for key, (seen, fix) in _apart(controller).items():
        raise _refused(seen, f"controller.{key}", fix)
    known = g_warmup if g_warmup is not None else getattr(controller, "g_warmup", None)
    if trainer.sft and controller.needs_g_warmup and known is None:
        fix = "give g_warmup, as a warm-up stage records it"
        raise _refused("no g_warmup, so that it would have to be measured", "controller.g_warmup", fix)
    if measures_kl and stage == 3:
        raise _no_kl("kl_sample")


def _apart(controller: Any) -> dict[str, tuple[str, str]]:
    """Settings of a controller for which a gradient must be seen apart from a step: what is seen, and what to set."""
    needs = {}
    if getattr(controller, "mode", None) == "blend" and all(controller.shares()):
        needs["mode"] = ("blend", "set it to step")
    if getattr(controller, "refresh_every", 0):
        needs["refresh_every"] = (str(controller.refresh_every), "set it to 0")
    return needs


def _refused(seen: str, where: str, fix: str) -> ConfigError:
    return ConfigError(
        f"{seen}, under DeepSpeed",
        expected="no need for the SFT gradient apart from a step: DeepSpeed steps inside of its backward",
        where=where,
        fix=f"{fix}, or {INSTEAD}",
    )


def _no_kl(where: str) -> ConfigError:
    return ConfigError(
        "the KL to the starting policy under ZeRO-3",
        expected="0: ZeRO-3 has no whole weights to copy",
        where=where,
        fix=f"set it to 0, or {INSTEAD}, or zero2",
    )


def check_step(accelerator: Any, norm: float, *, step: int) -> None:
    """Stop where DeepSpeed has stepped on a gradient that is not finite, for nothing can skip that step any more.

    A step that it left out itself counts as skipped, as on other backends.

    Args:
        accelerator: The trainer's.
        norm: Of the step's gradient, the same on every process.
        step: Its number.

    Raises:
        TrainingError: On every process.
    """
    if stage_of(accelerator) is None or math.isfinite(norm) or accelerator.optimizer_step_was_skipped:
        return
    error = TrainingError(
        f"the gradient's norm is {norm}, and DeepSpeed has stepped on it",
        expected="a finite gradient: DeepSpeed steps before anyone sees it",
        where=f"step {step}",
        fix=f"go on with --resume: the last checkpoint is from before. Lower the learning rate, or {INSTEAD}, where "
        "such steps are skipped",
    )
    error.shared = accelerator.num_processes > 1
    raise error
