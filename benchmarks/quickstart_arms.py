"""Is the mix better than its two ends? SASR, SFT only and GRPO only from the same warm-up in the same training time.

    python benchmarks/quickstart_arms.py recipes/quickstart.yaml --seeds 1 2 3

For each seed the recipe's warm-up runs once, and the recipe's own hybrid stage continues it. What that took per SFT
step and per GRPO step (medians) gives the number of steps that SFT only and GRPO only have in the same time; every arm
so has a schedule of its own length. The seconds that each arm really took are in the table. `--arm-set` gives an arm a
learning rate of its own, `--arms grpo_only-slow` a second variant of it under a label.

Pass@1 is greedy, on the recipe's held-out puzzles. Runs that are there already are not repeated, so a table can be
extended. For timings run nothing else on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from posttrain.evaluation.statistics import paired_difference
from posttrain.recipe.recipe import load_recipe
from posttrain.rundir.completions import read_completions
from posttrain.running.pipeline import run
from posttrain.storage.files import read_lines

MIX = "mix"
ARMS = (MIX, "sft_only", "grpo_only")


def train_mix(recipe: str, seed: int, folder: Path, more: list[str]) -> Path:
    """The run of the recipe itself, warm-up and all, made if it is not there."""
    here = folder / f"seed{seed}" / MIX
    run(load_recipe(recipe, [*more, f"run.seed={seed}", f"run.dir={here}"]))
    return here


def continue_as(arm: str, recipe: str, seed: int, mix: Path, folder: Path, more: list[str]) -> Path:
    """The run of another arm from the warm-up of `mix`, for as many steps as fit into the time that `mix` took."""
    here, controller = folder / f"seed{seed}" / arm, arm.partition("-")[0]
    overrides = [
        f"model={mix / 'warmup'}",
        "warmup.steps=0",
        "evaluate.at_start=false",
        "evaluate.every=0",
        f"hybrid.steps={steps_in_the_same_time(hybrid_steps(mix), controller)}",
        "hybrid.save_steps=null",
        f"hybrid.controller={{name: {controller}}}",
        f"run.seed={seed}",
        f"run.dir={here}",
    ]
    run(load_recipe(recipe, [*overrides, *more]))
    return here


def hybrid_steps(run_dir: Path) -> list[dict[str, Any]]:
    """The hybrid stage's lines of steps.jsonl."""
    return [line for line in read_lines(run_dir / "steps.jsonl") if line["stage"] == "hybrid"]


def steps_in_the_same_time(steps: list[dict[str, Any]], controller: str) -> int:
    """How many steps of one kind take as long as these steps of both kinds."""
    kinds = {"sft_only": [s for s in steps if s["mix"]["sft"]], "grpo_only": [s for s in steps if s["mix"]["grpo"]]}
    medians = {kind: statistics.median(s["seconds"]["total"] for s in own) for kind, own in kinds.items()}
    whole = sum(medians[kind] * len(own) for kind, own in kinds.items())
    return round(whole / medians[controller])


def passed(run_dir: Path, stage: str) -> list[float]:
    """Greedy passes of the run's last evaluation of a stage, one number a problem."""
    file = max((run_dir / "completions").glob(f"eval-{stage}-*.parquet"))
    rows = [row for row in read_completions(file, ["row", "sample", "passed"]) if row["sample"] is None]
    return [float(row["passed"]) for row in sorted(rows, key=lambda row: row["row"])]


def arm_row(arm: str, seed: int, mix: Path, trained: Path) -> dict[str, Any]:
    """What one arm did to one seed's warm-up."""
    before, after = passed(mix, "warmup"), passed(trained, "final")
    steps = hybrid_steps(trained)
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
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help="CONTROLLER or CONTROLLER-LABEL, beside the mix")
    parser.add_argument("--out", type=Path, default=Path("runs/arms"))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="recipe overrides for all arms")
    parser.add_argument(
        "--arm-set", nargs="+", default=[], metavar="ARM:KEY=VALUE", help="overrides for one arm, as a learning rate"
    )
    args = parser.parse_args()
    own = {arm: [text.partition(":")[2] for text in args.arm_set if text.partition(":")[0] == arm] for arm in args.arms}
    rows = []
    for seed in args.seeds:
        mix = train_mix(args.recipe, seed, args.out, [*args.set, *own.get(MIX, [])])
        for arm in args.arms:
            more = [*args.set, *own[arm]]
            trained = mix if arm == MIX else continue_as(arm, args.recipe, seed, mix, args.out, more)
            rows.append(arm_row(arm, seed, mix, trained))
            print(table(rows[-1:]).splitlines()[2], flush=True)
    rows.sort(key=lambda row: (args.arms.index(row["arm"]), row["seed"]))
    print(f"\n{table(rows)}")
    (args.out / "arms.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
