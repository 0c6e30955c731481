"""Recorded rollouts of a chosen shape: what both sides of a comparison are fed instead of sampling.

Lengths are quantiles of a distribution in a shuffled order, not draws from it, so that a load has the spread it is
asked for whatever its seed. Token ids are random: what a step costs does not depend on them.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

TokenIds = list[int]


@dataclass(frozen=True)
class Shape:
    """What a load looks like; the defaults have just the spread and the share of groups that the target speaks of.

    Args:
        prompts, group: Prompts, and completions of each (G).
        prompt_tokens, completion_tokens: Mean lengths.
        prompt_spread, completion_spread: Coefficients of variation; 0 makes all equally long. Completions are
            log-normal and clipped at `longest` times the mean, prompts uniform.
        zero_variance: Share of groups whose completions all have the same reward, rounded down.
        sampler: Completions come with the log-probabilities of a sampler that rounds differently, as from vLLM.
    """

    prompts: int = 15
    group: int = 8
    prompt_tokens: int = 64
    completion_tokens: int = 64
    prompt_spread: float = 0.3
    completion_spread: float = 0.55
    longest: float = 4.0
    zero_variance: float = 0.4
    sampler: bool = False

    def plain(self) -> Shape:
        """The same number of completions with nothing to gain from: short prompts, one length, a signal in each."""
        return replace(self, prompt_tokens=8, prompt_spread=0.0, completion_spread=0.0, zero_variance=0.0)


@dataclass(frozen=True)
class Load:
    """Prompts and their recorded completions, by group.

    Attributes:
        prompts: Texts, all different.
        prompt_ids: Their tokens.
        completion_ids: Of each prompt, G completions; each ends with the end-of-sequence token.
        rewards: Of each completion.
        logps: Of each completion's tokens, under the sampler; `None` without one.
    """

    prompts: list[str]
    prompt_ids: list[TokenIds]
    completion_ids: list[list[TokenIds]]
    rewards: list[list[float]]
    logps: list[list[list[float]]] | None = None

    def facts(self) -> dict[str, Any]:
        """What the load turned out to be, for the record."""
        lengths = [len(ids) for group in self.completion_ids for ids in group]
        prompts = [len(ids) for ids in self.prompt_ids]
        same = [len(set(rewards)) == 1 for rewards in self.rewards]
        group = len(self.completion_ids[0])
        return {
            "completions": len(lengths),
            "group": group,
            "prompt_mean": round(statistics.mean(prompts), 1),
            "prompt_max": max(prompts),
            "completion_mean": round(statistics.mean(lengths), 1),
            "completion_max": max(lengths),
            "completion_cv": round(statistics.pstdev(lengths) / statistics.mean(lengths), 3),
            "zero_variance_share": round(sum(same) / len(same), 3),
            "positions_padded": len(lengths) * (max(prompts) + max(lengths)),
            "positions_needed": sum(
                prompt + sum(len(ids) for ids in some)
                for prompt, some, no_signal in zip(prompts, self.completion_ids, same, strict=True)
                if not no_signal
            ),
        }


def make_load(shape: Shape, tokenizer: Any, *, seed: int = 0) -> Load:
    """The load of a shape, the same for the same seed; without log-probabilities, which `with_logps` adds."""
    draw = random.Random(seed)
    special = set(tokenizer.all_special_ids)
    words = [number for number in range(len(tokenizer)) if number not in special]
    count = shape.prompts * shape.group
    wanted = _lengths(shape.prompts, shape.prompt_tokens, shape.prompt_spread, _uniform, draw, math.inf)
    lengths = _lengths(
        count,
        shape.completion_tokens,
        shape.completion_spread,
        _log_normal,
        draw,
        shape.longest * shape.completion_tokens,
    )
    prompts = [tokenizer.decode(draw.choices(words, k=length)) for length in wanted]
    completions = [[*draw.choices(words, k=length - 1), tokenizer.eos_token_id] for length in lengths]
    silent = set(draw.sample(range(shape.prompts), int(shape.zero_variance * shape.prompts)))
    rewards = [_rewards(shape.group, number in silent, draw) for number in range(shape.prompts)]
    groups = [completions[start : start + shape.group] for start in range(0, count, shape.group)]
    return Load(prompts, [tokenizer(text)["input_ids"] for text in prompts], groups, rewards)


def with_logps(load: Load, model: Any, *, noise: float = 0.01, seed: int = 0) -> Load:
    """The load with what a sampler of the same weights in lower precision would report for its tokens.

    Args:
        noise: Standard deviation of what the rounding adds to a token's log-probability.
    """
    import torch

    draw = torch.Generator().manual_seed(seed)
    logps: list[list[list[float]]] = []
    with torch.no_grad():
        for prompt, group in zip(load.prompt_ids, load.completion_ids, strict=True):
            logps.append([])
            for ids in group:
                logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
                its = logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]
                logps[-1].append((its + noise * torch.randn(len(ids), generator=draw)).tolist())
    return replace(load, logps=logps)


def _rewards(group: int, silent: bool, draw: random.Random) -> list[float]:
    if silent:
        return [float(draw.random() < 0.5)] * group
    right = draw.randint(1, group - 1)
    rewards = [1.0] * right + [0.0] * (group - right)
    draw.shuffle(rewards)
    return rewards


def _lengths(count: int, mean: float, spread: float, quantile: Any, draw: random.Random, most: float) -> Sequence[int]:
    shares = [(number + 0.5) / count for number in range(count)]
    lengths = [max(2, round(min(most, quantile(share, mean, spread)))) for share in shares]
    draw.shuffle(lengths)
    return lengths


def _uniform(share: float, mean: float, spread: float) -> float:
    return mean * (1.0 + math.sqrt(12.0) * spread * (share - 0.5))


def _log_normal(share: float, mean: float, spread: float) -> float:
    variance = math.log(1.0 + spread**2)
    return mean * math.exp(math.sqrt(variance) * statistics.NormalDist().inv_cdf(share) - variance / 2.0)
