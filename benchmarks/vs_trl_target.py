"""Time to a held-out accuracy: `SFTTrainer` then `GRPOTrainer`, tuned, against a posttrain recipe.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false \
        python benchmarks/vs_trl_target.py --seeds 1 2 3 --out runs/target --json target.json

Both sides begin from the same weights and have the same demonstrations in the same order, prompts, reward and held-out
puzzles (those of vs_trl_target.yaml); each run is a process of its own on one thread. When SFT ends, and after every
second GRPO step, the policy answers the held-out puzzles greedily by `posttrain.evaluation.evaluate`. A side's time is
what its two stages took, trainers' construction included and evaluations left out, up to the first evaluation at or
above the target: in seconds of the process's CPU time, which other work on the machine changes little, and in seconds
of wall-clock time. Every run leaves its whole curve in a JSON file, so that another target can be looked up
(`--target`); runs whose file is there are not repeated. `one` runs a single side with any settings: what the tuning was
done with.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).with_suffix(".yaml")
TARGET = 0.4
EVERY = {"sft": 0, "warmup": 0, "grpo": 2, "hybrid": 2}
"""Steps of a stage between evaluations; 0: only when it ends."""
LIMIT_S = 900.0
STOP_AT = 0.68
TRL: dict[str, dict[str, Any]] = {
    "sft": {"max_steps": 300, "learning_rate": 2e-3},
    "grpo": {"max_steps": 24, "learning_rate": 1e-4, "max_completion_length": 168, "temperature": 0.7},
}
"""What was best of the settings tried for the baseline, over the defaults in `trl_side`."""


class Reached(Exception):
    """The budget is spent or the target surely passed: training need not go on."""


class Clock:
    """Training time of a run, and its curve.

    Args:
        examine: Gives the accuracy of a model on the held-out puzzles.
        every: Steps of each stage between evaluations (see `EVERY`).
        limit_s: CPU seconds of training after which the run ends.
        stop_at: Accuracy at which the run ends.
    """

    def __init__(
        self, examine: Any, *, every: dict[str, int], limit_s: float, stop_at: float, spent: Sequence[float] = ()
    ):
        self.examine, self.every, self.limit_s, self.stop_at = examine, every, limit_s, stop_at
        self.curve: list[dict[str, Any]] = []
        self.cpu_s, self.wall_s = spent or (0.0, 0.0)
        self.resume()

    def resume(self) -> None:
        """Training goes on."""
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def pause(self) -> None:
        """Training waits; what it took is added."""
        self.cpu_s += time.process_time() - self._cpu
        self.wall_s += time.perf_counter() - self._wall

    def look(self, model: Any, stage: str, step: int, *, always: bool = False) -> None:
        """At a step's end: evaluate if it is time.

        Raises:
            Reached: The run may end.
        """
        self.pause()
        seen = self.curve and (self.curve[-1]["stage"], self.curve[-1]["step"]) == (stage, step)
        due = self.every[stage] and step % self.every[stage] == 0
        if (always or due) and not seen:
            accuracy, length = self.examine(model)
            point = {"stage": stage, "step": step, "cpu_s": self.cpu_s, "wall_s": self.wall_s, "accuracy": accuracy}
            self.curve.append(point | {"length": length})
            print(f"{stage} {step}: {accuracy:.1%} after {self.cpu_s:.1f} s, {length:.1f} tokens", flush=True)
            if accuracy >= self.stop_at or self.cpu_s >= self.limit_s:
                raise Reached
        self.resume()


def watching(clock: Clock, stage: str, model: Any) -> Any:
    """A trainer's callback that has the clock look after every step."""
    from transformers import TrainerCallback

    class Watching(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            clock.look(model, stage, state.global_step)

        def on_log(self, args, state, control, logs=None, **kwargs):
            shown = {key: logs[key] for key in ("reward", "frac_reward_zero_std", "entropy") if key in (logs or {})}
            if shown:
                print(f"{stage} {state.global_step}: {shown}", flush=True)

    return Watching()


class Work:
    """What both sides share of a seed: rows, tokenizer, weights, reward, evaluation."""

    def __init__(self, seed: int, overrides: Sequence[str] = ()):
        import torch

        from posttrain.inputs.data import tokenize_demonstrations
        from posttrain.inputs.inputs import load_data, load_rewards
        from posttrain.models.load import build_model, train_tokenizer
        from posttrain.recipe.recipe import load_recipe
        from posttrain.scoring.scorer import Scorer, trl_reward_functions
        from posttrain.watching.quiet import quiet_libraries

        torch.set_num_threads(1)
        quiet_libraries()
        self.seed = seed
        self.recipe = load_recipe(RECIPE, [*overrides, f"run.seed={seed}"])
        self.data = load_data(self.recipe)
        self.rewards = load_rewards(self.recipe, self.data, ())
        init, rows = self.recipe.model.init, [*self.data.demonstrations, *self.data.train]
        self.tokenizer = train_tokenizer((row["prompt"] + row.get("completion", "") for row in rows), init.vocab_size)
        self.model = build_model(self.tokenizer, seed=seed, **init.model_dump(exclude={"vocab_size"}))
        self.demonstrations = tokenize_demonstrations(self.data.demonstrations, self.tokenizer)
        self.reward_funcs = trl_reward_functions(Scorer(self.rewards))
        self.common = {
            "seed": seed, "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": [],
            "disable_tqdm": True, "save_strategy": "no",
        }  # fmt: skip

    def prompts(self) -> Any:
        """The prompts of the rollouts with the reward's columns."""
        from datasets import Dataset

        return Dataset.from_list(self.data.train)

    def examine(self, model: Any) -> tuple[float, float]:
        """Greedy pass@1 and mean length on the held-out puzzles, by the task's own reward."""
        from posttrain.evaluation.evaluate import evaluate

        result = evaluate(
            model, self.tokenizer, self.data.eval, self.rewards, batch_size=self.recipe.evaluate.batch_size,
            max_new_tokens=self.recipe.hybrid.grpo.max_completion_length,
        )  # fmt: skip
        return result.pass_at_1, result.mean_length


def trl_side(work: Work, clock: Clock, settings: dict[str, Any], folder: str) -> None:
    """`SFTTrainer` on the demonstrations, then `GRPOTrainer` on the prompts; of ours is only the order of the rows."""
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

    from posttrain.training.streams import Stream

    clock.resume()  # imports are not training
    model = work.model
    if settings.get("sft"):
        defaults: dict[str, Any] = {
            "per_device_train_batch_size": 32, "warmup_steps": 10, "weight_decay": 0.0, "logging_steps": 1,
            "train_sampling_strategy": "sequential",
        }  # fmt: skip
        args = SFTConfig(folder, **{**work.common, **defaults, **settings["sft"]})
        order = Stream(len(work.demonstrations), seed=work.seed, name="demonstrations")
        sft = SFTTrainer(
            model,
            args,
            train_dataset=work.demonstrations.select(order.take(args.max_steps * args.per_device_train_batch_size)),
            processing_class=work.tokenizer,
            callbacks=[watching(clock, "sft", model)],
        )
        sft.remove_callback(PrinterCallback)
        sft.train()
        clock.look(model, "sft", sft.state.global_step, always=True)
        if settings.get("keep"):
            model.save_pretrained(settings["keep"])
            Path(settings["keep"], "spent.json").write_text(json.dumps([clock.cpu_s, clock.wall_s]))
        model = handed_on(model, clock, folder)
    if settings.get("grpo"):
        defaults = {
            "per_device_train_batch_size": 128, "num_generations": 8, "warmup_steps": 2,
            "lr_scheduler_type": "constant_with_warmup", "beta": 0.0, "weight_decay": 0.0,
        }  # fmt: skip
        grpo = GRPOTrainer(
            model,
            work.reward_funcs,
            GRPOConfig(folder, **{**work.common, **defaults, **settings["grpo"]}),
            train_dataset=work.prompts(),
            processing_class=work.tokenizer,
            callbacks=[watching(clock, "grpo", model)],
        )
        grpo.remove_callback(PrinterCallback)
        grpo.train()
        clock.look(model, "grpo", grpo.state.global_step, always=True)


def handed_on(model: Any, clock: Clock, folder: str) -> Any:
    """The model that the next stage begins from: loaded from a folder, free of what the first trainer put on it.

    A run of ours hands it on so, and TRL's GRPOTrainer loads its reference from that folder where it needs one.
    """
    from posttrain.models.load import load_policy

    clock.pause()
    model.save_pretrained(folder)
    model = load_policy(folder)
    clock.resume()
    return model


def our_side(work: Work, clock: Clock, settings: dict[str, Any], folder: str) -> None:
    """The recipe's two stages, as a run puts them together."""
    from transformers import PrinterCallback
    from trl import SFTConfig

    from posttrain.training.config import HybridConfig
    from posttrain.training.ledger import FolderRecorder
    from posttrain.training.trainer import HybridTrainer
    from posttrain.training.warmup import warm_up

    clock.resume()  # imports are not training
    recipe, recorder = work.recipe, FolderRecorder(folder)
    warmed = (
        None
        if settings.get("start")
        else warm_up(
            work.model,
            work.tokenizer,
            work.demonstrations,
            SFTConfig(folder, **{**work.common, **recipe.warmup.trl_kwargs()}),
            norm_window=recipe.warmup.window(),
            recorder=recorder,
            callbacks=[watching(clock, "warmup", work.model)],
        )
    )
    if warmed:
        clock.look(work.model, "warmup", warmed.steps, always=True)
    model, section = handed_on(work.model, clock, folder), recipe.hybrid
    own = {"demonstration_batch_size": section.demonstration_batch_size, "kl_sample": section.kl.sample}
    trainer = HybridTrainer(
        model,
        work.reward_funcs,
        HybridConfig(folder, **{**work.common, **section.trl_kwargs(), "save_strategy": "no", **own}),
        work.prompts(),
        processing_class=work.tokenizer,
        demonstrations=work.demonstrations if section.controller.shares()[0] else None,
        controller=section.controller,
        g_warmup=warmed.g_warmup if warmed else None,
        recorder=recorder,
        callbacks=[watching(clock, "hybrid", model)],
    )
    if trainer.sft is not None and warmed:
        trainer.sft.stream.cursor = warmed.demonstration_cursor
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    clock.look(model, "hybrid", trainer.state.global_step, always=True)


def one(args: argparse.Namespace) -> None:
    """One run of one side; writes its curve."""
    from transformers import set_seed

    settings = json.loads(args.settings)
    work = Work(args.seed, args.set)
    spent: Sequence[float] = ()
    if settings.get("start"):
        from posttrain.models.load import load_policy

        work.model = load_policy(settings["start"])
        spent = json.loads(Path(settings["start"], "spent.json").read_text())
    set_seed(args.seed)
    clock = Clock(
        work.examine, every=EVERY | json.loads(args.every), limit_s=args.limit_s, stop_at=args.stop_at, spent=spent
    )
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(Reached):
            (trl_side if args.side == "trl" else our_side)(work, clock, settings, folder)
        steps_file = Path(folder, "steps.jsonl")
        lines = [json.loads(line) for line in steps_file.read_text().splitlines()] if steps_file.exists() else []
    mixed = [line for line in lines if line["stage"] == "hybrid"]
    record = {
        "side": args.side, "seed": args.seed, "settings": settings, "set": args.set, "curve": clock.curve,
        "sft_steps": sum(line["mix"]["sft"] > 0 for line in mixed),
        "grpo_steps": sum(line["mix"]["grpo"] > 0 for line in mixed),
        "positions": _mean(line.get("positions") for line in mixed),
    }  # fmt: skip
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(record, indent=1))


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each seed and one of the medians; runs what is not there yet.

    Args:
        args: `seeds`, `out` (where the curves are), `target`, `limit_s`; what is absent has its default.
    """
    args = argparse.Namespace(**{**vars(parser().parse_args([])), **vars(args)})
    return rows_of(args.out, args.seeds, args.target, lambda side, seed: _run(side, seed, args))


def _run(side: str, seed: int, args: argparse.Namespace) -> None:
    """One run in a process of its own, if its file is not there."""
    file = curve_file(args.out, side, seed)
    if file.exists():
        return
    settings = json.dumps(TRL if side == "trl" else {})
    command = [
        sys.executable, __file__, "one", "--side", side, "--seed", str(seed), "--json", str(file),
        "--limit-s", str(args.limit_s), "--stop-at", str(args.stop_at), "--settings", settings,
    ]  # fmt: skip
    one_thread = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    subprocess.run(command, check=True, env={**os.environ, **one_thread}, stdout=sys.stderr)


def curve_file(out: Path, side: str, seed: int) -> Path:
    """Where a run's curve is."""
    return out / f"{side}-seed{seed}.json"


