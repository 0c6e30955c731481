"""`posttrain explain`: why a run mixed SFT and GRPO as it did, in sentences computed from its record."""

from __future__ import annotations

import argparse
from typing import Any

DESCRIPTION = """Say why a run mixed SFT and GRPO as it did. Each decision is taken again from the recorded numbers by
the controller's own formula. Exit code 1: a recorded decision does not follow from the recorded numbers."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "explain", help="why a run mixed SFT and GRPO as it did", description=DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", help="the directory of a run")
    parser.add_argument("--step", type=int, metavar="N", help="one step of the hybrid stage")
    parser.add_argument("--warmup-step", type=int, metavar="N", help="one step of the warm-up")
    parser.add_argument("--json", action="store_true", help="print the sentences and the numbers as JSON")
    parser.set_defaults(command=_explain)
    return parser


def _explain(args: argparse.Namespace) -> int:
    import json

    from posttrain.errors import ConfigError
    from posttrain.reading.explain import explain_step, explain_warmup_step, read
    from posttrain.reading.explain_summary import explain_run, show
    from posttrain.storage.files import plain

    if args.step is not None and args.warmup_step is not None:
        raise ConfigError("--step together with --warmup-step", expected="one of them", where="command line")
    run = read(args.run)
    if args.warmup_step is not None:
        told = explain_warmup_step(run, args.warmup_step)
    else:
        told = explain_run(run) if args.step is None else explain_step(run, args.step)
    if args.json:
        print(json.dumps(plain(told), ensure_ascii=False))
    else:
        show(told)
    return int(told["follows"] is False)
