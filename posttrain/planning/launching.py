"""The commands that carry a plan out."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from posttrain.launch.launch import ACCELERATE, arguments, config_file, environment, kind_of, shown
from posttrain.launch.nodes import Nodes
from posttrain.planning.machine import Machine
from posttrain.recipe.adapter_serving import adapter_of, rank_in, why_sent_whole
from posttrain.recipe.recipe import Recipe


@dataclass(frozen=True)
class Launch:
    """What to type.

    Attributes:
        command: Starts the run, or goes on with it.
        accelerate: What `posttrain launch` runs, with its variables; empty for one process.
        server: Starts the vLLM server that the recipe samples with; empty without one.
    """

    command: str
    accelerate: str = ""
    server: str = ""


def _room(recipe: Recipe, machine: Machine) -> list[str]:
    """For the recipe's adapter on a server, where it is to travel alone."""
    config, way = adapter_of(recipe), recipe.rollout.lora
    if config is None or why_sent_whole(config) or way == "merged" or (way == "auto" and machine.device == "cpu"):
        return []
    return ["--lora-rank", str(rank_in(config))]


def launch_of(recipe: Recipe, path: str, overrides: Sequence[str], machine: Machine) -> Launch:
    """The commands for a recipe on a machine.

    Args:
        recipe: The recipe.
        path: Its file, as it was typed.
        overrides: The keys of the command line.
        machine: Where it is to run, and whether a launcher was asked for, even if for one process.
    """
    run = [path, *overrides]
    server = ""
    if recipe.rollout.mode == "server":
        address = urlsplit(str(recipe.rollout.server_base_url))
        named = [recipe.model.name or "MODEL_FOLDER", "--port", str(address.port or 8000)]
        server = shlex.join(["posttrain", "serve", *named, *_room(recipe, machine)])
    if not machine.launched:
        return Launch(shlex.join(["posttrain", "run", *run]), server=server)
    cpu = machine.device == "cpu"
    flags = ["--cpu", "--processes", str(machine.per_node)] if cpu else ["--gpus", str(machine.per_node)]
    config = [] if machine.config in ("single", "ddp") else ["--config", machine.config]
    command = shlex.join(["posttrain", "launch", *run, *flags, *config])
    file = config_file(machine.config)
    kind = kind_of(file)
    if kind == "NO":
        return Launch(command, server=server)
    given = arguments(file, kind, machine.per_node, Nodes(), ["run", *run], cpu=cpu)
    accelerate = ["python", *ACCELERATE[1:], *given]  # of the environment that this is typed in
    return Launch(command, shown(environment(machine.per_node, os.environ, cpu=cpu), accelerate), server)