def reached(curve: Sequence[dict[str, Any]], target: float) -> dict[str, Any] | None:
    """The first evaluation at or above the target."""
    return next((point for point in curve if point["accuracy"] >= target), None)


def rows_of(out: Path, seeds: Sequence[int], target: float, run: Any = None) -> list[dict[str, Any]]:
    """The rows of the curves in `out`; a side that did not get there has no time, and the ratio is a lower bound."""
    table = []
    for seed in seeds:
        points, ends, runs = {}, {}, {}
        for side in ("trl", "ours"):
            if run is not None:
                run(side, seed)
            runs[side] = json.loads(curve_file(out, side, seed).read_text())
            points[side] = reached(runs[side]["curve"], target)
            ends[side] = runs[side]["curve"][-1]
        trl, ours = points["trl"], points["ours"]
        row: dict[str, Any] = {
            "name": "target",
            "seed": seed,
            "load": f"seed {seed}, {target:.0%}",
            "target": target,
            "trl_s": trl and trl["cpu_s"],
            "ours_s": ours and ours["cpu_s"],
            "ratio": (trl or ends["trl"])["cpu_s"] / ours["cpu_s"] if ours else None,
            "ratio_is_lower_bound": trl is None,
            "gradient_rel_l2": None,
            "settings": {"trl": runs["trl"]["settings"], "ours": RECIPE.name},
        }
        for side, point in points.items():
            at = point or ends[side]
            row[f"{side}_wall_s"], row[f"{side}_at"] = at["wall_s"], f"{at['stage']} {at['step']}"
            row[f"{side}_best"] = max(each["accuracy"] for each in runs[side]["curve"])
        table.append(row)
    return [*table, medians(table, target)]


