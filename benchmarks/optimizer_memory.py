"""What optimizers keep of a real model, in bytes, against what `posttrain plan` counts.

    OMP_NUM_THREADS=1 python benchmarks/optimizer_memory.py [--model smollm2-135m-instruct] [--optim adamw_torch ...]

Each arm is a process of its own: `--steps` steps of the warm-up, full fine-tuning in float32, then the bytes of all
tensors in the optimizer's state, and the largest resident set of the process (on a GPU, what torch allocated), with the
libraries in it, so that only differences between arms mean something.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MIB = 2**20
ARMS: dict[str, dict[str, Any]] = {
    "adamw_torch": {},
    "adamw_bnb_8bit": {},
    "frugal": {},
    "frugal, density 0": {"optim": "frugal", "optim_args": "density=0"},
    "schedule_free_adamw": {},
    "schedule_free_sgd": {},
    "adafactor": {},
    "lion_32bit": {},
    "lion_8bit": {},
    "ademamix": {},
    "rmsprop": {},
    "adagrad": {},
    "sgd": {},
}
"""What a stage's `args` say; an arm without `optim` is named after its optimizer."""


def args_of(arm: str) -> dict[str, Any]:
    """A stage's `args`."""
    return {"optim": arm} | ARMS[arm]


def planned(model: str, args: dict[str, Any]) -> float:
    """Bytes by `posttrain plan`."""
    from posttrain.planning.memory import optimizer_bytes
    from posttrain.planning.model_facts import config_of, describe_model
    from posttrain.recipe.recipe import Recipe

    stage = {"args": args, "lr_scheduler_type": "constant"}
    recipe = Recipe.model_validate({"model": model, "task": {"name": "knights_knaves"}, "warmup": stage})
    facts = describe_model(recipe, config_of(recipe, None), on_gpu=False)
    return optimizer_bytes(recipe.warmup.args, facts)


def train(arm: str, folder: Path, steps: int) -> dict[str, Any]:
    """Train one arm in this process."""
    import torch
    from datasets import Dataset

    from posttrain.models.load import load_policy, load_tokenizer
    from posttrain.training.warmup import WarmupConfig, WarmupTrainer
    from posttrain.watching.quiet import quiet_libraries

    quiet_libraries()
    on_gpu, tokenizer = torch.cuda.is_available(), load_tokenizer(folder)
    ids = [tokenizer(f"What is {a} plus {a}? The answer is {2 * a}.")["input_ids"] for a in range(2 * steps)]
    with tempfile.TemporaryDirectory() as output:
        args = WarmupConfig(
            output_dir=output, max_steps=steps, per_device_train_batch_size=2, learning_rate=1e-6, bf16=on_gpu,
            use_cpu=not on_gpu, gradient_checkpointing=False, lr_scheduler_type="constant", report_to=[],
            disable_tqdm=True, save_strategy="no", **args_of(arm),
        )  # fmt: skip
        rows = Dataset.from_list([{"input_ids": each, "labels": each} for each in ids])
        trainer = WarmupTrainer(load_policy(folder), args, train_dataset=rows, processing_class=tokenizer)
        trainer.train()
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"state": state_bytes(trainer.optimizer), "peak": peak}


def state_bytes(optimizer: Any) -> int:
    """Bytes of the tensors in an optimizer's state, each storage once; what the weights themselves take is no part."""
    import torch

    found: dict[int, int] = {}

    def look(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, dict):
            for each in value.values():
                look(each)
        elif isinstance(value, list | tuple):
            for each in value:
                look(each)

    look(dict(optimizer.state))
    weights = {p.untyped_storage().data_ptr() for group in optimizer.param_groups for p in group["params"]}
    return sum(size for place, size in found.items() if place not in weights)


def main() -> None:
    """Measure, or be one arm's process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="smollm2-135m-instruct", help="a recipe's model, or SIZExLAYERS from scratch"
    )
    parser.add_argument("--optim", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(train(options.arm, options.folder, options.steps)))
        return
    sys.path.insert(0, str(Path(__file__).parent))
    from kl_memory import save_model

    with tempfile.TemporaryDirectory() as folder:
        parameters = save_model(options.model, Path(folder))
        print(f"{parameters:,} parameters, {4 * parameters / MIB:,.0f} MiB\n")
        print("| optimizer | state, MiB | by plan, MiB | measured / plan | copies of the weights | peak, MiB |")
        print("|---|---|---|---|---|---|")
        for arm in options.optim:
            command = [sys.executable, __file__, "--arm", arm, "--folder", folder, "--steps", str(options.steps)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"| {arm} | failed: {(done.stderr.strip().splitlines() or ['?'])[-1][:200]} |", flush=True)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            plan = planned(folder, args_of(arm))
            ratio = f"{found['state'] / plan:.3f}" if plan else "-"
            print(
                f"| {arm} | {found['state'] / MIB:,.1f} | {plan / MIB:,.1f} | {ratio} | "
                f"{found['state'] / (4 * parameters):.3f} | {found['peak'] / MIB:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
