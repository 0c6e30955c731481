"""`posttrain init`: a recipe and a reward for a file of rows."""

from __future__ import annotations

import argparse
from typing import Any

DESCRIPTION = """Look at a file of rows (.jsonl, .json, .parquet, .csv, .tsv), say what is in it, and write a commented
recipe and a reward for it, which run as they are with a tiny model. With --example instead of a file: the example with
a reward and rows of its own. No model is loaded, and nothing is written over."""
EXAMPLES = """examples:
  posttrain init eggs.jsonl
  posttrain init train.csv --eval test.csv --out mine
  posttrain init eggs.jsonl --reward my_reward.py
  posttrain init --example
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "init",
        help="a recipe and a reward for a file of your own",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("data", metavar="DATA", nargs="?", help="the file")
    parser.add_argument("--example", action="store_true", help="copy the example instead")
    parser.add_argument("--eval", metavar="FILE", help="rows to evaluate on (default: some of DATA are held out)")
    parser.add_argument("--reward", metavar="FILE", help="a reward that you have, FILE.py or FILE.py:FUNCTION")
    parser.add_argument("--out", metavar="DIR", help="where to write (default: a folder named after the file)")
    parser.add_argument("--force", action="store_true", help="write over a recipe and a reward that are there")
    parser.set_defaults(command=_init)
    return parser


def _init(args: argparse.Namespace) -> None:
    from posttrain.errors import ConfigError
    from posttrain.planning.starting.start import start, start_example

    if args.example == (args.data is not None):
        raise ConfigError(
            "a file and --example" if args.example else "neither a file nor --example",
            expected="one of the two",
            where="command line",
            fix="`posttrain init DATA` for rows of your own, `posttrain init --example` to see one that works",
        )
    given = [name for name in ("eval", "reward") if getattr(args, name) is not None]
    if args.example and given:
        raise ConfigError(
            f"--{given[0]} with --example", expected="a file of rows for it", where=f"--{given[0]}", fix="name the file"
        )
    if args.example:
        started = start_example(args.out, force=args.force)
    else:
        started = start(args.data, eval_file=args.eval, reward=args.reward, out=args.out, force=args.force)
    for line in started.lines:
        print(line)
    print(f"wrote {', '.join(map(str, started.written))}\nnext:")
    for command in started.next:
        print(f"  {command}")
