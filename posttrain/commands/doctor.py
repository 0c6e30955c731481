"""`posttrain doctor`."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "doctor",
        help="check that this machine can run recipes",
        description="Check versions, GPUs, vLLM, disk and hub. Exit code 0: no problem (there may be warnings). 1: a "
        "problem.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.set_defaults(command=_doctor)
    return parser


def _doctor(args: argparse.Namespace) -> int:
    from posttrain.planning.doctor.doctor import doctor

    return doctor(as_json=args.json)
