"""Time of sampling groups of completions: the loop that reads guesses beside the plain one, on trained policies.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/drafts.py [RUN ...] [--step] [--repeats 5] [--threads 2]

RUN is the folder of a run whose policy samples, such as one after its warm-up (`hybrid.steps=0`); prompts and
demonstrations are its recipe's. `--step` adds the policy of `vs_trl.py`'s row `step`. The sides take turns on the same
prompts and draws; each repetition has prompts of its own, as each step of a run has. Printed are means over all but the
first repetition, of seconds and of the process's CPU seconds, and the share of completions that are the same.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from posttrain.models.inference import inference
from posttrain.rollouts.choice import Choice, sampler
from posttrain.rollouts.decode import decode
from posttrain.rollouts.drafted import decode_drafted
from posttrain.rollouts.drafts import Drafts, Texts
from posttrain.rollouts.sampling import Sampling

TokenIds = list[int]
Load = tuple[str, Any, list[list[TokenIds]], list[tuple[TokenIds, TokenIds]], int, int]
"""A name, the model, prompts by repetition, demonstrations, the limit on a completion and the token that ends one."""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--step", action="store_true", help="the policy of vs_trl.py's row step, too")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group", type=int, default=8, help="rows per prompt")
    parser.add_argument("--demonstrations", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch (%(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for load in loads(options):
        compare(load, options)


def loads(options: argparse.Namespace) -> Iterator[Load]:
    """What is sampled from."""
    from posttrain.inputs.inputs import load_data
    from posttrain.models.load import load_tokenizer
    from posttrain.recipe.recipe import load_recipe

    if options.step:
        yield of_row_step(options)
    for run in options.runs:
        from transformers import AutoModelForCausalLM

        recipe = load_recipe(run / "recipe.yaml")
        data, tokenizer = load_data(recipe), load_tokenizer(str(run / "model"))
        model = AutoModelForCausalLM.from_pretrained(run / "model")
        limit = recipe.hybrid.grpo.max_completion_length
        yield (run.name, model, *tokenized(tokenizer, data, options), limit, tokenizer.eos_token_id)


def of_row_step(options: argparse.Namespace) -> Load:
    """As in `vs_trl_step.py`."""
    from bench_models import make
    from vs_trl_step import train_a_little

    from posttrain.tasks.knights_knaves import KnightsKnaves

    task = KnightsKnaves(
        people=[2], names=4, split="content", prompt="short", think_share=0.5,
        train=options.prompts * (options.repeats + 1), eval=8, demonstrations=1000,
    )  # fmt: skip
    data = task.load(0)
    model, tokenizer = make("small", [row["prompt"] + row["completion"] for row in data.demonstrations])
    train_a_little(model, tokenizer, data.demonstrations, steps=120, seed=0)
    return ("step", model, *tokenized(tokenizer, data, options), 192, tokenizer.eos_token_id)


def tokenized(tokenizer: Any, data: Any, options: argparse.Namespace) -> tuple[Any, Any]:
    """Prompts and demonstrations as token ids."""

    def ids(text: str) -> TokenIds:
        return tokenizer(text)["input_ids"]

    demonstrations = [
        (ids(row["prompt"]), [*ids(row["completion"]), tokenizer.eos_token_id])
        for row in data.demonstrations[: options.demonstrations]
    ]
    starts = range(0, options.prompts * (options.repeats + 1), options.prompts)
    prompts = [[ids(row["prompt"]) for row in data.train[start : start + options.prompts]] for start in starts]
    return [each for each in prompts if len(each) == options.prompts], demonstrations


def compare(load: Load, options: argparse.Namespace) -> None:
    """Print a table."""
    name, model, prompts, demonstrations, limit, end = load
    texts = Texts(([*prompt, *completion], len(prompt)) for prompt, completion in demonstrations)
    asked: dict[str, Any] = {"max_new_tokens": limit, "eos_ids": [end]}

    def choice(rows: list[TokenIds], window: int) -> Choice:
        return Choice(sampler([(window, row) for row in range(len(rows))], Sampling(max_tokens=limit), "cpu"))

    sides: dict[str, Callable[[list[TokenIds], Choice], list[TokenIds]]] = {
        "plain": lambda rows, choice: decode(model, rows, choice, **asked),
        "guesses, nothing known": lambda rows, choice: decode_drafted(model, rows, choice, Drafts(), **asked),
        "guesses, demonstrations": lambda rows, choice: decode_drafted(model, rows, choice, Drafts(texts), **asked),
    }
    seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    found: dict[str, list[TokenIds]] = {side: [] for side in sides}
    model.eval()
    with inference(model):
        for window, some in enumerate(prompts):
            rows = [ids for ids in some for _ in range(options.group)]
            for side, run in sides.items():
                wall, cpu = time.perf_counter(), time.process_time()
                found[side] += run(rows, choice(rows, window))
                if window:  # the first one's caches are empty
                    seconds[side].append((time.perf_counter() - wall, time.process_time() - cpu))
    plain = [statistics.mean(each) for each in zip(*seconds["plain"], strict=True)]
    lengths = [len(ids) for ids in found["plain"]]
    count = options.prompts * options.group
    print(f"{name}: {count} rows, {statistics.mean(lengths):.0f} tokens on average, {max(lengths)} at most")
    for side, spent in seconds.items():
        same = sum(a == b for a, b in zip(found[side], found["plain"], strict=True)) / len(lengths)
        mine = [statistics.mean(each) for each in zip(*spent, strict=True)]
        times = "  ".join(
            f"{kind} {own:7.3f} s {theirs / own:5.2f} times"
            for kind, own, theirs in zip(("wall", "CPU"), mine, plain, strict=True)
        )
        print(f"  {side:<24} {times}  {same:.0%} the same", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
