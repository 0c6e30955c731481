"""CPU time of sampling groups of completions: our loop (`posttrain.rollouts.decode`) beside model.generate().

    python benchmarks/decoding.py [--models tiny small smollm2] [--prompts 25 100] [--repeats 3]

The same prompts, draws and processors on both sides, which take turns; printed are medians of the process's CPU time
with one thread (so they say what is computed, not how many cores share it), the lengths that came out and the share of
completions that are the same. Weights are random: each next token is nearly uniform, and every 70th token of the
vocabulary ends a completion, which spreads the lengths as widely as those of a real policy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from posttrain.models.inference import inference
from posttrain.rollouts.choice import Choice, sampler
from posttrain.rollouts.decode import decode
from posttrain.rollouts.sampling import Sampling
from posttrain.rollouts.transformers import _generate, _up_to_the_end

MODELS: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 512},
    "small": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "vocab_size": 8192},
    "smollm2": {
        "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "intermediate_size": 1536, "vocab_size": 49152,
    },
}  # fmt: skip
"""That of recipes/base/tiny.yaml, one of about 30 million parameters, and the shape of SmolLM2-135M."""

ENDS_EVERY = 70


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["tiny", "small"])
    parser.add_argument("--prompts", nargs="+", type=int, default=[25, 100], help="lengths of the prompts, in tokens")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--group", type=int, default=8, help="rows per prompt")
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--greedy", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("model     prompt  mean length (CV)   generate() s   decode s   times    same rows")
    for name in options.models:
        model = build(**MODELS[name])
        for prompt in options.prompts:
            print(f"{name:<9} {prompt:>6}  {compare(model, prompt, options)}", flush=True)


def build(**shape: int) -> LlamaForCausalLM:
    """A Llama with random weights."""
    torch.manual_seed(0)
    shape = {"intermediate_size": 4 * shape["hidden_size"], **shape}
    return LlamaForCausalLM(LlamaConfig(max_position_embeddings=1024, tie_word_embeddings=True, **shape)).eval()


def compare(model: Any, prompt: int, options: argparse.Namespace) -> str:
    """The rest of a line of the table."""
    vocabulary = model.config.vocab_size
    eos_ids = list(range(0, vocabulary, ENDS_EVERY))
    generator = torch.Generator().manual_seed(1)
    prompts = [
        torch.randint(1, vocabulary, (int(prompt * share),), generator=generator).tolist()
        for share in torch.linspace(0.8, 1.0, options.rows // options.group)
    ]
    rows = [ids for ids in prompts for _ in range(options.group)]
    sampling = Sampling(max_tokens=options.max_tokens, temperature=0.0 if options.greedy else 1.0)
    config = GenerationConfig(
        max_new_tokens=options.max_tokens, do_sample=False, eos_token_id=eos_ids, pad_token_id=0, disable_compile=True
    )

    def ours(rows: list[list[int]]) -> list[list[int]]:
        choice = Choice(sampler([(0, row) for row in range(len(rows))], sampling, "cpu"))
        return decode(model, rows, choice, max_new_tokens=options.max_tokens, eos_ids=eos_ids)

    def theirs(rows: list[list[int]]) -> list[list[int]]:
        found = _generate(model, rows, config, sampler([(0, row) for row in range(len(rows))], sampling, "cpu"))
        return [_up_to_the_end(row, set(eos_ids))[0] for row in found]

    times: dict[Any, list[float]] = {theirs: [], ours: []}
    results: dict[Any, list[list[int]]] = {}
    with inference(model):
        for side in times:
            side(rows[:1])
        for _ in range(options.repeats):
            for side, spent in times.items():
                before = time.process_time()
                results[side] = side(rows)
                spent.append(time.process_time() - before)
    lengths = [len(row) for row in results[ours]]
    mean = statistics.mean(lengths)
    generated, decoded = (statistics.median(spent) for spent in times.values())
    same = sum(a == b for a, b in zip(results[ours], results[theirs], strict=True)) / len(rows)
    return (
        f"{mean:>8.1f} ({statistics.pstdev(lengths) / mean:.2f}){'':<8}{generated:>8.2f} {decoded:>10.2f}"
        f" {generated / decoded:>7.2f} {same:>11.0%}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
