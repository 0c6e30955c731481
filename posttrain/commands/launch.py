"""`posttrain launch`."""

from __future__ import annotations

import argparse
from typing import Any

from posttrain.commands.resuming import add_resume


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "launch",
        help="run a recipe on several GPUs or nodes",
        description="Print the `accelerate launch` command for a recipe, and run it. SIGTERM reaches every process; "
        "they have 120 s (TORCH_ELASTIC_SHUTDOWN_TIMEOUT) to save, and if all of them did, the exit code is 0. "
        "Otherwise it is that of the process that failed first.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="recipe keys, such as hybrid.steps=100")
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs on each node (default: all that are visible)")
    parser.add_argument(
        "--config",
        metavar="NAME",
        help="single, ddp, fsdp2, zero2, zero3 or an accelerate file (default: ddp; single for one process)",
    )
    parser.add_argument("--nodes", type=int, metavar="N", help="machines (default: Slurm's, or 1)")
    parser.add_argument("--node-rank", type=int, metavar="R", help="which of them this is, from 0")
    parser.add_argument("--main-address", metavar="HOST", help="node 0, as the others reach it")
    parser.add_argument("--main-port", type=int, metavar="P", help="a free port on node 0")
    parser.add_argument("--cpu", action="store_true", help="compute on CPUs, in float32")
    parser.add_argument("--processes", type=int, metavar="N", help="with --cpu: how many (default: 1)")
    parser.add_argument(
        "--warmup-from", metavar="RUN", help="begin from the warm-up of a run that differs in its hybrid stage only"
    )
    parser.add_argument("--dry-run", action="store_true", help="check and print, run nothing")
    add_resume(parser)
    parser.set_defaults(command=_launch)
    return parser


def _launch(args: argparse.Namespace) -> int:
    from posttrain.launch.launch import launch

    return launch(args)
