"""`posttrain plan`: what a recipe would do, before it does. No weights are loaded."""

from __future__ import annotations

import argparse
import os
from typing import Any

DESCRIPTION = """Say what a recipe would do, without loading weights: every value and where it comes from, what each
stage takes of each stream, memory by part, time, three rendered rows, what the limits cut off, likely mistakes, and the
command that starts it. Without --gpus or --processes it is planned for `posttrain run`, in one process. Exit code 1:
the run would refuse to start; what is merely missing here (a model of the hub without a network) is a warning, with 0.
The structure of --json is in posttrain/planning/as_json.py."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "plan", help="what a recipe would do, before it does", description=DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="recipe keys, such as hybrid.steps=100")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--gpus", type=int, metavar="N", help="as `posttrain launch --gpus N` would run it")
    where.add_argument("--cpu", action="store_true", help="on CPUs, in float32")
    parser.add_argument("--processes", type=int, metavar="N", help="with --cpu: how many (default: 1)")
    parser.add_argument(
        "--config", metavar="NAME", help="with --gpus: ddp, fsdp2, zero2, zero3 or an accelerate file (default: ddp)"
    )
    parser.add_argument(
        "--measured", metavar="FILE", help="what benchmarks/scaling.py measured here, for the time (--json of it)"
    )
    parser.add_argument("--all", action="store_true", help="show values that are mere defaults, too")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(command=_plan)
    return parser


def _plan(args: argparse.Namespace) -> int:
    import json

    from posttrain.planning.as_json import as_json
    from posttrain.planning.launching import launch_of
    from posttrain.planning.machine import hub_answers, this_machine
    from posttrain.planning.plan import make_plan, needs_hub
    from posttrain.planning.settings import settings
    from posttrain.planning.show import show
    from posttrain.recipe.recipe import load_recipe

    processes, config = _processes(args)
    recipe = load_recipe(args.recipe, args.overrides)
    launched = args.gpus is not None or args.processes is not None
    machine = this_machine(
        recipe, processes=processes, per_node=processes, config=config, cpu=args.cpu, launched=launched
    )
    offline = needs_hub(recipe) and not hub_answers()
    if offline:  # before transformers and datasets are loaded: else each of them asks six times
        os.environ["HF_HUB_OFFLINE"] = "1"
    plan = make_plan(recipe, machine, offline=offline, points=args.measured)
    launch = launch_of(recipe, args.recipe, args.overrides, machine)
    values = settings(recipe, args.recipe)
    if args.json:
        print(json.dumps(as_json(plan, args.recipe, values, launch), ensure_ascii=False, indent=1, allow_nan=False))
    else:
        show(plan, args.recipe, values, launch, everything=args.all)
    return int(plan.status == "problem")


def _processes(args: argparse.Namespace) -> tuple[int, str]:
    """How many processes, and the launcher's configuration."""
    from posttrain.errors import ConfigError
    from posttrain.launch.launch import config_file

    if args.processes is not None and not args.cpu:
        raise ConfigError("--processes without --cpu", where="--processes", fix="--gpus N plans for N GPUs")
    count = args.gpus if args.gpus is not None else args.processes if args.processes is not None else 1
    if count < 1:
        raise ConfigError(str(count), expected="at least 1", where="--processes" if args.cpu else "--gpus")
    config = args.config or ("single" if count == 1 else "ddp")
    config_file(config)  # there is such a one
    return count, config
