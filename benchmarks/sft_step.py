"""A step of SFT: `SFTTrainer`, which pads a batch to its longest row, against the warm-up's packed batches.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false \
        python benchmarks/sft_step.py --models tiny small

Knights & Knaves demonstrations, half of them with a chain of thought, batches of 32, the same rows in the same order;
both sides run `--steps` steps from the same weights in turn, `--repeats` times. A time is the median over all steps but
the first of each run. What both logged is compared, too: the loss, the norm of the gradient and the tokens seen.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_models import SIZES, make

LOGGED = ("loss", "grad_norm", "num_tokens")


def steps_of(side: str, model_name: str, rows: list[dict[str, Any]], steps: int) -> tuple[list[float], list[Any]]:
    """CPU seconds of each step but the first, and what the side logged."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from posttrain.inputs.data import tokenize_demonstrations
    from posttrain.training.warmup import WarmupTrainer
    from posttrain.watching.quiet import quiet_libraries

    class Clock(TrainerCallback):
        """Notes when steps end."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, args, state, control, **kwargs):
            self.ends.append(time.process_time())

    quiet_libraries()
    model, tokenizer = make(model_name, [row["prompt"] + row["completion"] for row in rows])
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        args = SFTConfig(
            folder, max_steps=steps, per_device_train_batch_size=32, learning_rate=1e-3, logging_steps=1, bf16=False,
            use_cpu=True, gradient_checkpointing=False, train_sampling_strategy="sequential", report_to=[],
            disable_tqdm=True, save_strategy="no", seed=0,
        )  # fmt: skip
        trainer = (SFTTrainer if side == "trl" else WarmupTrainer)(
            model,
            args,
            train_dataset=tokenize_demonstrations(Dataset.from_list(rows), tokenizer),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    logs = [[log[key] for key in LOGGED] for log in trainer.state.log_history if "grad_norm" in log]
    return [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)], logs


def compare(model: str, *, steps: int, repeats: int) -> dict[str, Any]:
    """Medians of both sides on one model, their ratio, and the largest relative difference of what they logged."""
    from posttrain.tasks.knights_knaves import generate_rows

    rows = generate_rows("2", 32 * steps, prompt="short", cot="copy", think_share=0.5)
    rows = [{key: row[key] for key in ("prompt", "completion")} for row in rows]
    seconds: dict[str, list[float]] = {"trl": [], "ours": []}
    logs: dict[str, list[Any]] = {}
    for repeat in range(repeats):
        for side in ("trl", "ours") if repeat % 2 else ("ours", "trl"):
            times, logs[side] = steps_of(side, model, rows, steps)
            seconds[side] += times
    apart = max(
        abs(mine - theirs) / abs(theirs)
        for ours, trl in zip(logs["ours"], logs["trl"], strict=True)
        for mine, theirs in zip(ours, trl, strict=True)
    )
    trl, ours = (statistics.median(seconds[side]) for side in ("trl", "ours"))
    return {"model": model, "trl_s": trl, "ours_s": ours, "ratio": trl / ours, "logged_apart": apart}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["tiny"])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print("| model | SFTTrainer, CPU s | warm-up, CPU s | ratio | loss, norm and tokens apart by at most |")
    print("|---|---|---|---|---|")
    table = []
    for model in args.models:
        row = compare(model, steps=args.steps, repeats=args.repeats)
        table.append(row)
        print(
            f"| {model} | {row['trl_s']:.3f} | {row['ours_s']:.3f} | {row['ratio']:.2f} | {row['logged_apart']:.0e} |"
        )
    if args.json:
        args.json.write_text(json.dumps({"rows": table}, indent=1))


if __name__ == "__main__":
    main()
