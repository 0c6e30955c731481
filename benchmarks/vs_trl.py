"""TRL's own trainers and ours on the same work, side by side.

    OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false python benchmarks/vs_trl.py --json vs_trl.json
    OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false python benchmarks/vs_trl.py target --json target.json

Three kinds of rows. `training`: the training part of a GRPO step on the same recorded rollouts, whose gradients are
compared. `step`: the whole step with generation and rewards, from the same policy and prompts. `target`: time to a
held-out accuracy on Knights & Knaves. The first two are made without being asked for, and take minutes on 2 cores.

Both sides have the same weights, float32, sdpa, loss, micro-batches and threads, and take turns step by step in one
process; `trl_s`, `ours_s` are medians of seconds, `ratio` is TRL's over ours. Peaks are of a process each, over what it
held with the model loaded.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vs_trl_training import LOADS

KINDS = {"training": "vs_trl_training", "step": "vs_trl_step", "target": "vs_trl_target"}

COLUMNS = {
    "trl_s": ".2f", "ours_s": ".2f", "ratio": ".2f", "cpu_ratio": ".2f", "gradient_rel_l2": ".1e",
    "trl_peak_mib": ".0f", "ours_peak_mib": ".0f",
}  # fmt: skip
"""Keys of a row that the table shows, and how."""

HEAD = (
    "| row | load | TRL s | ours s | ratio | CPU ratio | gradient rel. L2 | TRL peak MiB | ours peak MiB |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, write it.

    Returns:
        What `--json` writes.
    """
    args = parsed(argv)
    import torch

    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {"rows": [], "machine": machine(args)}
    print(", ".join(f"{name}: {value}" for name, value in result["machine"].items()), HEAD, sep="\n\n", flush=True)
    for kind in args.kinds:
        for row in importlib.import_module(KINDS[kind]).rows(args):
            result["rows"].append(row)
            print(line(row), flush=True)
            if args.json:
                args.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's arguments."""
    from two_sides import MEANS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS], metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--repeats", type=int, default=5, help="of the first training row and of step (%(default)s)")
    parser.add_argument("--more-repeats", type=int, default=3, help="of the other training rows (%(default)s)")
    parser.add_argument("--model", default="small", help="mini, tiny, small, medium or a folder (%(default)s)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of torch (%(default)s)")
    parser.add_argument("--completions", type=int, default=120, help="a step (%(default)s)")
    parser.add_argument("--group", type=int, default=8, help="completions a prompt (%(default)s)")
    parser.add_argument("--micro-batch", type=int, default=8, help="completions (%(default)s, TRL's own default)")
    parser.add_argument("--tokens", type=int, default=64, help="training: mean length of both texts (%(default)s)")
    parser.add_argument("--loads", nargs="+", default=list(LOADS), choices=LOADS, help="training")
    parser.add_argument("--loss-type", default="dapo")
    parser.add_argument("--without", action="append", default=[], choices=list(MEANS), help="ours; may be repeated")
    parser.add_argument("--ablate", action="store_true", help="training: the first load without each means, too")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="training: measure no peaks")
    parser.add_argument("--longest", type=int, default=192, help="step: tokens of a completion (%(default)s)")
    parser.add_argument("--policy-steps", type=int, default=120, help="step: of making the policy (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.kinds = args.kinds or ["training", "step"]
    if args.completions % args.group or args.completions % args.micro_batch:
        parser.error("--completions must be whole groups and whole micro-batches")
    return args


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """Where the numbers are from."""
    names = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": args.threads,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        **{name: version(name) for name in ("torch", "trl", "transformers")},
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def line(row: dict[str, Any]) -> str:
    """A row of the Markdown table."""
    load = row.get("load", "") + "".join(f", without {name}" for name in row.get("without") or [])
    return "| " + " | ".join([row["name"], load, *(_shown(row.get(key), form) for key, form in COLUMNS.items())]) + " |"


def _shown(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


if __name__ == "__main__":
    main()
