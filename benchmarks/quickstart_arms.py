"""Is the mix better than its two ends? SASR, SFT only and GRPO only from the same warm-up in the same training time.

    python benchmarks/quickstart_arms.py recipes/quickstart.yaml --seeds 0 1 2 --seconds 180

For each seed the recipe's warm-up runs once; each arm then continues it with its own controller (and its own learning
rate, if one is given by --set) until it has trained for the same number of seconds, evaluations and saving apart.
Pass@1 is greedy, on the recipe's held-out puzzles. Runs that are there already are not repeated, so the table can be
extended. Run nothing else on the machine: time is what is held equal.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from posttrain.config import load_recipe
from posttrain.evaluate import paired_difference
from posttrain.files import read_lines
from posttrain.pipeline import run
from posttrain.rollouts.records import read_completions

ARMS = ("sasr", "sft_only", "grpo_only")
FOREVER = 1_000_000


def warm_up(recipe: str, seed: int, folder: Path, common: list[str]) -> Path:
    """The run directory of the warm-up alone, made if it is not there."""
    here = folder / f"seed{seed}" / "warmup"
    run(load_recipe(recipe, [*common, f"run.seed={seed}", f"run.dir={here}", "hybrid.steps=0"]))
    return here


def continue_as(arm: str, recipe: str, seed: int, warmed: Path, folder: Path, seconds: float, more: list[str]) -> Path:
    """The run directory of an arm, made if it is not there."""
    here = folder / f"seed{seed}" / arm
    g_warmup = json.loads((warmed / "state.json").read_text())["done"]["warmup"]["g_warmup"]
    kind = arm.split("-")[0]
    controller = (
        [f"hybrid.controller.g_warmup={g_warmup}"] if kind == "sasr" else [f"hybrid.controller={{name: {kind}}}"]
    )
    overrides = [
        f"model={warmed / 'warmup'}",
        "warmup.steps=0",
        "evaluate.at_start=false",
        f"hybrid.steps={FOREVER}",
        f"hybrid.time_limit_s={seconds}",
        "hybrid.save_steps=null",
        f"run.seed={seed}",
        f"run.dir={here}",
    ]
    run(load_recipe(recipe, [*overrides, *controller, *more]))
    return here


def passed(run_dir: Path, stage: str) -> list[float]:
    """Greedy passes of the run's last evaluation of a stage, one number a problem."""
    file = max((run_dir / "completions").glob(f"eval-{stage}-*.parquet"))
    rows = [row for row in read_completions(file, ["row", "sample", "passed"]) if row["sample"] is None]
    return [float(row["passed"]) for row in sorted(rows, key=lambda row: row["row"])]


def arm_row(arm: str, seed: int, warmed: Path, trained: Path) -> dict[str, Any]:
    """What one arm did to one seed's warm-up."""
    before, after = passed(warmed, "final"), passed(trained, "final")
    steps = [line for line in read_lines(trained / "steps.jsonl") if line["stage"] == "hybrid"]
    difference, low, high = paired_difference(before, after)
    return {
        "arm": arm,
        "seed": seed,
        "warmup": statistics.fmean(before),
        "end": statistics.fmean(after),
        "difference": difference,
        "ci95": [low, high],
        "sft_steps": sum(line["mix"]["sft"] > 0 for line in steps),
        "grpo_steps": sum(line["mix"]["grpo"] > 0 for line in steps),
        "seconds": sum(line["seconds"]["total"] for line in steps),
    }


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The rows in Markdown, with each arm's mean."""
    rows = list(rows)
    lines = [
        "| arm | seed | warm-up | end | difference (95 % interval, paired) | SFT / GRPO steps | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["ci95"]
        lines.append(
            f"| {row['arm']} | {row['seed']} | {row['warmup']:.1%} | {row['end']:.1%} "
            f"| {row['difference']:+.1%} ({low:+.1%} to {high:+.1%}) "
            f"| {row['sft_steps']} / {row['grpo_steps']} | {row['seconds']:.0f} |"
        )
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        means = {key: statistics.fmean(row[key] for row in own) for key in ("warmup", "end", "difference")}
        lines.append(
            f"| **{arm}** | mean of {len(own)} | {means['warmup']:.1%} | {means['end']:.1%} "
            f"| {means['difference']:+.1%} | | |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help="CONTROLLER or CONTROLLER-LABEL")
    parser.add_argument("--seconds", type=float, default=180.0, help="training time of each arm")
    parser.add_argument("--out", type=Path, default=Path("runs/arms"))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="recipe overrides for all arms")
    parser.add_argument(
        "--arm-set", nargs="+", default=[], metavar="ARM:KEY=VALUE", help="overrides for one arm, as a learning rate"
    )
    args = parser.parse_args()
    own = {arm: [text.partition(":")[2] for text in args.arm_set if text.partition(":")[0] == arm] for arm in args.arms}
    rows = []
    for seed in args.seeds:
        warmed = warm_up(args.recipe, seed, args.out, args.set)
        for arm in args.arms:
            more = [*args.set, *own[arm]]
            trained = continue_as(arm, args.recipe, seed, warmed, args.out, args.seconds, more)
            rows.append(arm_row(arm, seed, warmed, trained))
            print(table(rows[-1:]).splitlines()[2], flush=True)
    rows.sort(key=lambda row: (args.arms.index(row["arm"]), row["seed"]))
    print(f"\n{table(rows)}")
    (args.out / "arms.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
