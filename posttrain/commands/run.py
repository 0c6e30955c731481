"""`posttrain run`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.commands.resuming import add_resume
from posttrain.processes.launched import processes

if TYPE_CHECKING:
    from posttrain.inputs.gathering import Inputs
    from posttrain.recipe.recipe import Recipe


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser = commands.add_parser("run", help="train a model by a recipe", allow_abbrev=False)
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="recipe keys, such as hybrid.steps=100")
    parser.add_argument(
        "--smoke", action="store_true", help="try all of it in a minute on a CPU: tiny model, real data and rewards"
    )
    parser.add_argument(
        "--warmup-from", metavar="RUN", help="begin from the warm-up of a run that differs in its hybrid stage only"
    )
    add_resume(parser)
    parser.set_defaults(command=_run)
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.smoke:
        from posttrain.commands.smoke import smoke_command

        smoke_command(args, processes=processes())
        return
    from posttrain.watching.opening import say

    say(f"reading {args.recipe}")
    from posttrain.processes.zero import offloads_in_launch, stage_of_launch
    from posttrain.recipe.recipe import load_recipe
    from posttrain.recipe.zero import check_recipe
    from posttrain.running.loading import load_libraries

    def load() -> Recipe:
        recipe = load_recipe(args.recipe, args.overrides)
        if (stage := stage_of_launch(os.environ)) is not None:
            check_recipe(recipe, stage, offloads=offloads_in_launch(os.environ))
        return recipe

    inputs = None
    if processes() > 1:
        from posttrain.running.pipeline import join

        _, recipe = join(load)
    else:
        recipe = load()
        inputs = _looked_at(recipe, args, say)

    say("loading torch, transformers and TRL")
    load_libraries(vllm=recipe.rollout.uses_vllm())
    from posttrain.running.pipeline import run

    run(
        recipe,
        resume=True if args.resume else None,  # None: go on if there is something to go on with
        accept_changes=args.accept_changes,
        restart=args.restart,
        inputs=inputs,
        warmup_from=args.warmup_from,
    )
    if processes() > 1:
        from posttrain.processes.ranks import leave

        leave()


def _looked_at(recipe: Recipe, args: argparse.Namespace, say: Callable[[str], None]) -> Inputs:
    """Look at all that can be looked at without torch; the run itself checks it, too."""
    from posttrain.inputs.gathering import gather
    from posttrain.recipe.arithmetic import for_processes
    from posttrain.recipe.contradictions import check
    from posttrain.rundir.facts import processes_of
    from posttrain.rundir.looking import check_directory
    from posttrain.watching.tracker_packages import check_installed

    path = Path(recipe.run.dir or "runs/run")
    started_on = None if args.restart else processes_of(path)
    check(for_processes(recipe, started_on or 1, 1))
    check_installed(recipe.run.report_to, where=recipe.where("run.report_to"))
    directory = partial(check_directory, path, recipe, resume=args.resume, restart=args.restart)
    directory(accept_changes=True, starting=True)
    say("loading rows and rewards")
    inputs = gather(recipe)
    # Last: what it says of another recipe's run is no help as long as this recipe is not right
    directory(accept_changes=args.accept_changes, starting=False)
    return inputs
