"""What measuring the KL costs in memory: peak of the same few GRPO steps without it, with ours, and with TRL's `beta`.

    OMP_NUM_THREADS=1 python benchmarks/kl_memory.py

Each arm is a process of its own that trains the same model from the same start for `--steps` steps. On a GPU the peak
is what torch allocated (`torch.cuda.max_memory_allocated`). On a CPU it is the largest resident set of the process,
with the libraries in it, so only differences between arms mean something; of several `--repeats` the smallest counts.
`kl_offload` shows on a GPU only: on a CPU the copy lies in the same memory either way.
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
    "full, no KL": {"kl_sample": 0.0},
    "full, kl.sample 0.25": {"kl_sample": 0.25},
    "full, kl.sample 1.0": {"kl_sample": 1.0},
    "full, kl.sample 1.0, kl.offload": {"kl_sample": 1.0, "kl_offload": True},
    "full, beta 0.04 (TRL)": {"kl_sample": 0.0, "beta": 0.04},
    "LoRA, no KL": {"kl_sample": 0.0},
    "LoRA, kl.sample 1.0": {"kl_sample": 1.0},
    "LoRA, beta 0.04 (TRL)": {"kl_sample": 0.0, "beta": 0.04},
}


def save_model(name: str, folder: Path) -> int:
    """Write a model that a recipe can name, or one from scratch (`SIZE x LAYERS`), as a folder; its parameters."""
    from posttrain.models.gguf_files import gguf_file
    from posttrain.models.load import build_model, load_policy, load_tokenizer, train_tokenizer

    if "x" in name and name.replace("x", "").isdigit():
        size, layers = map(int, name.split("x"))
        tokenizer: Any = train_tokenizer([prompt["prompt"] for prompt in prompts()], vocab_size=300)
        model: Any = build_model(tokenizer, hidden_size=size, layers=layers, heads=size // 64)
    else:
        source = gguf_file(name) or name
        tokenizer, model = load_tokenizer(source), load_policy(source)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def prompts() -> list[dict[str, str]]:
    """Short texts to go on from."""
    return [{"prompt": f"What is {a} plus {b}? The answer is"} for a in range(8) for b in range(8)]


def train(arm: str, folder: Path, steps: int, rows: int, length: int) -> dict[str, Any]:
    """Train one arm in this process; its peak in bytes, and what the trainer holds."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model

    from posttrain.controllers import GRPOOnly
    from posttrain.models.load import load_policy, load_tokenizer
    from posttrain.training.config import HybridConfig
    from posttrain.training.trainer import HybridTrainer
    from posttrain.watching.quiet import quiet_libraries

    quiet_libraries()
    on_gpu = torch.cuda.is_available()
    policy = load_policy(folder)
    if arm.startswith("LoRA"):
        policy = get_peft_model(policy, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    with tempfile.TemporaryDirectory() as output:
        args = HybridConfig(
            output_dir=output,
            max_steps=steps,
            per_device_train_batch_size=rows,
            num_generations=2,
            max_completion_length=length,
            learning_rate=1e-6,
            bf16=on_gpu,
            use_cpu=not on_gpu,
            gradient_checkpointing=False,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            completions_every=0,
            **ARMS[arm],
        )
        trainer = HybridTrainer(
            policy,
            spread,
            args,
            Dataset.from_list(prompts()),
            processing_class=load_tokenizer(folder),
            controller=GRPOOnly(),
        )
        trainer.train()
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    kl = trainer.last_record["kl"]
    return {"peak": peak, "second_model": trainer.ref_model is not None, "kl": kl, "device": "GPU" if on_gpu else "CPU"}


def spread(completions: list[str], **columns: Any) -> list[float]:
    """A reward that differs between completions."""
    return [len(set(text)) / 100 for text in completions]


def measured(arm: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The arm in processes of their own; the one with the smallest peak."""
    sizes = [str(number) for number in (options.steps, options.rows, options.length)]
    command = [sys.executable, __file__, "--arm", arm, "--folder", str(folder)]
    for flag, size in zip(("--steps", "--rows", "--length"), sizes, strict=True):
        command += [flag, size]
    found = []
    for _ in range(options.repeats):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{arm}: {done.stderr[-3000:]}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return min(found, key=lambda one: one["peak"])


def table(results: dict[str, dict[str, Any]], parameters: int) -> str:
    """Peaks as Markdown: over the arm without KL of the same kind, in copies of the weights, and against TRL's."""
    lines = [
        "| arm | peak, MiB | over no KL, MiB | copies of the weights | of TRL's | second model |",
        "|---|---|---|---|---|---|",
    ]
    for arm, result in results.items():
        kind = arm.partition(",")[0]
        base, trl = (results.get(f"{kind}, {name}") for name in ("no KL", "beta 0.04 (TRL)"))
        over = result["peak"] - base["peak"] if base else 0
        theirs = trl["peak"] - base["peak"] if base and trl else 0
        share = f"{over / theirs:.0%}" if theirs > 0 and over else ""
        lines.append(
            f"| {arm} | {result['peak'] / MIB:,.0f} | {over / MIB:,.0f} | {over / (4 * parameters):.2f} | {share} "
            f"| {'yes' if result['second_model'] else 'no'} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the arms and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="smollm2-135m-instruct", help="as a recipe names it, or WIDTHxLAYERS for one from scratch"
    )
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rows", type=int, default=4, help="completions of a step")
    parser.add_argument("--length", type=int, default=16, help="tokens of a completion")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    parser.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(train(options.arm, options.folder, options.steps, options.rows, options.length)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        parameters = save_model(options.model, Path(temporary))
        print(f"{options.model}: {parameters:,} parameters, {4 * parameters / MIB:,.0f} MiB in float32", flush=True)
        results = {}
        for arm in options.only:
            results[arm] = measured(arm, Path(temporary), options)
            print(f"{arm}: {results[arm]['peak'] / MIB:,.0f} MiB, KL {results[arm]['kl']}", file=sys.stderr, flush=True)
    print(table(results, parameters))


if __name__ == "__main__":
    main()
