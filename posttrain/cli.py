"""The commands: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

from posttrain.commands import ADDERS
from posttrain.commands.rewards.arguments import add_rewards
from posttrain.errors import ConfigError, DataError, Interrupted, PosttrainError

EXAMPLES = """examples:
  posttrain plan recipes/quickstart.yaml
  posttrain run recipes/quickstart.yaml --smoke
  posttrain run recipes/quickstart.yaml hybrid.steps=100 hybrid.controller.gamma=0.5
  posttrain launch recipes/gsm8k-qwen2.5-1.5b-8gpu.yaml --gpus 8
  posttrain explain runs/quickstart --step 100
  posttrain replay runs/quickstart controller.gamma=2
  posttrain view runs/quickstart --worst
  posttrain compare runs/quickstart runs/other
  posttrain export runs/quickstart --to exported
  posttrain eval runs/quickstart/model --task knights_knaves task.people=[2,3] --k 1 8 --samples 8
  posttrain data knights_knaves --people 2-4 --count 1000 --out puzzles.jsonl
  posttrain rewards check recipes/quickstart.yaml
  posttrain doctor
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0: done, or stopped by SIGTERM and saved. 1: the run failed. 2: the recipe, an argument or the data is wrong.
    130: stopped by Ctrl-C. Of several processes the main one says what all of them know.
    """
    logging.getLogger("vllm.triton_utils").setLevel(logging.ERROR)  # its CPU build warns in every process
    args = parse(argv)
    try:
        status: int | None = args.command(args)
    except Interrupted as stop:
        if _speaks(stop):
            print(stop, file=sys.stderr)
        _leave(stop)
        return 0 if stop.signal == signal.SIGTERM else 130
    except PosttrainError as error:
        if args.traceback:
            traceback.print_exc()
        elif _speaks(error):
            print(f"error{_source(error)}: {error}", file=sys.stderr)
        _leave(error)
        return 2 if isinstance(error, ConfigError | DataError) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return status or 0


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; `key=value` overrides may stand anywhere among the flags."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if args.name == "serve":
        args.more = rest
        return args
    unknown = [text for text in rest if text.startswith("-") or not hasattr(args, "overrides")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)} (see `posttrain {args.name} --help`)")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="posttrain",
        description="Warm-up SFT, then an adaptive mix of SFT and GRPO with verifiable rewards.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"posttrain {_version()}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    for add in (_add_run, _add_launch, _add_eval, _add_serve, _add_data, add_rewards, _add_doctor, *ADDERS):
        command = add(commands)
        command.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return parser


def _add_run(commands: Any) -> argparse.ArgumentParser:
    parser = commands.add_parser("run", help="train a model by a recipe", allow_abbrev=False)
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="recipe keys, such as hybrid.steps=100")
    parser.add_argument(
        "--smoke", action="store_true", help="try all of it in a minute on a CPU: tiny model, real data and rewards"
    )
    _add_resume(parser)
    parser.set_defaults(command=_run)
    return parser


def _add_resume(parser: argparse.ArgumentParser) -> None:
    fresh = parser.add_mutually_exclusive_group()
    fresh.add_argument("--resume", action="store_true", help="go on with the run; an error if there is none")
    fresh.add_argument("--restart", action="store_true", help="start anew; an old run is moved aside")
    parser.add_argument(
        "--accept-changes", action="store_true", help="go on although the recipe, data or rewards have changed"
    )


def _add_launch(commands: Any) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "launch",
        help="run a recipe on several GPUs or nodes",
        description="Print the `accelerate launch` command for a recipe, and run it. SIGTERM reaches every process; "
        "they have 120 s (TORCH_ELASTIC_SHUTDOWN_TIMEOUT) to save, and if all of them did, the exit code is 0. "
        "Otherwise it is that of the process that failed first.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="recipe keys, such as hybrid.steps=100")
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs on each node (default: all that are visible)")
    parser.add_argument(
        "--config",
        metavar="NAME",
        help="single, ddp, fsdp2, zero2, zero3 or an accelerate file (default: ddp; single for one process)",
    )
    parser.add_argument("--nodes", type=int, metavar="N", help="machines (default: Slurm's, or 1)")
    parser.add_argument("--node-rank", type=int, metavar="R", help="which of them this is, from 0")
    parser.add_argument("--main-address", metavar="HOST", help="node 0, as the others reach it")
    parser.add_argument("--main-port", type=int, metavar="P", help="a free port on node 0")
    parser.add_argument("--cpu", action="store_true", help="compute on CPUs, in float32")
    parser.add_argument("--processes", type=int, metavar="N", help="with --cpu: how many (default: 1)")
    parser.add_argument("--dry-run", action="store_true", help="check and print, run nothing")
    _add_resume(parser)
    parser.set_defaults(command=_launch)
    return parser


def _add_doctor(commands: Any) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "doctor",
        help="check that this machine can run recipes",
        description="Check versions, GPUs, vLLM, disk and hub. Exit code 0: no problem (there may be warnings). 1: a "
        "problem.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.set_defaults(command=_doctor)
    return parser


def _add_eval(commands: Any) -> argparse.ArgumentParser:
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


def _add_serve(commands: Any) -> argparse.ArgumentParser:
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


def _add_data(commands: Any) -> argparse.ArgumentParser:
    parser = commands.add_parser("data", help="write a task's rows as JSON lines", allow_abbrev=False)
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for add in (_add_knights_knaves, _add_json_structure):
        task = add(tasks)
        task.add_argument("--count", type=int, required=True, help="how many rows")
        task.add_argument("--out", metavar="FILE", required=True)
        task.add_argument("--seed", type=int, default=0)
        task.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        task.set_defaults(command=_data)
    return parser


def _add_knights_knaves(tasks: Any) -> argparse.ArgumentParser:
    from posttrain.tasks.knights_knaves import Cot, Prompt, write

    parser = tasks.add_parser("knights_knaves", help="puzzles about who tells the truth", allow_abbrev=False)
    parser.add_argument("--people", required=True, help="numbers of people, such as 3, 2-4 or 2,5-7")
    parser.add_argument("--depth", type=int, default=1, help="connectives inside one another (default: %(default)s)")
    parser.add_argument("--prompt", choices=get_args(Prompt), default="full")
    parser.add_argument("--cot", choices=get_args(Cot), default="auto", help="the form of the chain of thought")
    parser.add_argument("--think-share", type=float, default=1.0, help="share of rows with a chain of thought")
    parser.set_defaults(write=write, options=("people", "depth", "prompt", "cot", "think_share"))
    return parser


def _add_json_structure(tasks: Any) -> argparse.ArgumentParser:
    from posttrain.tasks.json_structure import Prompt, Style, write

    parser = tasks.add_parser("json_structure", help="texts to extract JSON objects from", allow_abbrev=False)
    parser.add_argument("--difficulty", required=True, help="levels from 1 to 5, such as 2, 1-3 or 1,4-5")
    parser.add_argument("--prompt", choices=get_args(Prompt), default="full")
    parser.add_argument("--style", choices=get_args(Style), default="compact", help="how the JSON is written")
    parser.set_defaults(write=write, options=("difficulty", "prompt", "style"))
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.smoke:
        from posttrain.commands.smoke import smoke_command

        smoke_command(args, processes=_processes())
        return
    from posttrain.processes.zero import stage_of_launch
    from posttrain.recipe.arithmetic import check, for_processes
    from posttrain.recipe.recipe import Recipe, load_recipe
    from posttrain.recipe.zero import check_recipe
    from posttrain.rundir.facts import processes_of

    def load() -> Recipe:
        recipe = load_recipe(args.recipe, args.overrides)
        if (stage := stage_of_launch(os.environ)) is not None:
            check_recipe(recipe, stage)
        return recipe

    if _processes() > 1:
        from posttrain.run.pipeline import join

        _, recipe = join(load)
    else:
        recipe = load()
        # Before torch is loaded; the run checks it, too
        started_on = None if args.restart else processes_of(Path(recipe.run.dir or "runs/run"))
        check(for_processes(recipe, started_on or 1, 1))

    from posttrain.run.pipeline import run

    run(
        recipe,
        resume=True if args.resume else None,  # None: go on if there is something to go on with
        accept_changes=args.accept_changes,
        restart=args.restart,
    )
    if _processes() > 1:
        from torch.distributed import destroy_process_group

        destroy_process_group()  # NCCL complains of one that is left to the interpreter's end


def _launch(args: argparse.Namespace) -> int:
    from posttrain.launch.launch import launch

    return launch(args)


def _doctor(args: argparse.Namespace) -> int:
    from posttrain.planning.doctor.doctor import doctor

    return doctor(as_json=args.json)


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


def _serve(args: argparse.Namespace) -> None:
    from posttrain.rollouts.vllm_server import SERVER_ENVIRONMENT, serve_command

    command = serve_command(
        args.model, port=args.port, transfer=args.weights_transfer, more=["--host", args.host, *args.more]
    )
    print(" ".join(f"{name}={value}" for name, value in SERVER_ENVIRONMENT.items()), shlex.join(command), flush=True)
    os.execvpe(command[0], command, {**os.environ, **SERVER_ENVIRONMENT})


def _data(args: argparse.Namespace) -> None:
    if args.count < 1:
        raise ConfigError(str(args.count), expected="at least 1", where="--count")
    options = {name: getattr(args, name) for name in args.options}
    count = args.write(args.out, count=args.count, seed=args.seed, **options)
    print(f"wrote {count} rows to {args.out}")


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


def _version() -> str:
    try:
        return version("posttrain")
    except PackageNotFoundError:
        return "(not installed)"


def _processes() -> int:
    """How many processes a launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _source(error: PosttrainError) -> str:
    """Which process an error is from, where there are several and not all have it of their own."""
    if _processes() == 1:
        return ""
    rank = error.rank if error.shared else os.environ["RANK"]
    return "" if rank is None or error.where == f"rank {rank}" else f" (rank {rank})"


def _speaks(error: PosttrainError) -> bool:
    """Whether this process is to print an error: its own, or, on the main process, one that all of them raise."""
    return not error.shared or _processes() == 1 or os.environ["RANK"] == "0"


def _leave(error: PosttrainError) -> None:
    """Part with the other processes of the run, if there are any.

    A launcher ends all processes as soon as one has failed, so those that know of an error wait until the main one has
    said it. Where others are gone already, this process ends at once: to close what it shared with them could hang.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if error.lost_connection:
        os._exit(1)
    if error.shared and _processes() > 1:
        from posttrain.processes.ranks import Ranks

        with suppress(Exception):  # there is nobody to wait for, then
            Ranks.joined().wait()
