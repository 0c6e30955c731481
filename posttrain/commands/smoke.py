"""`posttrain run RECIPE --smoke`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from posttrain.errors import ConfigError
from posttrain.models.gguf_files import PACKAGED
from posttrain.planning.doctor.facts import reachable
from posttrain.recipe.contradictions import check
from posttrain.recipe.recipe import Recipe, load_recipe
from posttrain.running.loading import load_libraries


def smoke_command(args: argparse.Namespace, *, processes: int) -> None:
    """Try a recipe with a tiny model; the arguments are those of `posttrain run`.

    Args:
        args: The arguments.
        processes: How many a launcher started.

    Raises:
        ConfigError: There are several processes, or a flag that concerns an earlier run; and whatever the test finds.
    """
    if processes > 1:
        raise ConfigError(
            f"{processes} processes, as the launcher's WORLD_SIZE says",
            expected="one process: a smoke test runs on the CPU of one machine",
            where="--smoke",
            fix="start it without a launcher: posttrain run RECIPE --smoke",
        )
    flags = {"--resume": args.resume, "--restart": args.restart, "--accept-changes": args.accept_changes}
    for flag in [name for name, is_given in flags.items() if is_given]:
        raise ConfigError(
            f"{flag} with --smoke",
            expected="one of them: a smoke test starts anew, in a folder of its own",
            where=flag,
            fix="leave one out",
        )
    recipe = load_recipe(args.recipe, args.overrides)
    check(recipe)

    if _asks_hub(recipe) and not _hub_answers():
        # Read when the hub's client is imported: else it tries for minutes, file by file, before it looks in its cache
        os.environ["HF_HUB_OFFLINE"] = "1"
    load_libraries(vllm=False)  # not before now: the checks above do without torch
    from posttrain.planning.smoke.smoke import smoke

    smoke(recipe)


def _asks_hub(recipe: Recipe) -> bool:
    """Whether the model or a data set has a hub's name."""
    name, tasks = recipe.model.name, getattr(recipe.task, "tasks", [recipe.task])
    return (name is not None and name not in PACKAGED and not Path(name).is_dir()) or any(
        getattr(task, "dataset", None) for task in tasks
    )


def _hub_answers() -> bool:
    return reachable(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
