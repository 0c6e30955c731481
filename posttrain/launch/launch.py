"""`posttrain launch`: the `accelerate launch` command of a recipe on this machine, and running it.

The launcher runs in this process, not in a child, so that a scheduler's signal reaches it. What it adds:

- What would fail on every process (the recipe, its batches on so many processes, the GPUs) is said once, before.
- Workers that are told to stop have `SHUTDOWN_S` to save, not torch's 30 seconds.
- `accelerate launch` ends with 1 whatever its workers end with, and so it does where all of them saved after a SIGTERM
  and ended with 0. Here each process leaves its exit code in a file, and the launcher ends with that of its workers.
- One process is not launched but run: accelerate keeps a signal to itself there, and its child runs on alone.
- `python -m` would take a Python file in the working folder for a library of that name; PYTHONSAFEPATH keeps it from.

Loads no torch before the recipe has been checked.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from posttrain.errors import ConfigError
from posttrain.launch.end import run_accelerate
from posttrain.launch.nodes import Nodes, nodes_of, slurm_host_names
from posttrain.nearest import did_you_mean
from posttrain.processes.launched import COMMAND, resuming
from posttrain.recipe.shipped import shipped_folder
from posttrain.rundir.layout import Layout
from posttrain.rundir.looking import check_directory

NAMES = ("single", "ddp", "fsdp2", "zero2", "zero3")
"""The configurations that ship, by the name of their file in recipes/accelerate/."""

ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch")
"""`accelerate launch` of this environment, which need not be the one on PATH."""

SHUTDOWN_S = 120
"""Seconds that workers have to save and end when they are told to; then they are killed."""


def config_file(name: str) -> Path:
    """The accelerate configuration of a name that ships, or the file itself.

    Raises:
        ConfigError: There is neither.
    """
    if name in NAMES:
        return shipped_folder() / "accelerate" / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    raise ConfigError(
        f"{name} is no file", expected=f"one of {', '.join(NAMES)}, or a file of accelerate's", where="--config",
        fix=did_you_mean(name, NAMES),
    )  # fmt: skip


def kind_of(file: Path) -> str:
    """What a configuration file spreads over processes by: NO, MULTI_GPU, FSDP, DEEPSPEED, ...

    Raises:
        ConfigError: It is none that accelerate reads.
    """
    kind = _data(file)["distributed_type"]
    return "NO" if kind is False else str(kind)  # `NO` without quotes is a boolean in YAML


def _data(file: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        data = YAML(typ="safe").load(file.read_text())
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(file)) from None
    if not isinstance(data, dict) or "distributed_type" not in data:
        fix = f"take one of {', '.join(NAMES)}, or write one with `accelerate config`"
        raise ConfigError("no accelerate configuration: distributed_type is missing", where=str(file), fix=fix)
    return data


def arguments(file: Path, kind: str, per_node: int, nodes: Nodes, run: Sequence[str], *, cpu: bool) -> list[str]:
    """What follows `ACCELERATE`.

    Args:
        file: accelerate's configuration.
        kind: Its `distributed_type`.
        per_node: Processes on each node.
        nodes: The machines.
        run: What follows `posttrain`.
        cpu: Whether the processes compute on CPUs, in float32.
    """
    given = ["--config_file", str(file), "--num_processes", str(per_node * nodes.count)]
    given += ["--num_machines", str(nodes.count)]
    if nodes.count > 1:
        given += ["--machine_rank", str(nodes.rank), "--main_process_ip", str(nodes.address)]
    given += ["--main_process_port", str(nodes.port)]
    if kind == "MULTI_GPU" and cpu:
        given += ["--mixed_precision", "no"]
    return [*given, "-m", "posttrain", *run]


def environment(per_node: int, environ: Mapping[str, str], *, cpu: bool) -> dict[str, str]:
    """Variables that the processes need and the user has not set."""
    added = {"PYTHONSAFEPATH": "1"}
    if per_node:
        added["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(SHUTDOWN_S)
    if cpu:
        # Not --cpu: with it accelerate starts one process, whatever --num_processes says
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        added["OMP_NUM_THREADS"] = str(max(1, cores // max(1, per_node)))
    kept = {name: value for name, value in added.items() if name not in environ}
    return kept | ({"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""} if cpu else {})


def shown(variables: Mapping[str, str], command: Sequence[str]) -> str:
    """A command with its variables, to be copied into a shell."""
    return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in variables.items()), shlex.join(command)])


def launch(args: Any) -> int:
    """Check, print and run what `posttrain launch` was given.

    Args:
        args: The arguments of the command.

    Returns:
        The exit code: the workers' own where they agree, see `exit_code`.

    Raises:
        ConfigError: What could not run.
    """
    from posttrain.inputs.four_bit import check_unsharded
    from posttrain.inputs.gathering import gather
    from posttrain.recipe.arithmetic import for_processes
    from posttrain.recipe.contradictions import check
    from posttrain.recipe.recipe import load_recipe
    from posttrain.recipe.zero import check_recipe
    from posttrain.rundir.facts import processes_of
    from posttrain.watching.opening import say
    from posttrain.watching.tracker_packages import check_installed

    recipe = load_recipe(args.recipe, args.overrides)
    nodes = nodes_of(args, os.environ, slurm_host_names)
    per_node = _processes(args)
    file = config_file(args.config or ("single" if per_node * nodes.count == 1 else "ddp"))
    kind = kind_of(file)
    _check_kind(kind, file, per_node * nodes.count, cpu=args.cpu)
    if kind == "DEEPSPEED" and find_spec("deepspeed") is None:
        fix = "pip install deepspeed, or --config fsdp2, which does the same without it"
        _refuse(
            ConfigError(f"{file.name} needs DeepSpeed, which is not installed", where="--config", fix=fix), args.dry_run
        )
    path = Path(recipe.run.dir or "runs/run")
    if nodes.rank == 0:  # on other nodes the first one's processes may be at work in it already
        check_directory(
            path, recipe, resume=args.resume, restart=args.restart, accept_changes=args.accept_changes,
            starting=not args.dry_run,
        )  # fmt: skip
    started_on = None if args.restart else processes_of(path)
    total = per_node * nodes.count
    check(for_processes(recipe, started_on or total, total), total)
    deepspeed = (_data(file).get("deepspeed_config") or {}) if kind == "DEEPSPEED" else {}
    if stage := deepspeed.get("zero_stage"):
        check_recipe(recipe, int(stage), offloads=deepspeed.get("offload_optimizer_device", "none") != "none")
    check_unsharded(recipe, {"DEEPSPEED": "DeepSpeed", "FSDP": "FSDP"}.get(kind))
    if not args.cpu and per_node > (visible := visible_gpus()):
        _refuse(_too_few_gpus(per_node, visible), args.dry_run)
    if nodes.rank == 0 and not args.dry_run:
        check_installed(recipe.run.report_to, where=recipe.where("run.report_to"))
        say("looking at rows and rewards")  # which each process loads for itself
        gather(recipe)
    if recipe.rollout.mode == "server" and not args.dry_run and not answers(str(recipe.rollout.server_base_url)):
        print(f"warning: {recipe.rollout.server_base_url} does not answer (yet?); start it with `posttrain serve`")

    flags = [f"--{name.replace('_', '-')}" for name in ("resume", "restart", "accept_changes", "traceback")
             if getattr(args, name)]  # fmt: skip
    flags += ["--warmup-from", args.warmup_from] if args.warmup_from else []
    run = ["run", args.recipe, *args.overrides, *flags]
    one = kind == "NO"
    added = environment(0 if one else per_node, os.environ, cpu=args.cpu)
    if one and not args.cpu and (first := first_gpu(os.environ)):
        added["CUDA_VISIBLE_DEVICES"] = first
    commands = [
        [sys.executable, "-m", "posttrain", *run]
        if one
        else [*ACCELERATE, *arguments(file, kind, per_node, replace(nodes, rank=rank), run, cpu=args.cpu)]
        for rank in range(nodes.count)
    ]
    if nodes.count > 1:
        print(f"# node {nodes.rank} of {nodes.count}, this one")
    print(shown(added, commands[nodes.rank]), flush=True)
    if "SLURM_STEP_ID" not in os.environ:
        for rank in range(nodes.count):
            if rank != nodes.rank:
                print(f"# on node {rank}\n{shown(added, commands[rank])}", flush=True)
    if args.dry_run:
        return 0
    os.environ.update(added, **{COMMAND: resuming(sys.argv[1:])})
    if one:
        os.execve(sys.executable, commands[0], os.environ)
    given = commands[nodes.rank][len(ACCELERATE) :]
    return run_accelerate(given, per_node, Layout(path).last_checkpoint, all_logs=args.traceback)


def _refuse(error: ConfigError, dry_run: bool) -> None:
    """Raise what this machine lacks; where nothing is to run here, which may be a login node, say it only."""
    if not dry_run:
        raise error
    print(f"warning: {error.where}: {error.seen}")


def _processes(args: Any) -> int:
    """Processes on this node."""
    for name, wrong in (("--processes", args.processes and not args.cpu), ("--gpus", args.gpus and args.cpu)):
        if wrong:
            fix = "--cpu --processes N runs on CPUs, --gpus N on GPUs"
            raise ConfigError(f"{name} {'without' if name == '--processes' else 'with'} --cpu", where=name, fix=fix)
    asked = args.processes if args.cpu else args.gpus
    count = asked if asked is not None else (1 if args.cpu else visible_gpus())
    if count < 1:
        where = "--processes" if args.cpu else "--gpus"
        seen = "no GPU is visible" if asked is None else str(asked)
        fix = "--gpus N says how many, --cpu --processes N runs on CPUs"
        raise ConfigError(seen, expected="at least 1", where=where, fix=fix)
    return count


def _check_kind(kind: str, file: Path, processes: int, *, cpu: bool) -> None:
    if kind == "NO" and processes > 1:
        fix = "--config ddp, or another for several processes"
        raise ConfigError(f"{processes} processes with {file.name}, which is for one", where="--config", fix=fix)
    if cpu and kind not in ("NO", "MULTI_GPU"):
        fix = "--config ddp: accelerate shards on GPUs only"
        raise ConfigError(f"--cpu with {file.name} ({kind})", where="--config", fix=fix)


def _too_few_gpus(asked: int, visible: int) -> ConfigError:
    return ConfigError(
        f"{asked} GPUs, but {visible} are visible here",
        expected=f"at most {visible}" if visible else "a GPU",
        where="--gpus",
        fix="ask for fewer, change CUDA_VISIBLE_DEVICES, or run on CPUs: --cpu --processes N",
    )


def visible_gpus() -> int:
    """GPUs that a process started here would see."""
    import torch

    return torch.cuda.device_count()


def first_gpu(environ: Mapping[str, str]) -> str | None:
    """The GPU for a run in one process where it would see several, all of which transformers would spread it over."""
    if visible_gpus() < 2:
        return None
    return environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def answers(url: str, time_limit_s: float = 3.0) -> bool:
    """Whether a server is there, whatever it says."""
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=time_limit_s).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True
