"""What refilling dead groups gains: useful tokens a second, with and without it, at the same number of useful groups.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/refill.py

Of the prompts a share is dead: each completion of theirs gets the same reward, whatever it says; those of the others
differ. Useful tokens are those of completions in groups with a spread. The arms take turns, each training until it has
had as many useful groups; seconds are CPU seconds of their steps. The text and the model are made here.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from bench_models import SIZES, make
from datasets import Dataset
from transformers import PrinterCallback, set_seed

from posttrain.controllers import GRPOOnly
from posttrain.storage.files import read_lines
from posttrain.training.config import HybridConfig
from posttrain.training.trainer import HybridTrainer
from posttrain.watching.quiet import quiet_libraries

ARMS: dict[str, dict[str, Any]] = {
    "refill": {"refill": {"max_batches": 4}},
    "refill, nothing ahead": {"refill": {"max_batches": 4, "ahead": False}},
    "none": {},
    "none, dead rows trained": {"drop_zero_advantage": False},
}
WARM = 2
"""Steps that are not counted: the first window has no share of dead groups to go by."""


def main() -> None:
    """Train each arm in turn, print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="small", choices=SIZES)
    parser.add_argument("--prompts", type=int, default=8, help="of a step (default: %(default)s)")
    parser.add_argument("--group", type=int, default=8, help="completions of a prompt (default: %(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64, help="of a completion (default: %(default)s)")
    parser.add_argument("--dead", type=float, default=0.4, help="share of the prompts (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="of a step without dead groups (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    args = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in args.arms}
    for number in range(args.rounds):
        for name in args.arms if number % 2 == 0 else reversed(args.arms):
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(measured(train(Path(folder), name, args), args))
                print(f"round {number}, {name}: {found[name][-1]}", flush=True)
    report(found)


def rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Prompts of words, of which a share is dead."""
    random = torch.Generator().manual_seed(0)
    words = torch.randint(0, 300, (400, args.prompt_tokens), generator=random).tolist()
    dead = torch.rand(400, generator=random).argsort() < args.dead * 400
    return [
        {"prompt": " ".join(f"w{word}" for word in some), "dead": bool(none)}
        for some, none in zip(words, dead, strict=True)
    ]


def reward(completion_ids, dead, **columns):
    """Another one for each completion, but for dead prompts."""
    return [0.0 if none else sum(ids) / len(ids) / 4096 for ids, none in zip(completion_ids, dead, strict=True)]


def train(folder: Path, arm: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The lines of steps.jsonl."""
    set_seed(0)
    model, tokenizer = make(args.model)
    per_step = 1.0 if ARMS[arm].get("refill") else 1.0 - args.dead
    config = HybridConfig(
        output_dir=str(folder), max_steps=WARM + round(args.steps / per_step), learning_rate=1e-6,
        per_device_train_batch_size=args.prompts * args.group, num_generations=args.group,
        max_completion_length=args.tokens, kl_sample=0.0, completions_every=0, compare_ranks_every=0, bf16=False,
        use_cpu=True, gradient_checkpointing=False, report_to=[], disable_tqdm=True, save_strategy="no", **ARMS[arm],
    )  # fmt: skip
    trainer = HybridTrainer(
        model, reward, config, Dataset.from_list(rows(args)), processing_class=tokenizer, controller=GRPOOnly()
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return read_lines(folder / "steps.jsonl")


def measured(lines: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, float]:
    """Sums over the steps that count."""
    counted, spent = lines[WARM:], lines[-1]["spent"]["seconds"] - lines[WARM - 1]["spent"]["seconds"]
    groups = [args.prompts * (1.0 - line["zero_std_share"]) for line in counted]
    tokens = sum(each * args.group * line["completion_length"] for each, line in zip(groups, counted, strict=True))
    clock = {name: sum(line["seconds"].get(name, 0.0) for line in counted) for name in ("generate", "grpo", "total")}
    sampled = lines[-1]["spent"]["sampled_tokens"] - lines[WARM - 1]["spent"]["sampled_tokens"]
    return {
        "groups": round(sum(groups), 1), "steps": len(counted), "seconds": round(spent, 3),
        "rate": round(tokens / spent, 1), "sampled": sampled, "generate": round(clock["generate"] / clock["total"], 3),
    }  # fmt: skip


def report(found: dict[str, list[dict[str, float]]]) -> None:
    """A table of medians, the ratios within rounds."""
    print("| arm | useful groups | steps | CPU seconds | useful tokens a second | of it refill is | sampling |")
    print("|---|---|---|---|---|---|---|")
    first = next(iter(found.values()))
    for name, rounds in found.items():
        middle = {key: median(each[key] for each in rounds) for key in rounds[0]}
        ratio = median(a["rate"] / b["rate"] for a, b in zip(first, rounds, strict=True))
        print(
            f"| {name} | {middle['groups']:g} | {middle['steps']:g} | {middle['seconds']:.2f} | {middle['rate']:.0f} | "
            f"{ratio:.2f} | {middle['generate']:.0%} |"
        )


if __name__ == "__main__":
    main()
