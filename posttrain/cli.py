"""The commands: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from posttrain.commands import ADDERS
from posttrain.errors import ConfigError, DataError, Interrupted, PosttrainError
from posttrain.processes.interrupting import as_usual
from posttrain.processes.launched import processes

EXAMPLES = """examples:
  posttrain init rows.jsonl
  posttrain plan recipes/quickstart.yaml
  posttrain run recipes/quickstart.yaml --smoke
  posttrain run recipes/quickstart.yaml hybrid.steps=100 hybrid.controller.gamma=0.5
  posttrain launch recipes/gsm8k-qwen2.5-1.5b-8gpu.yaml --gpus 8
  posttrain runs
  posttrain explain runs/quickstart --step 100
  posttrain replay runs/quickstart controller.gamma=2
  posttrain view runs/quickstart --worst
  posttrain compare runs/quickstart runs/other
  posttrain export runs/quickstart --to exported
  posttrain eval runs/quickstart
  posttrain data knights_knaves --people 2-4 --count 1000 --out puzzles.jsonl
  posttrain rewards check recipes/quickstart.yaml
  posttrain doctor
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0: done, or stopped by SIGTERM and saved. 1: the run failed. 2: the recipe, an argument or the data is wrong.
    130: stopped by Ctrl-C. Of several processes the main one says what all of them know.
    """
    logging.getLogger("vllm.triton_utils").setLevel(logging.ERROR)  # its CPU build warns in every process
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # PEFT imports it; of a kernel it lacks
    args = parse(argv)
    if args.name != "run":  # which has more to load, and minds Ctrl-C itself once it does
        as_usual()
        gc.set_threshold(10_000)  # imports make a million objects to stay, among which 700 is no sign of garbage
    try:
        status: int | None = args.command(args)
    except Interrupted as stop:
        if _speaks(stop):
            print(stop, file=sys.stderr)
        _leave(stop)
        return 0 if stop.signal == signal.SIGTERM else 130
    except PosttrainError as error:
        if args.traceback:
            traceback.print_exc()
        elif _speaks(error):
            print(f"error{_source(error)}: {error}", file=sys.stderr)
        _leave(error)
        return 2 if isinstance(error, ConfigError | DataError) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return status or 0


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; `key=value` overrides may stand anywhere among the flags."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if args.name == "serve":
        args.more = rest
        return args
    unknown = [text for text in rest if text.startswith("-") or not hasattr(args, "overrides")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)} (see `posttrain {args.name} --help`)")
    if rest:
        args.overrides = [*args.overrides, *rest]
    if hasattr(args, "overrides") and "=" in getattr(args, "recipe", ""):
        _put_recipe_first(args)
    return args


def _put_recipe_first(args: argparse.Namespace) -> None:
    """Let `key=value` stand before the recipe, too."""
    given = [args.recipe, *args.overrides]
    recipes = [text for text in given if "=" not in text]
    if len(recipes) == 1 and not Path(args.recipe).exists():
        args.recipe = recipes[0]
        args.overrides = [text for text in given if text is not recipes[0]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="posttrain",
        description="Warm-up SFT, then an adaptive mix of SFT and GRPO with verifiable rewards.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"posttrain {_version()}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    for add in ADDERS:
        command = add(commands)
        command.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return parser


def _version() -> str:
    try:
        return version("posttrain")
    except PackageNotFoundError:
        return "(not installed)"


def _source(error: PosttrainError) -> str:
    """Which process an error is from, where there are several and not all have it of their own."""
    if processes() == 1:
        return ""
    rank = error.rank if error.shared else os.environ["RANK"]
    return "" if rank is None or error.where == f"rank {rank}" else f" (rank {rank})"


def _speaks(error: PosttrainError) -> bool:
    """Whether this process is to print an error: its own, or, on the main process, one that all of them raise."""
    return not error.shared or processes() == 1 or os.environ["RANK"] == "0"


def _leave(error: PosttrainError) -> None:
    """Part with the other processes of the run, if there are any.

    A launcher ends all processes as soon as one has failed, so those that know of an error wait until the main one has
    said it. Where others are gone already, this process ends at once: to close what it shared with them could hang.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if error.lost_connection:
        os._exit(1)
    if error.shared and processes() > 1:
        from posttrain.processes.ranks import Ranks

        with suppress(Exception):  # there is nobody to wait for, then
            Ranks.joined().wait()
