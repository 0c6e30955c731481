"""Row `step`: the whole optimizer step with generation and rewards, from the same policy and prompts.

The policy is trained here for a moment on Knights & Knaves with the reasoning written out, so that its completions
end by themselves, at lengths that differ. Both sides sample with transformers at temperature 1: TRL by `generate()`,
ours by its own loop. They draw from different random generators, so that rollouts and gradients differ.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

from vs_trl_training import compared, settings_of

THINK = 0.5
"""Share of the demonstrations with reasoning: the policy learns both, so that the lengths within a group differ."""
LONGEST = 160
"""Tokens of a demonstration for the policy; longer ones are left out, for a quick start."""


def rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The row."""
    from bench_models import SIZES, make
    from two_sides import SIDES, Side, paired

    from posttrain.tasks.knights_knaves import KnightsKnaves

    task = KnightsKnaves(
        people=[2], names=4, split="content", prompt="short", think_share=THINK,
        train=args.completions // args.group, eval=8, demonstrations=1000,
    )  # fmt: skip
    data = task.load(args.seed)
    texts = [row["prompt"] + row["completion"] for row in data.demonstrations]
    model, tokenizer = make(args.model, texts)
    if args.model in SIZES:
        train_a_little(model, tokenizer, data.demonstrations, steps=args.policy_steps, seed=args.seed)
    settings = {
        "per_device_train_batch_size": args.micro_batch,
        "gradient_accumulation_steps": args.completions // args.micro_batch,
        "num_generations": args.group,
        "max_completion_length": args.longest,
        "temperature": 1.0,
        "loss_type": args.loss_type,
        "gradient_checkpointing": False,
    }
    with tempfile.TemporaryDirectory() as folder:
        sides = {}
        for name in SIDES:
            reward = Scored()
            sides[name] = (
                Side(
                    name,
                    copy.deepcopy(model),
                    tokenizer,
                    data.train,
                    reward,
                    settings,
                    Path(folder),
                    without=args.without,
                ),
                reward,
            )
        for side, reward in sides.values():  # its first step is slower than the others and does not count
            side.whole_step()
            reward.forget()
        taken = paired({name: side.whole_step for name, (side, _) in sides.items()}, args.repeats)
    row = {
        "name": "step",
        "load": "knights_knaves",
        "without": args.without,
        **compared(taken),
        "gradient_rel_l2": None,
    }
    for name, steps in taken.items():
        reward = sides[name][1]
        tokens, lengths = sum(step.tokens for step in steps), reward.lengths
        groups = [reward.values[start : start + args.group] for start in range(0, len(reward.values), args.group)]
        row |= {
            f"{name}_tokens_per_s": tokens / sum(step.wall_s for step in steps),
            f"{name}_tokens": tokens / len(steps),
            f"{name}_length_cv": round(statistics.pstdev(lengths) / statistics.mean(lengths), 3),
            f"{name}_truncated": round(sum(length >= args.longest for length in lengths) / len(lengths), 3),
            f"{name}_reward": round(statistics.mean(reward.values), 3),
            f"{name}_zero_variance_share": round(sum(len(set(some)) == 1 for some in groups) / len(groups), 3),
        }
    return [row | settings_of("step", args) | {"completions": args.completions, "repeats": args.repeats}]


class Scored:
    """The reward `knights_knaves` as partial credit, the share of people whose role is right; keeps what it saw.

    Right or wrong would leave this policy, which mostly guesses, with hardly a group that has a signal.
    """

    __name__ = "correct_share"

    def __init__(self) -> None:
        from posttrain.recipe.sections import RewardConfig
        from posttrain.scoring.loading import load_reward

        self.reward = load_reward(RewardConfig(name="knights_knaves"))
        self.lengths: list[int] = []
        self.values: list[float] = []

    def forget(self) -> None:
        """Begin anew."""
        self.lengths.clear()
        self.values.clear()

    def __call__(self, prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float]:
        """Score a batch, as TRL asks."""
        from posttrain.scoring.calling import score_completion

        values = []
        for row, text in enumerate(completions):
            given = {name: some[row] for name, some in columns.items() if name in ("names", "solution", "quiz")}
            score = score_completion(self.reward, text, {"prompt": prompts[row], **given}).score
            values.append(float(score.parts["correct_share"]) if score else 0.0)
        self.lengths += [len(ids) for ids in completion_ids]
        self.values += values
        return values


def train_a_little(
    model: Any, tokenizer: Any, demonstrations: list[dict[str, Any]], *, steps: int, seed: int, batch: int = 16
) -> None:
    """Fit a model to demonstrations just long enough that it writes in their form and ends."""
    import torch

    draw = random.Random(seed)
    pairs = [
        (tokenizer(row["prompt"])["input_ids"], [*tokenizer(row["completion"])["input_ids"], tokenizer.eos_token_id])
        for row in demonstrations
    ]
    encoded = [pair for pair in pairs if len(pair[0]) + len(pair[1]) <= LONGEST]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
    model.train()
    for _ in range(steps):
        some = draw.sample(encoded, batch)
        width = max(len(prompt) + len(completion) for prompt, completion in some)
        ids = torch.full((batch, width), tokenizer.pad_token_id)
        labels = torch.full((batch, width), -100)
        for row, (prompt, completion) in enumerate(some):
            end = len(prompt) + len(completion)
            ids[row, :end] = torch.tensor([*prompt, *completion])
            labels[row, len(prompt) : end] = torch.tensor(completion)
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.zero_grad()
