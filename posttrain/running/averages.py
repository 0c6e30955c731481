"""The average of a run's last checkpoints (`hybrid.average`): written beside the final model, from files alone."""

from __future__ import annotations

from collections.abc import Callable

from posttrain.errors import ConfigError
from posttrain.recipe.recipe import Recipe
from posttrain.rundir.layout import Layout
from posttrain.running.policies import write_average
from posttrain.storage.checkpoints import last_checkpoints, step_of
from posttrain.training.trainer import HybridTrainer


def average_checkpoints(recipe: Recipe, run: Layout, say: Callable[[str], None]) -> list[int]:
    """Write the average of the checkpoints that the recipe asks for, and say of which.

    Returns:
        Their steps; fewer than were asked for where there are not as many.
    """
    section = recipe.hybrid.average
    assert section is not None
    folders = last_checkpoints(run.checkpoints("hybrid"), section.last)
    ratios, found = section.ratios(len(folders)), [step_of(folder) for folder in folders]
    fewer = f", all that there are of {section.last}" if len(found) < section.last else ""
    parts = ", ".join(f"{ratio:.3g} of step {step}" for ratio, step in zip(ratios, found, strict=True))
    say(f"averaging {len(found)} checkpoints{fewer}: {parts}")
    where, trust = recipe.where("hybrid.average"), recipe.model.trust_remote_code
    write_average(run.averaged_model, folders, ratios, trust_remote_code=trust, where=where)
    return found


def check_whole(recipe: Recipe, trainer: HybridTrainer) -> None:
    """Refuse an average of checkpoints that hold shards.

    Raises:
        ConfigError: With what to launch instead.
    """
    if recipe.hybrid.average and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        raise ConfigError(
            "average, and checkpoints whose weights are sharded",
            expected="checkpoints that a model is loaded from",
            where=recipe.where("hybrid.average"),
            fix="launch with --config ddp, or leave it out",
        )
