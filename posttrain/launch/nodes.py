"""Which machines a launch is for: those that were asked for, or those that Slurm gave. Loads no torch."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from posttrain.errors import ConfigError

PORT = 29500
"""Where the processes of several nodes meet, on the first of them; 0 on one node is any free one."""


@dataclass(frozen=True)
class Nodes:
    """The machines of a run.

    Attributes:
        count: All of them.
        rank: This one's number, from 0.
        address: Of node 0, as the others reach it.
        port: On node 0.
    """

    count: int = 1
    rank: int = 0
    address: str | None = None
    port: int = 0


def nodes_of(args: Any, environ: Mapping[str, str], host_names: Callable[[str], list[str]]) -> Nodes:
    """The machines that were asked for, or those that Slurm gave.

    Args:
        args: With `nodes`, `node_rank`, `main_address` and `main_port`, each None where it was not given.
        environ: Environment variables.
        host_names: The names of a Slurm node list; empty where they cannot be told.

    Raises:
        ConfigError: Something is missing, or Slurm started this on one node of several only.
    """
    count = 1 if args.nodes is None else args.nodes
    nodes = Nodes(count, args.node_rank or 0, args.main_address, args.main_port or 0)
    slurm = int(environ.get("SLURM_STEP_NUM_NODES") or environ.get("SLURM_NNODES") or 1)
    if args.nodes is None and slurm > 1:
        if "SLURM_STEP_ID" not in environ:
            raise ConfigError(
                f"Slurm gave {slurm} nodes, and this runs on one of them", where="SLURM_NNODES",
                fix="start it on each: srun --ntasks-per-node=1 posttrain launch ..., or give --nodes 1",
            )  # fmt: skip
        tasks = int(environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS") or slurm)
        if tasks != slurm:
            raise ConfigError(
                f"{tasks} tasks on {slurm} nodes", expected="one task a node: it starts the node's processes",
                where="SLURM_STEP_NUM_TASKS", fix="srun --ntasks-per-node=1 posttrain launch ...",
            )  # fmt: skip
        names = host_names(environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST") or "")
        job = environ.get("SLURM_JOB_ID", "")
        # Jobs that share a node should not meet at the same port
        port = args.main_port or (20000 + int(job) % 10000 if job.isdigit() else PORT)
        rank = int(environ.get("SLURM_NODEID", "0")) if args.node_rank is None else args.node_rank
        nodes = Nodes(slurm, rank, args.main_address or (names[0] if names else None), port)
    if nodes.count < 1 or not 0 <= nodes.rank < nodes.count:
        raise ConfigError(
            f"node {nodes.rank} of {nodes.count}", expected=f"0 to {max(nodes.count, 1) - 1}", where="--node-rank"
        )
    if nodes.count == 1:
        return nodes
    if nodes.address is None:
        fix = "give the name or address of node 0, as the other nodes reach it"
        raise ConfigError(f"{nodes.count} nodes, and no place to meet at", where="--main-address", fix=fix)
    return replace(nodes, port=nodes.port or PORT)


def slurm_host_names(node_list: str) -> list[str]:
    """The names that a Slurm node list such as `gpu[01-04]` stands for; empty where Slurm is not at hand."""
    if not node_list or shutil.which("scontrol") is None:
        return []
    command = ["scontrol", "show", "hostnames", node_list]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()
