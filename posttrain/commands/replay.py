"""`posttrain replay`: what another controller would have made of the signals that a run recorded."""

from __future__ import annotations

import argparse
from typing import Any

DESCRIPTION = """Feed the signals that a run recorded (gradient norms, KL) through its controller under other settings,
with the same draws, and show the mix and p of both. Without settings it must give the run's own decisions; exit code 1:
it does not. How the model itself would have moved under another mix is not known: its signals are the run's."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "replay", help="a run's signals through the controller with other settings", description=DESCRIPTION,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="the directory of a run")
    parser.add_argument(
        "overrides", metavar="controller.KEY=VALUE", nargs="*",
        help="such as controller.gamma=2, or controller.name=cosine for another one",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="draw both over the steps: FILE.html or FILE.svg")
    parser.add_argument("--json", action="store_true", help="print the summary and every step as JSON")
    parser.set_defaults(command=_replay)
    return parser


def _replay(args: argparse.Namespace) -> int:
    import json

    from posttrain.reading.replay import replay
    from posttrain.reading.replay_shown import as_record, check_out, show, write
    from posttrain.storage.files import plain

    check_out(args.out)
    result = replay(args.run, args.overrides)
    if args.out:
        write(args.out, result)
    if args.json:
        print(json.dumps(plain(as_record(result)), ensure_ascii=False))
    else:
        show(result)
        if args.out:
            print(f"wrote {args.out}")
    return int(bool(result.other_than_run) and not args.overrides)
