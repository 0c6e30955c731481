"""What a recipe is to run on: processes, devices, their memory, and how a launcher spreads the weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from posttrain.launch.launch import visible_gpus
from posttrain.planning.doctor.facts import driver, memory, reachable
from posttrain.recipe.recipe import Recipe

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a plan is made for.

    Attributes:
        device: What computes.
        processes: Data-parallel ones, over all nodes.
        per_node: Of them on one machine.
        config: `single`, `ddp`, `fsdp2`, `zero2`, `zero3`, or a file of accelerate's.
        gpus: Bytes of each visible GPU.
        unsized: GPUs that are visible to torch, but of a size that nvidia-smi does not tell.
        memory: Bytes of this machine's memory, within the limit of this process's control group.
        launched: Whether `posttrain launch` starts it, not `posttrain run`.
    """

    device: Literal["cpu", "cuda"]
    processes: int = 1
    per_node: int = 1
    config: str = "single"
    gpus: tuple[int, ...] = ()
    memory: int = 0
    launched: bool = False
    unsized: int = 0

    @property
    def visible(self) -> int:
        """GPUs that a process started here would see."""
        return len(self.gpus) + self.unsized

    @property
    def shares(self) -> dict[str, int]:
        """By how much the processes divide what each would otherwise have whole: weights, gradients, optimizer."""
        whole = dict.fromkeys(("weights", "gradients", "optimizer"), 1)
        if self.config in ("fsdp2", "zero3"):
            return dict.fromkeys(whole, self.processes)
        return {**whole, "gradients": self.processes, "optimizer": self.processes} if self.config == "zero2" else whole


def visible(gpus: list[int], environ: Mapping[str, str]) -> tuple[int, ...]:
    """Those of a machine's GPUs that CUDA_VISIBLE_DEVICES leaves; those given by name count as the smallest."""
    asked = environ.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return tuple(gpus)
    chosen: list[int] = []
    for part in filter(None, (each.strip() for each in asked.split(","))):
        if part.startswith(("GPU-", "MIG-")) and gpus:
            chosen.append(min(gpus))
        elif part.isdigit() and int(part) < len(gpus):
            chosen.append(gpus[int(part)])
        else:
            break  # CUDA sees none after the first that it does not know
    return tuple(chosen)


def this_machine(
    recipe: Recipe, *, processes: int, per_node: int, config: str, cpu: bool, launched: bool = False
) -> Machine:
    """What the plan is for; torch is asked where nvidia-smi shows no GPU for a recipe that would take one.

    Without a GPU here, a recipe that would take one is planned for one: it is not known how large. A run here would
    train on the CPU, or refuse to start where run.device is cuda; the plan says so.
    """
    found: dict[str, Any] = driver() or {}
    sizes = [gpu["total_mib"] * MIB for gpu in found.get("gpus", []) if gpu.get("total_mib")]
    on_cpu = cpu or recipe.run.device == "cpu"
    gpus = visible(sizes, os.environ)
    return Machine(
        device="cpu" if on_cpu else "cuda",
        processes=processes,
        per_node=per_node,
        config=config,
        gpus=gpus,
        unsized=0 if on_cpu or gpus else visible_gpus(),
        memory=memory()["total"],
        launched=launched,
    )


def hub_answers(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the hub can be asked; not where HF_HUB_OFFLINE says so."""
    if environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    return reachable(environ.get("HF_ENDPOINT") or "https://huggingface.co")
