"""`posttrain runs`: the runs of a folder."""

from __future__ import annotations

import argparse
from typing import Any

DESCRIPTION = """List the runs in a folder, the latest first: recipe, model, task, how far each got, its last pass@1 on
held-out problems with a 95 % interval, and when it last wrote something."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "runs", help="the runs of a folder", description=DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("folder", metavar="DIR", nargs="?", default="runs", help="the folder (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print a list of objects as JSON")
    parser.set_defaults(command=_runs)
    return parser


def _runs(args: argparse.Namespace) -> None:
    import json

    from posttrain.reading.runs import runs_in
    from posttrain.storage.files import plain

    runs = runs_in(args.folder)
    if args.json:
        print(json.dumps(plain(runs), ensure_ascii=False, indent=1))
        return
    if not runs:
        print(f"no runs in {args.folder}")
        return
    from posttrain.watching.terminal import console

    console().print(_table(runs))


def _table(runs: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for head in ("run", "recipe", "model", "task", "state", "pass@1 (95 %)", "when (UTC)"):
        table.add_column(head, overflow="fold")
    for run in runs:
        table.add_row(*(Text(_printable(cell)) for cell in _cells(run)))
    return table


def _cells(run: dict[str, Any]) -> list[str]:
    when = (run["when"] or "")[:16].replace("T", " ")
    named = [run["path"], run["recipe"] or "", run["model"] or "", run["task"] or ""]
    return [*named, _state(run), _solved(run), when]


def _state(run: dict[str, Any]) -> str:
    state, at = run["state"], run["at"]
    if at is None or state == "finished":
        return state
    return f"{state} at {at}" if state in ("running", "stopped") else f"{state}: {at}"


def _solved(run: dict[str, Any]) -> str:
    if run["pass@1"] is None:
        return ""
    ends = [f"{100 * end:.1f}" for end in run["ci95"] or ()]
    return f"{100 * run['pass@1']:.1f} %" + (f" ({' to '.join(ends)})" if ends else "") + f" of {run['n']}"


def _printable(text: str) -> str:
    """A text of a file without control codes, which a terminal would obey, and not endless."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:200])
