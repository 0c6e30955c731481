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

from posttrain.errors import ConfigError, TrainingError
from posttrain.processes.deepspeed_releases import unsound

INSTEAD = "launch with --config fsdp2 or ddp"


def stage_of_launch(environ: Mapping[str, str]) -> int | None:
    """The ZeRO stage that `accelerate launch` asks its processes for; None without DeepSpeed or with a file of its."""
    stage = environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "")
    return int(stage) if environ.get("ACCELERATE_USE_DEEPSPEED") == "true" and stage.isdigit() else None


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


def offloads_in_launch(environ: Mapping[str, str]) -> bool:
    """Whether `accelerate launch` has its processes keep ZeRO's optimizer on the CPU."""
    return environ.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none") not in ("", "none")


def check_gives_norms(accelerator: Any, *, accumulation: int) -> None:
    """Refuse DeepSpeed without ZeRO, which tells no norm, and releases of it that tell a wrong one.

    Args:
        accelerator: The trainer's.
        accumulation: Micro-batches of a step.

    Raises:
        ConfigError: With what does the same, or the first sound release.
    """
    if error := unsound(
        stage_of(accelerator),
        offloads=_offloads(accelerator),
        accumulation=accumulation,
        where="gradient_accumulation_steps",
    ):
        raise error
    if stage_of(accelerator) == 0:
        raise ConfigError(
            "DeepSpeed without ZeRO, which gives no gradient norm",
            expected="ZeRO stage 1, 2 or 3",
            where="accelerate's deepspeed_config.zero_stage",
            fix="launch with --config ddp, which does the same",
        )


def _offloads(accelerator: Any) -> bool:
    if stage_of(accelerator) is None:
        return False
    config = getattr(getattr(accelerator.state, "deepspeed_plugin", None), "deepspeed_config", None) or {}
    device = (config.get("zero_optimization", {}).get("offload_optimizer") or {}).get("device", "none")
    return str(device) != "none"


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
