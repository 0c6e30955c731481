"""`posttrain data`."""

from __future__ import annotations

import argparse
import filecmp
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

from posttrain.commands import data_leaks
from posttrain.errors import ConfigError


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "data", help="write a task's rows as JSON lines, or look for leaks in a recipe's", allow_abbrev=False
    )
    add_tasks, parse = cache(partial(_add_tasks, parser)), parser.parse_known_args

    def parse_known_args(*args: Any, **kwargs: Any) -> Any:
        add_tasks()  # not before: their choices are the tasks', for whose imports no other command need wait
        return parse(*args, **kwargs)

    parser.parse_known_args = parse_known_args  # type: ignore[method-assign]
    return parser


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    data_leaks.add(tasks)
    for add in (_add_knights_knaves, _add_json_structure, _add_table_structure, _add_countdown):
        task = add(tasks)
        task.add_argument("--noise-share", type=float, default=0.0, help="share of rows that are wrong on purpose")
        task.add_argument("--count", type=int, required=True, help="how many rows")
        task.add_argument("--out", metavar="FILE", required=True)
        task.add_argument("--force", action="store_true", help="write over a file that holds something else")
        task.add_argument("--seed", type=int, default=0)
        task.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        task.set_defaults(command=_data)


def _add_knights_knaves(tasks: Any) -> argparse.ArgumentParser:
    from posttrain.tasks.knights_knaves import Cot, Prompt, write

    parser = tasks.add_parser("knights_knaves", help="puzzles about who tells the truth", allow_abbrev=False)
    parser.add_argument("--people", required=True, help="numbers of people, such as 3, 2-4 or 2,5-7")
    parser.add_argument("--depth", type=int, default=1, help="connectives inside one another (default: %(default)s)")
    parser.add_argument("--prompt", choices=get_args(Prompt), default="full")
    parser.add_argument("--cot", choices=get_args(Cot), default="auto", help="the form of the chain of thought")
    parser.add_argument("--think-share", type=float, default=1.0, help="share of rows with a chain of thought")
    parser.set_defaults(write=write, options=("people", "depth", "prompt", "cot", "think_share", "noise_share"))
    return parser


def _add_json_structure(tasks: Any) -> argparse.ArgumentParser:
    from posttrain.tasks.json_structure import Prompt, Style, write

    parser = tasks.add_parser("json_structure", help="texts to extract JSON objects from", allow_abbrev=False)
    parser.add_argument("--difficulty", required=True, help="levels from 1 to 5, such as 2, 1-3 or 1,4-5")
    parser.add_argument("--prompt", choices=get_args(Prompt), default="full")
    parser.add_argument("--style", choices=get_args(Style), default="compact", help="how the JSON is written")
    parser.set_defaults(write=write, options=("difficulty", "prompt", "style", "noise_share"))
    return parser


def _add_table_structure(tasks: Any) -> argparse.ArgumentParser:
    from posttrain.tasks.table_structure import FORMS, Prompt, write

    parser = tasks.add_parser("table_structure", help="texts to put into tables", allow_abbrev=False)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="default: all")
    parser.add_argument("--table-rows", default="2-4", help="rows of a table (default: %(default)s)")
    parser.add_argument("--columns", default="2-4", help="columns of a table (default: %(default)s)")
    parser.add_argument("--prompt", choices=get_args(Prompt), default="full")
    parser.set_defaults(write=write, options=("forms", "table_rows", "columns", "prompt", "noise_share"))
    return parser


def _add_countdown(tasks: Any) -> argparse.ArgumentParser:
    from posttrain.tasks.countdown import Prompt, write

    parser = tasks.add_parser("countdown", help="targets to reach with numbers", allow_abbrev=False)
    parser.add_argument("--numbers", required=True, help="how many numbers a puzzle has, such as 3, 3-4 or 2,4-5")
    parser.add_argument("--operators", nargs="+", default=["+", "-", "*", "/"], help="which of + - * / (default: all)")
    parser.add_argument("--largest", type=int, default=99, help="the largest number (default: %(default)s)")
    parser.add_argument("--target", type=int, nargs=2, default=[10, 99], metavar=("LEAST", "MOST"))
    parser.add_argument("--use-all", action="store_true", help="ask for each number exactly once")
    parser.add_argument("--prompt", choices=get_args(Prompt), default="full")
    parser.add_argument("--think-share", type=float, default=1.0, help="share of rows that show a search")
    parser.add_argument("--tries", type=int, default=3, help="the most dead ends of a search (default: %(default)s)")
    options = ("numbers", "operators", "largest", "target", "use_all", "prompt", "think_share", "tries", "noise_share")
    parser.set_defaults(write=write, options=options)
    return parser


def _data(args: argparse.Namespace) -> None:
    if args.count < 1:
        raise ConfigError(str(args.count), expected="at least 1", where="--count")
    options = {name: getattr(args, name) for name in args.options}
    out = Path(args.out)
    if not out.is_file() or args.force:  # what else it is, the writer says
        count = args.write(out, count=args.count, seed=args.seed, **options)
        wrong = f", {round(count * args.noise_share)} of them wrong on purpose" if args.noise_share else ""
        print(f"wrote {count} rows to {out}{wrong}")
        return
    with tempfile.TemporaryDirectory() as folder:
        count = args.write(Path(folder) / out.name, count=args.count, seed=args.seed, **options)
        if filecmp.cmp(Path(folder) / out.name, out, shallow=False):
            print(f"{out} holds these {count} rows already")
            return
    raise ConfigError(
        f"{out} exists and holds something else",
        expected="a new file",
        where="--out",
        fix="name another file, or write over this one by --force",
    )
