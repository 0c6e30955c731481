"""What it gains that a vLLM server samples while the SFT half of a blended step is at work, or a window ahead.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/overlap.py --blocks 6

One run against one server, in blocks of steps that go one of three ways each: one after the other, overlapped, ahead.
A block's first two steps are of the way before in part, and left out. Both sides get one thread each, so that on two
cores neither takes the other's. The text and the model are made here.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median
from typing import Any

WAYS: dict[str, dict[str, Any]] = {
    "one after the other": {"vllm_overlap": False, "vllm_ahead": 0},
    "overlapped": {"vllm_overlap": True, "vllm_ahead": 0},
    "one window ahead": {"vllm_overlap": True, "vllm_ahead": 1},
}
LEFT_OUT = 2
"""Steps at the beginning of a block: the first of them takes what the block before began."""

WORDS = [
    "red", "green", "blue", "seven", "eleven", "apple", "pear", "plum",
    "north", "south", "east", "west", "walks", "sleeps", "sings", "falls",
]  # fmt: skip


def main() -> None:
    """Start a server, train against it, print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=6, help="of steps that go one way (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="of a block (default: %(default)s)")
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--completions", type=int, default=32, help="a step (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="of a completion (default: %(default)s)")
    parser.add_argument("--demonstrations", type=int, default=32, help="a step (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "model", args)
        server, url = start_server(model, Path(folder) / "server.log")
        try:
            steps = train(Path(folder) / "run", model, url, args)
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    report(steps, args.steps)


def rows() -> list[dict[str, str]]:
    """Long demonstrations of counting through the words."""
    texts = [
        " ".join(WORDS[(start + i * step) % len(WORDS)] for i in range(60)) for start in range(16) for step in (1, 3)
    ]
    return [{"prompt": text[:40], "completion": text[40:]} for text in texts]


def make_model(folder: Path, args: argparse.Namespace) -> Path:
    """A model and tokenizer from scratch."""
    from posttrain.models.load import build_model, train_tokenizer

    tokenizer = train_tokenizer([row["prompt"] + row["completion"] for row in rows()], vocab_size=384)
    size = {"hidden_size": args.hidden_size, "layers": args.layers, "heads": args.hidden_size // 32}
    build_model(tokenizer, **size, max_position_embeddings=512).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def start_server(model: Path, log: Path) -> tuple[subprocess.Popen, str]:
    """The server's process and address, once it answers."""
    from posttrain.rollouts.vllm_server import SERVER_ENVIRONMENT, serve_command

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = serve_command(model, port=port, more=["--dtype", "float32", "--enforce-eager", "--host", "127.0.0.1"])
    on_a_cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCH_COMPILE_DISABLE": "1"}
    environment = os.environ | SERVER_ENVIRONMENT | on_a_cpu | {"OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5)
            return server, url
        except OSError:
            if server.poll() is not None:
                raise SystemExit(log.read_text()[-2000:]) from None
            time.sleep(0.5)


def train(folder: Path, model: Path, url: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The records of the steps, each with whether it overlapped."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    from posttrain.controllers import Static
    from posttrain.storage.files import read_lines
    from posttrain.training.config import HybridConfig
    from posttrain.training.trainer import HybridTrainer

    torch.set_num_threads(1)

    class Alternate(TrainerCallback):
        def on_step_begin(self, config, state, control, **kwargs):
            for name, value in WAYS[way_of(state.global_step, args.steps)].items():
                setattr(config, name, value)

    config = HybridConfig(
        output_dir=str(folder),
        max_steps=args.blocks * args.steps,
        per_device_train_batch_size=args.completions,
        demonstration_batch_size=args.demonstrations,
        num_generations=8,
        max_completion_length=args.tokens,
        learning_rate=1e-4,
        kl_sample=0.0,
        use_vllm=True,
        vllm_mode="server",
        vllm_server_base_url=url,
        vllm_probe_every=0,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = HybridTrainer(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        lambda completions, **columns: [len(set(text)) / 10 for text in completions],
        config,
        Dataset.from_list([{"prompt": row["prompt"]} for row in rows()]),
        processing_class=AutoTokenizer.from_pretrained(model),
        demonstrations=Dataset.from_list(rows()),
        controller=Static(sft_share=0.5, mode="blend"),
        callbacks=[Alternate()],
    )
    trainer.train()
    return read_lines(folder / "steps.jsonl")


def way_of(step: int, length: int) -> str:
    """Which way a step goes, counted from 0: round and back, so that no way is always behind the same one."""
    block = step // length
    names = list(WAYS) if block // len(WAYS) % 2 == 0 else list(reversed(WAYS))
    return names[block % len(WAYS)]


def report(steps: list[dict[str, Any]], length: int) -> None:
    """Medians of the seconds of each way."""
    names = ("sft", "generate", "grpo", "score", "total")
    print("| a step's seconds (median) | " + " | ".join(names) + " |")
    print("|---" * (1 + len(names)) + "|")
    totals = {}
    for way in WAYS:
        places = [n for n in range(len(steps)) if way_of(n, length) == way and n % length >= LEFT_OUT]
        seconds = [steps[place]["seconds"] for place in places]
        medians = {name: median(each.get(name, 0.0) for each in seconds) for name in names}
        totals[way] = medians["total"]
        print(f"| {way} ({len(seconds)} steps) | " + " | ".join(f"{medians[name]:.2f}" for name in names) + " |")
    first, *others = totals
    for way in others:
        print(f"{way}: {1 - totals[way] / totals[first]:.0%} of a step saved")


if __name__ == "__main__":
    main()
