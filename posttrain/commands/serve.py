"""`posttrain serve`."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import Any


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "serve",
        help="start a vLLM server for rollout.mode: server",
        description="Start a vLLM server that takes its weights from a run. All other arguments are vLLM's.",
        epilog="On a node with 8 GPUs: CUDA_VISIBLE_DEVICES=6,7 posttrain serve MODEL --weights-transfer nccl "
        "--tensor-parallel-size 2, and beside it CUDA_VISIBLE_DEVICES=0,1,2,3,4,5 posttrain launch RECIPE --gpus 6 "
        "rollout.mode=server rollout.server_base_url=http://localhost:8000. A server on another node needs "
        "--host 0.0.0.0, in a network that you trust.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a hub id, or a folder with config.json; its weights are not read"
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s, since whoever reaches it can use it")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    parser.add_argument(
        "--weights-transfer",
        choices=("files", "nccl"),
        default="files",
        help="how the run's weights come: through files, or from its GPU over NCCL (default: %(default)s)",
    )
    parser.set_defaults(command=_serve)
    return parser


def _serve(args: argparse.Namespace) -> None:
    from posttrain.rollouts.vllm_server import SERVER_ENVIRONMENT, serve_command

    command = serve_command(
        args.model, port=args.port, transfer=args.weights_transfer, more=["--host", args.host, *args.more]
    )
    print(" ".join(f"{name}={value}" for name, value in SERVER_ENVIRONMENT.items()), shlex.join(command), flush=True)
    os.execvpe(command[0], command, {**os.environ, **SERVER_ENVIRONMENT})
