"""Row `training`: the training part of a GRPO step on the same recorded rollouts, with the same gradient."""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rollout_loads import Load, Shape, make_load, with_logps

LOADS = ("realistic", "plain", "sampler", "checkpointing")
"""`realistic`: what the target is about. `plain`: nothing to gain from. `sampler`: `realistic` with log-probabilities
as from vLLM, for whose correction TRL makes a pass of its own. `checkpointing`: `realistic` with that on both sides."""


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per load of `args.loads`, and with `args.ablate` the first of them again without each means."""
    from two_sides import MEANS

    for number, load in enumerate(args.loads):
        yield measured(load, args, args.repeats if number == 0 else args.more_repeats)
    if args.ablate:
        means = [name for name in MEANS if name != "seeded"]
        for without in [*([name] for name in means), means]:
            yield measured(args.loads[0], args, args.more_repeats, without=without)


def measured(name: str, args: argparse.Namespace, repeats: int, *, without: list[str] | None = None) -> dict[str, Any]:
    """One row of the table.

    Args:
        name: One of `LOADS`.
        args: The command's.
        repeats: Steps of each side that count.
        without: Means that ours does without, beside those of `args`.
    """
    from two_sides import SIDES, paired

    off = [*args.without, *(without or [])]
    with tempfile.TemporaryDirectory() as folder:
        sides = {side: _side(side, name, args, off, Path(folder)) for side in SIDES}
        load = sides["trl"][1]
        steps = {side: it.training_part for side, (it, _) in sides.items()}
        # The first step of each, which is slower than the others and does not count
        gradients = {side: it.training_part(gradient=True).gradient for side, (it, _) in sides.items()}
        taken = paired(steps, repeats)
    row = {"name": "training", "load": name, "without": off, **compared(taken)}
    row["gradient_rel_l2"] = float((gradients["ours"] - gradients["trl"]).norm() / gradients["trl"].norm())
    if args.memory and not without:
        row |= {f"{side}_peak_mib": peak_mib(side, name, args, off) for side in SIDES}
    return row | settings_of(name, args) | load.facts() | {"repeats": repeats}


def compared(taken: dict[str, list[Any]]) -> dict[str, Any]:
    """Medians of both sides and their ratios, TRL over ours."""
    wall = {side: statistics.median(step.wall_s for step in steps) for side, steps in taken.items()}
    cpu = {side: statistics.median(step.cpu_s for step in steps) for side, steps in taken.items()}
    return {
        "trl_s": wall["trl"],
        "ours_s": wall["ours"],
        "ratio": wall["trl"] / wall["ours"],
        "trl_cpu_s": cpu["trl"],
        "ours_cpu_s": cpu["ours"],
        "cpu_ratio": cpu["trl"] / cpu["ours"],
        "trl_all_s": [round(step.wall_s, 4) for step in taken["trl"]],
        "ours_all_s": [round(step.wall_s, 4) for step in taken["ours"]],
    }


def settings_of(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """What both sides were given alike."""
    return {
        "model": args.model,
        "dtype": "float32",
        "attention": "sdpa",
        "loss_type": args.loss_type,
        "micro_batch": args.micro_batch,
        "gradient_checkpointing": name == "checkpointing",
    }


def peak_mib(side: str, name: str, args: argparse.Namespace, without: list[str]) -> float:
    """Peak memory of one side's step over what its process held with the model loaded, in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["posttrain.training.trainer"])  # imported once for all of them
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(_peak_here, side, name, args, without).result()


def _peak_here(side: str, name: str, args: argparse.Namespace, without: list[str]) -> float:
    import torch

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        it, _ = _side(side, name, args, without, Path(folder))
        before = resident_mib(forget_peak=True)
        it.training_part()
        return round(peak_resident_mib() - before, 1)


def resident_mib(*, forget_peak: bool = False) -> float:
    """Memory that this process holds now; Linux can begin to look for the peak anew."""
    if forget_peak:
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_resident_mib() -> float:
    """The most memory that this process has held since the start or `forget_peak`."""
    return _status("VmHWM")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) / 1024


def _side(side: str, name: str, args: argparse.Namespace, without: list[str], folder: Path) -> tuple[Any, Load]:
    from bench_models import make
    from two_sides import Side, replayed

    model, tokenizer = make(args.model)
    shape = Shape(
        prompts=args.completions // args.group, group=args.group,
        prompt_tokens=args.tokens, completion_tokens=args.tokens, sampler=name == "sampler",
    )  # fmt: skip
    load = make_load(shape.plain() if name == "plain" else shape, tokenizer, seed=args.seed)
    if shape.sampler:
        load = with_logps(load, copy.deepcopy(model), seed=args.seed)
    rollouts, reward = replayed(load)
    settings = {
        "per_device_train_batch_size": args.micro_batch,
        "gradient_accumulation_steps": args.completions // args.micro_batch,
        "num_generations": args.group,
        "max_completion_length": load.facts()["completion_max"],
        "loss_type": args.loss_type,
        "gradient_checkpointing": name == "checkpointing",
    }
    prompts = [{"prompt": text} for text in load.prompts]
    made = Side(
        side, model, tokenizer, prompts, reward, settings, folder,
        without=without, rollout_func=rollouts, sampler=shape.sampler,
    )  # fmt: skip
    return made, load
