"""`posttrain view`: the completions of a run."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

DESCRIPTION = """Show completions that a run recorded, newest first: rollouts of training, or of an evaluation by
--eval. Filters add up. With --prompt: one prompt's completions in the order of the run."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "view", help="the completions of a run", description=DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", help="the directory of a run")
    parser.add_argument("--eval", metavar="STAGE", help="of the stage's last evaluation: start, warmup, hybrid, final")
    parser.add_argument("--step", type=int, metavar="N", help="of one step")
    parser.add_argument("--from", type=int, metavar="N", dest="first", help="of this step and later ones")
    parser.add_argument("--to", type=int, metavar="N", dest="last", help="of this step and earlier ones")
    parser.add_argument("--min-reward", type=float, metavar="X", help="with this reward or more")
    parser.add_argument("--max-reward", type=float, metavar="X", help="with this reward or less")
    parser.add_argument(
        "--part", action="append", default=[], metavar="NAME<VALUE",
        help="by a part of the score, or one of several rewards; also >, <=, >= and = (put it in quotes)",
    )  # fmt: skip
    parser.add_argument("--source", metavar="NAME", help="whose prompt is from this source, or task of a mixture")
    parser.add_argument("--text", metavar="REGEX", help="whose text matches")
    parser.add_argument("--prompt", metavar="N|TEXT", help="of held-out problem N, or of the prompt that holds TEXT")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--best", action="store_true", help="the highest rewards first")
    order.add_argument("--worst", action="store_true", help="the lowest rewards first")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default: %(default)s)")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--full", action="store_true", help="all of each completion and its prompt")
    shape.add_argument("--jsonl", action="store_true", help="a JSON object a line")
    parser.set_defaults(command=_view)
    return parser


def _view(args: argparse.Namespace) -> int:
    from posttrain.errors import ConfigError
    from posttrain.reading.view import search
    from posttrain.reading.view_prompt import of_prompt
    from posttrain.reading.view_query import PartFilter, Query, compiled
    from posttrain.reading.view_shown import json_lines, show
    from posttrain.rundir.reading import open_run

    if args.limit < 1:
        raise ConfigError(str(args.limit), expected="at least 1", where="--limit", fix="leave it out for 20")
    if args.step is not None and (args.first is not None or args.last is not None):
        raise ConfigError(
            "--step with --from or --to",
            expected="one step, or a range",
            where="command line",
            fix="drop one of the two",
        )
    if args.prompt is not None and (args.best or args.worst):
        raise ConfigError(
            "--prompt with --best or --worst", expected="the order of the run", where="command line",
            fix="drop one of the two, or filter by --min-reward",
        )  # fmt: skip
    query = Query(
        stage=args.eval,
        step=args.step,
        first=args.first,
        last=args.last,
        min_reward=args.min_reward,
        max_reward=args.max_reward,
        parts=tuple(PartFilter.parse(text) for text in args.part),
        source=args.source,
        text=compiled(args.text),
        order="best" if args.best else "worst" if args.worst else "newest",
        limit=args.limit,
    )
    layout = open_run(args.run)
    found = search(layout, query) if args.prompt is None else of_prompt(layout, args.prompt, query)
    if args.jsonl:
        try:
            for line in json_lines(found.rows):
                print(line)
            sys.stdout.flush()
        except BrokenPipeError:  # of `| head`: what is left to say has nobody to hear it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        show(found, full=args.full)
    return 0
