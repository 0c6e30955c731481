"""What a `HybridTrainer` asks for and DeepSpeed's ZeRO cannot give."""

from __future__ import annotations

from typing import Any

from posttrain.processes.zero import check_gives_norms, stage_of
from posttrain.recipe.zero import apart, no_kl, no_start, refused


def check_zero(trainer: Any, *, measures_kl: bool, g_warmup: float | None, against_start: bool = False) -> None:
    """Refuse what a `HybridTrainer` would need and DeepSpeed lacks.

    Args:
        trainer: Constructed as far as its accelerator, its controller and its demonstrations.
        measures_kl: Whether the KL to the starting policy is measured.
        against_start: Whether demonstrations are weighed against the starting policy.
        g_warmup: The norm at the end of the warm-up, if it is known.

    Raises:
        ConfigError: With what to set.
    """
    stage, controller = stage_of(trainer.accelerator), trainer.controller
    if stage is None:
        return
    check_gives_norms(trainer.accelerator, accumulation=trainer.args.gradient_accumulation_steps)
    for key, (seen, fix) in apart(controller).items():
        raise refused(seen, f"controller.{key}", fix)
    known = g_warmup if g_warmup is not None else getattr(controller, "g_warmup", None)
    if trainer.sft and controller.needs_g_warmup and known is None:
        fix = "give g_warmup, as a warm-up stage records it"
        raise refused("no g_warmup, so that it would have to be measured", "controller.g_warmup", fix)
    if measures_kl and stage == 3:
        raise no_kl("kl_sample")
    if against_start:
        raise no_start("sft_weight")
