"""`posttrain run`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from posttrain.commands.resuming import add_resume
from posttrain.processes.launched import processes


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser = commands.add_parser("run", help="train a model by a recipe", allow_abbrev=False)
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="recipe keys, such as hybrid.steps=100")
    parser.add_argument(
        "--smoke", action="store_true", help="try all of it in a minute on a CPU: tiny model, real data and rewards"
    )
    add_resume(parser)
    parser.set_defaults(command=_run)
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.smoke:
        from posttrain.commands.smoke import smoke_command

        smoke_command(args, processes=processes())
        return
    from posttrain.processes.zero import stage_of_launch
    from posttrain.recipe.arithmetic import for_processes
    from posttrain.recipe.contradictions import check
    from posttrain.recipe.recipe import Recipe, load_recipe
    from posttrain.recipe.zero import check_recipe
    from posttrain.rundir.facts import processes_of

    def load() -> Recipe:
        recipe = load_recipe(args.recipe, args.overrides)
        if (stage := stage_of_launch(os.environ)) is not None:
            check_recipe(recipe, stage)
        return recipe

    if processes() > 1:
        from posttrain.running.pipeline import join

        _, recipe = join(load)
    else:
        recipe = load()
        # Before torch is loaded; the run checks it, too
        started_on = None if args.restart else processes_of(Path(recipe.run.dir or "runs/run"))
        check(for_processes(recipe, started_on or 1, 1))

    from posttrain.running.pipeline import run

    run(
        recipe,
        resume=True if args.resume else None,  # None: go on if there is something to go on with
        accept_changes=args.accept_changes,
        restart=args.restart,
    )
    if processes() > 1:
        from posttrain.processes.ranks import leave

        leave()
