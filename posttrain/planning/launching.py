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
        server = shlex.join(
            ["posttrain", "serve", recipe.model.name or "MODEL_FOLDER", "--port", str(address.port or 8000)]
        )
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
