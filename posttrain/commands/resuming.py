"""The flags of the commands that go on with a run."""

from __future__ import annotations

import argparse


def add_resume(parser: argparse.ArgumentParser) -> None:
    """Add what says how to go on with a run that there is."""
    fresh = parser.add_mutually_exclusive_group()
    fresh.add_argument("--resume", action="store_true", help="go on with the run; an error if there is none")
    fresh.add_argument("--restart", action="store_true", help="start anew; an old run is moved aside")
    parser.add_argument(
        "--accept-changes", action="store_true", help="go on although the recipe, data or rewards have changed"
    )
