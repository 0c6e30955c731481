"""`posttrain eval`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain.errors import ConfigError


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser = commands.add_parser("eval", help="evaluate a model on a task's held-out rows", allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help="a local folder, a hub id or a .gguf file")
    parser.add_argument("overrides", metavar="task.KEY=VALUE", nargs="*", help="settings of the task")
    parser.add_argument("--task", required=True, help="such as knights_knaves")
    parser.add_argument("--k", nargs="+", default=["1"], help="the k of pass@k (default: 1, greedy)")
    parser.add_argument("--samples", type=int, help="completions sampled per row (default: the largest k)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the samples (default: %(default)s)")
    parser.add_argument("--max-completion-length", type=int, default=512, help="tokens (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="completions at a time (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seed", type=int, default=0, help="of the task's rows and the samples")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    parser.add_argument("--out", metavar="FILE", help="write the result as JSON")
    parser.set_defaults(command=_eval)
    return parser


def _eval(args: argparse.Namespace) -> None:
    from posttrain.recipe.recipe import load_task

    overrides = [*args.overrides, *(text for text in args.k if "=" in text)]
    ks = _ks([text for text in args.k if "=" not in text])
    samples = args.samples or max(ks)
    if samples < max(ks):
        seen, fix = f"pass@{max(ks)} from {samples} samples", f"give --samples {max(ks)} or more"
        raise ConfigError(seen, where="--samples", fix=fix)
    for name in ("samples", "max_completion_length", "batch_size", "temperature"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise ConfigError(str(value), expected="a number above 0", where="--" + name.replace("_", "-"))
    task = load_task(args.task, overrides)

    from posttrain.evaluation.evaluate_model import evaluate_model
    from posttrain.storage.files import write_json

    record = evaluate_model(
        args.model,
        task,
        k=ks,
        samples=samples,
        temperature=args.temperature,
        max_completion_length=args.max_completion_length,
        batch_size=args.batch_size,
        seed=args.seed,
        device=args.device,
        trust_remote_code=args.trust_remote_code,
    )
    print("\n".join(_evaluation_lines(record)))
    if args.out:
        write_json(Path(args.out), record)
        print(f"wrote {args.out}")


def _ks(texts: Sequence[str]) -> list[int]:
    parts = [part for text in texts for part in text.split(",") if part]
    if not parts or not all(part.isdigit() and int(part) for part in parts):
        raise ConfigError(" ".join(texts) or "none", expected="whole numbers above 0, such as 1 8", where="--k")
    return [int(part) for part in parts]


def _evaluation_lines(record: dict[str, Any]) -> list[str]:
    """An evaluation record in words, one line for each number asked for and each slice."""
    low, high = record["ci95"]
    lines = [f"pass@1 {record['pass@1']:.3f}  95% [{low:.3f}, {high:.3f}]  on {record['n']} problems, greedy"]
    lines += [f"pass@{k} {value:.3f}  sampled" for k, value in (record.get("pass@k") or {}).items()]
    for column, slices in (record.get("by") or {}).items():
        lines += [f"  {column} {name}: {part['pass@1']:.3f} of {part['n']}" for name, part in slices.items()]
    return lines
