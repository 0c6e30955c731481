"""`posttrain study`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  posttrain study study.yaml --dry-run
  posttrain study study.yaml --jobs 2
  posttrain study study.yaml --only switch --only sasr
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "study",
        help="several mixes at the same cost, tuned by one rule and judged over seeds",
        description="Run the arms of a study at the same cost, each at its best setting, and say which of them can be "
        "told apart. What is done is never run again; what was stopped or killed goes on.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("study", metavar="STUDY", help="a YAML file")
    parser.add_argument("--dir", metavar="DIR", help="where it works (default: runs/study-NAME)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once (default: 1)")
    parser.add_argument("--only", action="append", default=[], metavar="ARM", help="run this arm; may be repeated")
    parser.add_argument(
        "--launch", metavar="ARGUMENTS", help='make each run by `posttrain launch ARGUMENTS`, such as "--gpus 8"'
    )
    parser.add_argument("--dry-run", action="store_true", help="show arms, runs and time, and run nothing")
    parser.add_argument("--table", action="store_true", help="show what there is, and run nothing")
    parser.add_argument(
        "--reference", metavar="ARM", help="the arm that others are compared with, in place of the study's own"
    )
    parser.add_argument("--json", action="store_true", help="print what there is as JSON, and run nothing")
    parser.set_defaults(command=_study)
    return parser


def _study(args: argparse.Namespace) -> int:
    from posttrain.errors import ConfigError
    from posttrain.nearest import did_you_mean
    from posttrain.study.study import Study
    from posttrain.watching.terminal import console

    study = Study(args.study, args.dir)
    if args.jobs < 1:
        raise ConfigError(f"{args.jobs}", expected="at least 1", where="--jobs")
    for flag, arms in {"--only": args.only, "--reference": [args.reference] if args.reference else []}.items():
        for arm in arms:
            if arm not in study.arms:
                expected = f"one of {', '.join(study.arms)}"
                raise ConfigError(f"no arm {arm!r}", expected=expected, where=flag, fix=did_you_mean(arm, study.arms))
    study.reference = args.reference or study.reference
    from posttrain.study import show

    if args.dry_run:
        show.dry_run(study, args.jobs, args.only, console())
        return 0
    from posttrain.study.judged import judge
    from posttrain.study.writing import write

    if args.json or args.table:
        judged = judge(study)
        if args.json:
            import json

            from posttrain.storage.files import plain

            print(json.dumps(plain(judged), ensure_ascii=False, indent=1))
        else:
            show.table(judged, console())
        return 0
    from posttrain.study.queue import Queue

    queue = Queue(study, args.jobs, tuple(args.only), args.launch, say=_say)
    queue.changed = lambda: write(study, judge(study, queue.failed))
    queue.run()
    judged = judge(study, queue.failed)
    write(study, judged)
    show.table(judged, console())
    for name in ("study.html", "study.md", "study.json"):
        if (file := Path(study.folder) / name).exists():
            print(f"{name}: {file}")
    return int(bool(queue.failed))


def _say(text: str) -> None:
    import time

    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
