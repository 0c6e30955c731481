"""What the hybrid itself costs beside training and sampling, and what scoring costs: shares of a step.

    OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false python benchmarks/overhead.py [hybrid] [rewards] [--json FILE]

`hybrid`: a run of recipes/quickstart.yaml in which SFT and GRPO steps alternate, with the functions of the controller,
the norms, the record and the callbacks timed from within. What a function spends in another one on the list counts as
the other's; what TRL does as well (its own gradient norm) counts as nobody's. The measurement of the KL to the start is
no logging but forward passes that `hybrid.kl.sample` asks for, and stands apart; so does putting the demonstrations of
a step together, which is any trainer's data loading.
`rewards`: runs with steps of `--completions` completions, whose steps.jsonl says how long they waited for scores, with
scoring ahead and without.

The clock is wall-clock time, with CPU time of the process beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parents[1] / "recipes"
APART = ("KL", "TRL's own", "demonstrations")
"""Labels that are not the hybrid's overhead."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, write; returns what `--json` writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[[], "hybrid", "rewards"], metavar="KIND", help="hybrid, rewards")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--model", nargs="+", choices=list(MODELS), default=list(MODELS), help="hybrid")
    parser.add_argument("--steps", type=int, default=24, help="hybrid: of which the first 4 do not count (%(default)s)")
    parser.add_argument("--completions", type=int, default=512, help="rewards: a step (%(default)s)")
    parser.add_argument("--reward-steps", type=int, default=4, help="rewards: the first does not count (%(default)s)")
    parser.add_argument("--warmup", type=int, default=60, help="steps of the warm-up before (%(default)s)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args(argv)
    result: dict[str, Any] = {}
    for kind in args.kinds or ["hybrid", "rewards"]:
        result[kind] = {"hybrid": hybrid_rows, "rewards": reward_rows}[kind](args)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


# ---- the hybrid ----

MODELS = {
    "tiny": {},
    "small": {"model.init.hidden_size": 192, "model.init.heads": 3},
}
"""Overrides of recipes/base/tiny.yaml, whose model has 0.9 million parameters; `small` has 2 million."""


class Overhead:
    """Seconds that functions take, each without the others that it calls, by the kind of step they belong to."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {"sft": defaultdict(float), "grpo": defaultdict(float)}
        self.cpu: dict[str, dict[str, float]] = {"sft": defaultdict(float), "grpo": defaultdict(float)}
        self.totals: dict[str, list[float]] = {"sft": [], "grpo": []}
        self.cpu_totals: dict[str, list[float]] = {"sft": [], "grpo": []}
        self.kind = "grpo"
        self.counting = False
        self._inside: list[list[float]] = []
        self._waiting: list[tuple[str, float, float]] = []

    def wrap(self, owner: Any, name: str, label: str) -> None:
        """Time `owner.name` from now on."""
        inner = inspect.getattr_static(owner, name)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inside.append([0.0, 0.0])
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return inner(*args, **kwargs)
            finally:
                took = time.perf_counter() - wall, time.process_time() - cpu
                nested = self._inside.pop()
                self._waiting.append((label, took[0] - nested[0], took[1] - nested[1]))
                if self._inside:
                    self._inside[-1][0] += took[0]
                    self._inside[-1][1] += took[1]
                else:
                    self._flush()

        setattr(owner, name, timed)

    def _flush(self) -> None:
        """Credit what waited: the kind of a step is known once it has begun."""
        for label, wall, cpu in self._waiting if self.counting else ():
            self.seconds[self.kind][label] += wall
            self.cpu[self.kind][label] += cpu
        self._waiting.clear()


@contextlib.contextmanager
def instrumented(overhead: Overhead, skip: int) -> Iterator[None]:
    """Time the hybrid's own functions within the block.

    Args:
        overhead: Takes the times.
        skip: Steps at the start that do not count.
    """
    from transformers import Trainer, TrainerCallback

    from posttrain.controllers import CONTROLLERS
    from posttrain.rundir import rundir
    from posttrain.running import callbacks
    from posttrain.training import ledger, sft_side, skipped, trainer
    from posttrain.training.window import kl

    of_step = trainer.HybridTrainer
    targets = [
        *((controller, name, "controller") for controller in CONTROLLERS.values() for name in ("decide", "observe")),
        (of_step, "_begin_step", "start of a step"),
        (of_step, "_get_grad_norm", "norms"),
        (of_step, "_blend", "norms"),
        (Trainer, "_get_grad_norm", "TRL's own"),
        (of_step, "finish_step", "record"),
        (of_step, "_record_completions", "completions"),
        (of_step, "compare_ranks", "comparison of processes"),
        (ledger.Ledger, "add", "ledger"),
        (ledger.Ledger, "mean", "ledger"),
        (kl.DistanceFromStart, "score", "KL"),
        (sft_side.SFTSide, "draw", "demonstrations"),
        (rundir.RunDir, "step", "record, written"),
        *(
            (kind, name, "callbacks")
            for module in (callbacks, trainer, skipped)
            for kind in vars(module).values()
            if inspect.isclass(kind) and issubclass(kind, TrainerCallback) and kind.__module__ == module.__name__
            for name in ("on_step_end", "on_log", "on_pre_optimizer_step", "on_step_begin")
            if name in vars(kind)
        ),
    ]
    before = [(owner, name, inspect.getattr_static(owner, name)) for owner, name, _ in targets]
    began, finish = of_step._begin_step, of_step.finish_step

    since = 0.0

    def begin(self: Any) -> None:
        nonlocal since
        since = time.process_time()
        began(self)
        overhead.kind = "sft" if self._mix.sft else "grpo"
        overhead.counting = self.state.global_step >= skip

    def end(self: Any) -> None:
        finish(self)
        if overhead.counting:
            overhead.totals[overhead.kind].append(self.last_record["seconds"]["total"])
            overhead.cpu_totals[overhead.kind].append(time.process_time() - since)

    of_step._begin_step, of_step.finish_step = begin, end
    for owner, name, label in targets:
        overhead.wrap(owner, name, label)
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)
        of_step._begin_step, of_step.finish_step = began, finish


def hybrid_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per model and kind of step."""
    rows = []
    head = ["model", "step", "mean s", "overhead", "by CPU time", "of which", "apart"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|", flush=True)
    for model in args.model:
        overhead = Overhead()
        settings = {
            **MODELS[model], "hybrid.steps": args.steps, "hybrid.warmup_steps": 0,
            "warmup.steps": args.warmup, "warmup.warmup_steps": 0,
            "hybrid.controller": "{name: alternate}", "run.threads": args.threads, "evaluate.every": 0,
            "evaluate.at_start": "false", "task.eval": 8, "hybrid.save_steps": "null",
        }  # fmt: skip
        with instrumented(overhead, skip=4):
            carried_out("quickstart.yaml", settings)
        for kind in overhead.totals:
            row = hybrid_row(model, kind, overhead)
            rows.append(row)
            parts, apart = (
                ", ".join(f"{name} {share:.2%}" for name, share in row[key].items()) for key in ("parts", "apart")
            )
            shares = f"{row['overhead']:.2%} | {row['overhead_cpu']:.2%}"
            print(f"| {model} | {kind} | {row['step_s']:.3f} | {shares} | {parts} | {apart} |", flush=True)
    return rows


def hybrid_row(model: str, kind: str, overhead: Overhead) -> dict[str, Any]:
    """Shares of the time of all counted steps of a kind."""
    totals, total = overhead.totals[kind], sum(overhead.totals[kind])
    shares = {name: seconds / total for name, seconds in sorted(overhead.seconds[kind].items())}
    own = {name: share for name, share in shares.items() if name not in APART}
    cpu = sum(seconds for name, seconds in overhead.cpu[kind].items() if name not in APART)
    return {
        "model": model,
        "step": kind,
        "steps": len(totals),
        "step_s": total / len(totals),
        "overhead": sum(own.values()),
        "overhead_cpu": cpu / sum(overhead.cpu_totals[kind]),
        "overhead_s": sum(own.values()) * total / len(totals),
        "overhead_cpu_s": cpu / len(totals),
        "parts": own,
        "apart": {name: share for name, share in shares.items() if name in APART},
    }


# ---- the rewards ----

TASKS = {
    "knights_knaves": ("quickstart.yaml", {"task.eval": 8}),
    "math_answer": (
        "quickstart.yaml",
        {
            "task": "{name: math, path: SUMS, train: 3000, eval: 8, demonstrations: 300}",
            "warmup.max_length": 256, "hybrid.grpo.max_completion_length": 40,
        },
    ),
    "json_structure": ("json_structure-tiny.yaml", {"task.eval": 8}),
}  # fmt: skip
"""Reward to recipe and overrides."""


def reward_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per reward and way of scoring."""
    rows = []
    print("| reward | ahead | step s | waiting for scores s | share |\n|---|---|---|---|---|", flush=True)
    for reward, (recipe, changes) in TASKS.items():
        for ahead in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                sums = Path(folder) / "sums.jsonl"
                write_sums(sums)
                settings = {
                    **{key: str(value).replace("SUMS", str(sums)) for key, value in changes.items()},
                    "warmup.steps": args.warmup, "hybrid.steps": args.reward_steps,
                    "warmup.warmup_steps": 0, "hybrid.warmup_steps": 0,
                    "hybrid.controller": "{name: grpo_only}", "hybrid.per_device_train_batch_size": 128,
                    "hybrid.gradient_accumulation_steps": args.completions // 128, "run.threads": args.threads,
                    "evaluate.every": 0, "evaluate.at_start": "false", "hybrid.save_steps": "null",
                    "scoring.ahead": str(ahead).lower(),
                }  # fmt: skip
                steps = carried_out(recipe, settings)[1:]
            total = statistics.median(step["seconds"]["total"] for step in steps)
            waited = statistics.median(step["seconds"].get("score", 0.0) for step in steps)
            rows.append(
                {"reward": reward, "ahead": ahead, "step_s": total, "score_s": waited, "share": waited / total,
                 "completions": args.completions, "steps": len(steps)}
            )  # fmt: skip
            print(f"| {reward} | {ahead} | {total:.2f} | {waited:.3f} | {waited / total:.2%} |", flush=True)
    return rows


def write_sums(file: Path) -> None:
    """Sums with worked solutions, as rows of the task `math`."""
    rows = [
        {"question": f"{a} + {b}", "answer": f"{a} and {b} make {a + b}.\n#### {a + b}"}
        for a in range(64)
        for b in range(64)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def carried_out(recipe: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a recipe with overrides in a folder that is thrown away; the hybrid stage's lines of steps.jsonl."""
    from posttrain.recipe.recipe import load_recipe
    from posttrain.running.pipeline import run

    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        overrides = [f"{key}={value}" for key, value in settings.items()]
        loaded = load_recipe(RECIPES / recipe, [*overrides, f"run.dir={folder}/run", "rollout.engine=transformers"])
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            result = run(loaded, plain=True)
        lines = (result.path / "steps.jsonl").read_text().splitlines()
    return [step for step in map(json.loads, lines) if step["stage"] == "hybrid"]


if __name__ == "__main__":
    main()
