"""`posttrain schedule`: a learning-rate schedule from the gradient norms of a finished run."""

from __future__ import annotations

import argparse
from typing import Any

DESCRIPTION = """Make a learning-rate schedule of the gradient norms in a run's steps.jsonl (refined linear decay,
Defazio et al. 2023): low where gradients were large, falling to 0. What is printed is the part of a recipe that trains
with it: write it into a file and let the recipe extend that, or copy it. It holds for the task, the model and the batch
that it was measured on."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "schedule", help="a learning-rate schedule from a run's gradient norms", description=DESCRIPTION,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="the directory of a run")
    parser.add_argument("--stage", choices=("warmup", "hybrid"), help="whose norms (default: the last stage's)")
    parser.add_argument(
        "--optimizer", choices=("adam", "sgd"), default="adam", help="which the norms are weighed for (default: adam)"
    )
    parser.add_argument(
        "--smooth", type=float, default=0.1, metavar="SHARE",
        help="width of the median over the norms, as a share of the steps (default: 0.1; 0 for none)",
    )  # fmt: skip
    parser.add_argument("--points", type=int, default=40, metavar="N", help="points of the curve (default: 40)")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(command=_schedule)
    return parser


def _schedule(args: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from posttrain.reading.refined import refined_of
    from posttrain.watching.sparkline import sparkline

    found = refined_of(args.run, args.stage, optimizer=args.optimizer, smooth=args.smooth, points=args.points)
    if args.json:
        print(json.dumps({"run": args.run, **asdict(found)}))
        return 0
    left_out = f", {found.left_out} without a gradient left out" if found.left_out else ""
    print(f"# {sparkline(found.points, 60, low=0.0)}  of {found.norms} steps of {args.run}{left_out}")
    print(f"{found.stage}:\n  lr_scheduler_type: refined\n  warmup_steps: 0\n  args:\n    lr_scheduler_kwargs:")
    print(f"      points: [{', '.join(f'{point:g}' for point in found.points)}]")
    return 0
