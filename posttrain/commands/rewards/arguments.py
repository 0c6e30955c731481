"""`posttrain rewards list | score | check`: which rewards there are, what they say of given completions, and whether
they hold on a recipe's own rows. This file has the arguments; none of it loads torch.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

EXAMPLES = """examples:
  posttrain rewards list
  posttrain rewards score --reward math_answer --input rows.jsonl --output scored.jsonl
  posttrain rewards score --reward ./my_reward.py:score --input - --kwargs tolerance=0.01 < rows.jsonl
  posttrain rewards check recipes/quickstart.yaml --rows 100
"""
SCORE = """Score given completions with one reward.

Each row of the input has a `completion` (text, or chat messages) and the columns that the reward reads. It is written
back in the same order with `score` (null: the reward does not apply, or failed), `parts` and `note`, with `error` where
the reward raised or ran out of time, and with `seconds` where the time was taken; columns of these names are replaced.

A file is read through before anything is scored: a line that is not a JSON object, has no completion or lacks a column
ends the command with its number. Standard input cannot be read twice: there, what comes before such a line is scored
and written, then the command ends. --output fills FILE.partial and renames it at the end."""
CHECK = """Score completions whose worth is known with each reward of a recipe, over the recipe's own rows.

The gold completions are the demonstrations'. Each has to get 1.0 from every reward of the recipe, or training punishes
what the warm-up teaches; name a reward that gold need not satisfy (a bonus for brevity, say) with --allow. A row that a
reward does not apply to (None) is left out, but one reward that applies to none of them fails. TRL-style functions have
a scale of their own and are shown without a verdict.

Of each built-in reward it also tells how many equal forms of the gold answers are paid 1.0 (units, spellings, another
order) and how many near misses (one digit, the sign, a bracket, a role, a key), with examples of what disagrees.

Exit status 0: every gold completion got 1.0. 1: one did not. 2: the recipe, its data or a reward cannot be used."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add `rewards` and its three commands to the command line."""
    parser = commands.add_parser(
        "rewards",
        help="list the rewards, score completions, check a recipe's rewards",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for add in (_add_list, _add_score, _add_check):
        # Suppressed: the default is the outer parser's, which may have been given the flag
        add(actions).add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _add_list(actions: Any) -> argparse.ArgumentParser:
    parser = actions.add_parser("list", help="the built-in and installed rewards", allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="as a JSON list")
    parser.set_defaults(command=_list)
    return parser


def _add_score(actions: Any) -> argparse.ArgumentParser:
    parser = actions.add_parser(
        "score",
        help="score given completions with one reward",
        description=SCORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--reward", required=True, help="a name of `rewards list`, FILE.py:FUNCTION or package.module:FUNCTION"
    )
    parser.add_argument("--input", metavar="FILE", required=True, help=".jsonl, .json or .parquet; - is standard input")
    parser.add_argument("--output", metavar="FILE", help="JSON lines (default: standard output)")
    parser.add_argument(
        "--kwargs", nargs="+", default=[], metavar="KEY=VALUE", help="fixed arguments of the reward, or one JSON object"
    )
    parser.add_argument(
        "--completion-column", default="completion", metavar="NAME", help="the completion (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, help="processes (default: one a core; 0: in this one, without a limit)")
    parser.add_argument(
        "--time-limit", type=float, default=5.0, metavar="S", help="a completion (default: %(default)s)"
    )
    parser.set_defaults(command=_score)
    return parser


def _add_check(actions: Any) -> argparse.ArgumentParser:
    parser = actions.add_parser(
        "check",
        help="try a recipe's rewards on completions whose worth is known",
        description=CHECK,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file; its model is not loaded")
    parser.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", help="recipe keys, such as scoring.time_limit_s=10"
    )
    parser.add_argument("--rows", type=int, default=50, help="demonstrations, and other rows (default: %(default)s)")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="REWARD", help="a reward that gold need not satisfy; repeatable"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    parser.set_defaults(command=_check)
    return parser


def _list(args: argparse.Namespace) -> None:
    from posttrain.commands.rewards.list import list_rewards

    with _pipe_may_close():
        list_rewards(as_json=args.json)


def _score(args: argparse.Namespace) -> None:
    from posttrain.commands.rewards.score import score_rows

    with _pipe_may_close():
        score_rows(
            args.reward,
            args.input,
            args.output,
            kwargs=args.kwargs,
            completion_column=args.completion_column,
            workers=args.workers,
            time_limit_s=args.time_limit,
        )


def _check(args: argparse.Namespace) -> None:
    from posttrain.commands.rewards.check import check_recipe

    with _pipe_may_close():
        check_recipe(args.recipe, args.overrides, rows=args.rows, allow=args.allow, json_file=args.json)


@contextlib.contextmanager
def _pipe_may_close() -> Iterator[None]:
    """End quietly when what reads standard output (`| head`) has read enough."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, which must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
