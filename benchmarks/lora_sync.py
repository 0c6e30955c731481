"""What a transfer to vLLM takes when the adapter travels alone, against whole weights; and sampling with both.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/lora_sync.py --repeats 9
    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/lora_sync.py --repeats 9 --server

SmolLM2 135M with an adapter on all linear layers. Two engines of one process, or two servers, one for each way; every
transfer of one is followed by one of the other, in turns which is first, after the adapter has changed. The first pair
brings the base and is not counted. After each pair both sample the same prompts, and the log-probabilities that they
give their tokens are compared with the trainer's by the bounds of a run's probe.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

WAYS = ("merged", "adapter")
MODEL = "smollm2-135m-instruct"
END = 2


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="pairs of transfers (default: %(default)s)")
    parser.add_argument("--rank", type=int, default=16, help="of the adapter (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=32, help="of a completion (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=4, help="4 completions each (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="of the engines; the trainer's is float32")
    parser.add_argument("--threads", type=int, default=1, help="of this process (default: %(default)s)")
    parser.add_argument("--server", action="store_true", help="on servers, in place of this process")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    with ExitStack() as opened:
        policy = make_policy(args.rank)
        engines = opened.enter_context(on_servers(policy, args) if args.server else in_process(policy, args))
        measured = measure(policy, engines, args)
    report(measured)
    return measured


def make_policy(rank: int) -> Any:
    """SmolLM2 with an adapter of some effect."""
    from peft import LoraConfig, get_peft_model

    from posttrain.models.gguf_files import gguf_file
    from posttrain.models.load import load_policy

    torch.manual_seed(0)
    model = load_policy(gguf_file(MODEL), dtype="float32")
    policy = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))
    change(policy, 0)
    return policy.eval()


def change(policy: Any, seed: int) -> None:
    """What some steps of training do to the adapter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 1e-3 * torch.randn(parameter.shape, generator=generator)


@contextmanager
def in_process(policy: Any, args: Any) -> Iterator[dict[str, Any]]:
    """An engine for each way."""
    from posttrain.rollouts.vllm import InProcessEngine

    shape = {"eos_token_ids": [END], "max_model_length": 256, "max_num_seqs": 64, "time_limit_s": 3600.0}
    with ExitStack() as opened:
        yield {way: opened.enter_context(InProcessEngine(policy, **shape, dtype=args.dtype, lora=way)) for way in WAYS}


@contextmanager
def on_servers(policy: Any, args: Any) -> Iterator[dict[str, Any]]:
    """A server for each way, and an engine that is connected to it."""
    from posttrain.models.policy_weights import base_model
    from posttrain.rollouts.vllm_command import ADAPTER_ENVIRONMENT, SERVER_ENVIRONMENT, serve_command
    from posttrain.rollouts.vllm_server import ServerEngine

    on_a_cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCH_COMPILE_DISABLE": "1"}
    environment = os.environ | SERVER_ENVIRONMENT | ADAPTER_ENVIRONMENT | on_a_cpu
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        config = base_model(policy).config
        config.architectures = [type(base_model(policy)).__name__]
        config.save_pretrained(folder)
        urls = {}
        for way in WAYS:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            more = ["--dtype", args.dtype, "--max-model-len", "256", "--enforce-eager", "--host", "127.0.0.1"]
            rank = args.rank if way == "adapter" else None
            command = serve_command(folder, port=port, lora_rank=rank, more=more)
            log = opened.enter_context((folder / f"{way}.log").open("w"))
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            opened.callback(os.killpg, process.pid, signal.SIGKILL)
            urls[way] = f"http://127.0.0.1:{port}"
        for way, url in urls.items():
            wait_for(f"{url}/health", folder / f"{way}.log")
        connect = {"eos_token_ids": [END], "model": policy, "time_limit_s": 3600.0}
        yield {way: opened.enter_context(ServerEngine(url, lora=way, **connect)) for way, url in urls.items()}


def wait_for(url: str, log: Path) -> None:
    """Until a server answers."""
    deadline = time.monotonic() + 600
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit(log.read_text()[-4000:]) from None
            time.sleep(0.5)


def measure(policy: Any, engines: dict[str, Any], args: Any) -> dict[str, Any]:
    """Bytes and seconds of each transfer, tokens a second of each sampling, distances to the trainer."""
    from posttrain.rollouts.probe import bounds_for, compare
    from posttrain.rollouts.sampling import Sampling, request_seed

    prompts = [[1000 + 7 * number + place for place in range(32)] for number in range(args.prompts)]
    seeds = [request_seed(0, 0, place) for place in range(args.prompts)]
    sampling = Sampling(n=4, max_tokens=args.tokens)
    bounds = bounds_for(getattr(torch, args.dtype), torch.float32)
    found: dict[str, dict[str, list[float]]] = {
        way: {name: [] for name in ("bytes", "sync_s", "sample_tps", "apart_mean", "apart_max")} for way in WAYS
    }
    for repeat in range(args.repeats + 1):
        change(policy, repeat)
        for way in WAYS if repeat % 2 else WAYS[::-1]:
            engine, mine = engines[way], found[way]
            began = time.perf_counter()
            engine.load(policy)
            seconds = time.perf_counter() - began
            began = time.perf_counter()
            groups = engine.sample(prompts, seeds, sampling)
            sampled_s = time.perf_counter() - began
            rows = [(ids, one) for ids, group in zip(prompts, groups, strict=True) for one in group]
            apart = compare([one.logprobs for _, one in rows], logprobs(policy, rows), bounds=bounds)
            if repeat == 0:  # which brought the base
                continue
            mine["bytes"].append(engine.sent_bytes)
            mine["sync_s"].append(seconds)
            mine["sample_tps"].append(sum(len(one.token_ids) for _, one in rows) / sampled_s)
            mine["apart_mean"].append(apart.mean_abs)
            mine["apart_max"].append(apart.max_abs)
    return found


@torch.no_grad()
def logprobs(policy: Any, rows: list[tuple[list[int], Any]]) -> list[list[float]]:
    """The trainer's, of each completion token."""
    found = []
    for ids, one in rows:
        logits = policy(torch.tensor([ids + one.token_ids])).logits[0, len(ids) - 1 : -1].float()
        found.append(logits.log_softmax(-1).gather(1, torch.tensor(one.token_ids)[:, None])[:, 0].tolist())
    return found


def report(found: dict[str, dict[str, list[float]]]) -> None:
    """Medians as a table, with the range of the seconds."""
    print("| way | bytes | seconds of a transfer | range | tokens sampled a second | nats apart, mean / most |")
    print("|---|---|---|---|---|---|")
    for way in WAYS:
        mine = found[way]
        least, most = min(mine["sync_s"]), max(mine["sync_s"])
        apart = f"{median(mine['apart_mean']):.1e} / {max(mine['apart_max']):.1e}"
        print(
            f"| {way} | {median(mine['bytes']):,.0f} | {median(mine['sync_s']):.3f} | {least:.3f} to {most:.3f} "
            f"| {median(mine['sample_tps']):.1f} | {apart} |"
        )
    for name, what in (("bytes", "bytes"), ("sync_s", "seconds"), ("sample_tps", "tokens a second")):
        ratio = median(found["merged"][name]) / median(found["adapter"][name])
        print(f"{what}: merged / adapter = {ratio:.1f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
