"""What a step of a method costs beside a step of GRPO alone, on the same prompts, in one run.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE python benchmarks/method_cost.py [--rounds 3] [--steps 12] [--arms hpt]

A policy is warmed up once. Then each arm goes over the same prompts at a learning rate of next to nothing, so that all
sample the same tokens, arm after arm and round after round; medians over the steps, without the first two of each.
Prefix-RFT and UFT begin rollouts with given tokens, so that they sample fewer: these are counted beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPE = Path(__file__).parent.parent / "recipes" / "methods" / "base.yaml"
ARMS = {
    "grpo_only": ["hybrid.method={name: hpt, gate: 0, passing: -1.0}"],  # never opens: the same prompts, GRPO alone
    "hpt": ["hybrid.method={name: hpt, gate: 8}"],  # every prompt with a demonstration trains on it
    "luffy": ["hybrid.method=luffy"],
    "prefix_rft": ["hybrid.method=prefix_rft"],
    "uft": ["hybrid.method={name: uft, hinted: 1.0}"],
    "rlsd": ["hybrid.method=rlsd"],  # while lambda is above 0
    "sdpg": ["hybrid.method={name: rlsd, share: 0, teacher_kl: 0.001}"],
    "srft": ["hybrid.method=srft"],
}
DEMONSTRATED = ["task.train=300", "task.demonstrations=300"]


def run(*overrides: str) -> None:
    """A run of the recipe in a process of its own."""
    command = [sys.executable, "-m", "posttrain", "run", str(RECIPE), "evaluate.every=0", "task.eval=8"]
    subprocess.run([*command, *overrides], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--arms", nargs="+", choices=[arm for arm in ARMS if arm != "grpo_only"], metavar="ARM")
    asked = parser.parse_args()
    arms = {arm: more for arm, more in ARMS.items() if arm == "grpo_only" or arm in (asked.arms or ARMS)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run("warmup.steps=100", "hybrid.steps=0", f"run.dir={folder / 'warm'}", *DEMONSTRATED)
        lines: dict[str, list[dict]] = {arm: [] for arm in arms}
        for number in range(asked.rounds):
            for arm, more in arms.items():
                target = folder / f"{arm}-{number}"
                model = [f"model={folder / 'warm' / 'model'}", "warmup.steps=0", "hybrid.learning_rate=1.0e-12"]
                run(*model, *DEMONSTRATED, *more, f"hybrid.steps={asked.steps}", f"run.dir={target}")
                records = [json.loads(line) for line in (target / "steps.jsonl").read_text().splitlines()]
                lines[arm] += records[2:]
    seconds = {arm: statistics.median(line["seconds"]["total"] for line in of) for arm, of in lines.items()}
    for arm, of in lines.items():
        length = statistics.mean(line["completion_length"] for line in of)
        shown, begun = (
            sum((line.get("method") or {}).get(name, 0) for line in of) / len(of)
            for name in ("demonstrations", "begun_tokens")
        )
        print(
            f"{arm}: {seconds[arm]:.3f} s a step, {seconds[arm] / seconds['grpo_only']:.3f} of grpo_only, "
            f"{shown:.1f} demonstrations and {begun:.1f} begun tokens a step, {length:.2f} tokens a completion"
        )


if __name__ == "__main__":
    main()
