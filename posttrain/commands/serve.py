"""`posttrain serve`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from posttrain.errors import ConfigError
from posttrain.recipe.adapter_serving import LARGEST_RANK, adapter_config, fix_for, why_merged


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
    parser.add_argument(
        "--lora-rank",
        type=int,
        metavar="N",
        help="take a run's LoRA adapter of rank N or less alone, and its base once (rollout.lora)",
    )
    parser.set_defaults(command=_serve)
    return parser


def check_adapters(model: str, more: Sequence[str]) -> None:
    """Refuse adapters that vLLM would serve otherwise than they were trained, and one in the place of a model.

    Args:
        model: The MODEL of the command.
        more: What is handed on to vLLM.

    Raises:
        ConfigError: With how to serve it.
    """
    merge = "posttrain export RUN --to FOLDER --merge-lora"
    if adapter_config(model) is not None:
        raise ConfigError(
            f"{model} is an adapter", expected="a model with weights of its own", where="MODEL",
            fix=f"name its base model; or merge it: {merge}",
        )  # fmt: skip
    for folder in _named(more):
        config = adapter_config(folder)
        if config is not None and (reason := why_merged(config)):
            raise ConfigError(
                f"{folder} has {reason}", expected="an adapter that vLLM serves as it is", where="--lora-modules",
                fix=fix_for(config, merge),
            )  # fmt: skip


def _named(more: Sequence[str]) -> Iterator[str]:
    """The folders of `--lora-modules NAME=FOLDER ...` or of its JSON objects."""
    within = False
    for word in more:
        if word.startswith("--"):
            flag, _, word = word.partition("=")
            within = flag.replace("_", "-") == "--lora-modules"
        if not within or not word:
            continue
        if word.startswith("{"):
            with suppress(ValueError):
                yield str(json.loads(word).get("path", ""))
        else:
            yield word.partition("=")[2]


def _serve(args: argparse.Namespace) -> None:
    from posttrain.rollouts.vllm_command import ADAPTER_ENVIRONMENT, SERVER_ENVIRONMENT, serve_command

    check_adapters(args.model, args.more)
    if args.lora_rank is not None and not 1 <= args.lora_rank <= LARGEST_RANK:
        raise ConfigError(str(args.lora_rank), expected=f"1 to {LARGEST_RANK}", where="--lora-rank")
    command = serve_command(
        args.model,
        port=args.port,
        transfer=args.weights_transfer,
        lora_rank=args.lora_rank,
        more=["--host", args.host, *args.more],
    )
    environment = SERVER_ENVIRONMENT | (ADAPTER_ENVIRONMENT if args.lora_rank else {})
    print(" ".join(f"{name}={value}" for name, value in environment.items()), shlex.join(command), flush=True)
    os.execvpe(command[0], command, {**os.environ, **environment})