def medians(table: Sequence[dict[str, Any]], target: float) -> dict[str, Any]:
    """The row of the medians over seeds; a time is null where half of the seeds have none."""

    def median(name: str) -> float | None:
        middle = statistics.median(float("inf") if row[name] is None else row[name] for row in table)
        return None if middle == float("inf") else middle

    ratios = [0.0 if row["ratio"] is None else row["ratio"] for row in table]
    return {
        "name": "target",
        "seed": "median",
        "load": f"median, {target:.0%}",
        "target": target,
        "trl_s": median("trl_s"),
        "ours_s": median("ours_s"),
        "ratio": statistics.median(ratios),
        "ratio_is_lower_bound": any(row["ratio_is_lower_bound"] for row in table),
        "gradient_rel_l2": None,
        "settings": table[0]["settings"],
    }


def markdown(table: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| seed | TRL, CPU s (at) | posttrain, CPU s (at) | TRL over ours | best of TRL, of ours |",
        "|---|---|---|---|---|",
    ]
    for row in table:
        times = [_cell(row, side) for side in ("trl", "ours")]
        ratio = "-" if row["ratio"] is None else f"{'at least ' * row['ratio_is_lower_bound']}{row['ratio']:.2f}"
        best = f"{row['trl_best']:.1%}, {row['ours_best']:.1%}" if "trl_best" in row else ""
        lines.append(f"| {row['seed']} | {times[0]} | {times[1]} | {ratio} | {best} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any], side: str) -> str:
    seconds, at = row[f"{side}_s"], row.get(f"{side}_at")
    return f"{'not reached' if seconds is None else format(seconds, '.1f')}{f' ({at})' if at else ''}"


def parser() -> argparse.ArgumentParser:
    """The command line; without a command the whole comparison runs."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    made.add_argument("--target", type=float, default=TARGET)
    made.add_argument("--limit-s", type=float, default=LIMIT_S, help="CPU seconds of training, at most, per run")
    made.add_argument("--stop-at", type=float, default=STOP_AT, help="accuracy at which a run may end")
    made.add_argument("--out", type=Path, default=Path("runs/target"), help="where the curves are, or go")
    made.add_argument("--json", type=Path)
    commands = made.add_subparsers(dest="command")
    single = commands.add_parser("one", help="one run of one side")
    single.add_argument("--side", choices=["trl", "ours"], required=True)
    single.add_argument("--seed", type=int, default=0)
    single.add_argument("--settings", default="{}", help="JSON: sft and grpo of TRL, over the defaults here")
    single.add_argument("--set", nargs="*", default=[], help="overrides of the recipe")
    single.add_argument("--json", type=Path, required=True)
    single.add_argument("--every", default="{}", help="JSON: steps of a stage between evaluations")
    single.add_argument("--limit-s", type=float, default=LIMIT_S)
    single.add_argument("--stop-at", type=float, default=STOP_AT)
    return made


def main() -> None:
    args = parser().parse_args()
    if args.command == "one":
        one(args)
        return
    table = rows(args)
    print(markdown(table))
    if args.json:
        args.json.write_text(json.dumps({"rows": table, "machine": machine()}, indent=1))


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    from importlib.metadata import version

    return {"cpus": os.cpu_count(), "threads": 1, **{name: version(name) for name in ("torch", "transformers", "trl")}}


if __name__ == "__main__":
    main()
