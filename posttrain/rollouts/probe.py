"""Does the sampling engine have the trainer's weights? Compare their log-probabilities, token by token.

An engine that samples from other weights than the trainer's raises no error and trains badly. The tokens it sampled
have to be about as likely to the trainer as they were to the engine; what is left are differences of rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from posttrain.errors import TrainingError
from posttrain.processes.ranks import Ranks
from posttrain.rollouts.engine import ALONE
from posttrain.rollouts.sampling import Sampled, Sampling, request_seed

TOKENS = 64
"""About how many tokens a probe samples."""

WINDOW = -1
"""The window of a probe's seeds, so that probing changes no rollout."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far apart the two log-probabilities of a token may be, in nats.

    Attributes:
        mean: Of the absolute differences, over all tokens of a probe.
        largest: Of any one token's difference.
    """

    mean: float
    largest: float


BOUNDS = {
    torch.float32: Bounds(mean=5e-4, largest=5e-3),
    torch.bfloat16: Bounds(mean=0.15, largest=2.0),
    torch.float16: Bounds(mean=0.15, largest=2.0),
}
"""By the coarser dtype of the two sides, see `bounds_for`. Measured with SmolLM2-135M on a CPU, 500 tokens: float32
6e-6 on average and 8e-5 at most, bfloat16 0.05 and 0.5. The bounds leave room for larger models and other kernels."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe found: differences of log-probabilities in nats, over `tokens` tokens."""

    mean_abs: float
    max_abs: float
    tokens: int


def bounds_for(*dtypes: torch.dtype) -> Bounds:
    """The bounds for two sides that compute in these dtypes: those of the coarsest of them."""
    return BOUNDS[max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)]


class Engine(Protocol):
    """What a probe needs of an engine."""

    def sample(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        *,
        limits: Sequence[int] | None = None,
    ) -> list[list[Sampled]]:
        """As `InProcessEngine.sample`."""


def probe(
    engine: Engine,
    trainer_logprobs: Callable[[list[list[int]], list[list[int]]], list[list[float]]],
    prompt_ids: Sequence[Sequence[int]],
    *,
    temperature: float,
    bounds: Bounds,
    run_seed: int = 0,
    tokens: int = TOKENS,
    limits: Sequence[int] | None = None,
    ranks: Ranks = ALONE,
) -> ProbeResult:
    """Sample a few tokens after each prompt and compare their log-probabilities with the trainer's.

    Several processes probe at the same time, each its own prompts: the trainer's forward pass may be collective.

    Args:
        engine: What samples.
        trainer_logprobs: Given prompts and completions as token ids, the trainer's log-probability of each completion
            token at the same temperature.
        prompt_ids: A few prompts; each gets an equal share of `tokens`.
        temperature: The run's. Nothing is truncated, as the trainer knows no top_p.
        bounds: See `BOUNDS`.
        run_seed: The seed of the run.
        tokens: About how many tokens to sample.
        limits: Most tokens behind each prompt, where there is not room for an equal share.
        ranks: The processes that probe.

    Raises:
        TrainingError: the two differ by more than `bounds`, here or on another process.
    """
    prompts = [list(ids) for ids in prompt_ids]
    sampling = Sampling(max_tokens=max(1, tokens // len(prompts)), temperature=temperature)
    seeds = [request_seed(run_seed, WINDOW, place) for place in range(len(prompts))]
    less = {} if limits is None else {"limits": list(limits)}
    sampled = [group[0] for group in ranks.together(lambda: engine.sample(prompts, seeds, sampling, **less))]
    scored = trainer_logprobs(prompts, [one.token_ids for one in sampled])
    return ranks.together(lambda: compare([one.logprobs for one in sampled], scored, bounds=bounds))


def compare(engine: Sequence[Sequence[float]], trainer: Sequence[Sequence[float]], *, bounds: Bounds) -> ProbeResult:
    """Compare the log-probabilities that both sides give the same tokens.

    Args:
        engine: For each completion its tokens' log-probabilities when sampled.
        trainer: The same, by the trainer.
        bounds: What is still rounding.

    Raises:
        TrainingError: a difference beyond the bounds, or one that is no number. It names the worst token.
    """
    pairs = [
        (row, place, ours, theirs)
        for row, (ours_T, theirs_T) in enumerate(zip(engine, trainer, strict=True))
        for place, (ours, theirs) in enumerate(zip(ours_T, theirs_T, strict=True))
    ]
    gaps = [abs(ours - theirs) if math.isfinite(ours - theirs) else math.inf for _, _, ours, theirs in pairs]
    if not gaps:
        return ProbeResult(0.0, 0.0, 0)
    result = ProbeResult(sum(gaps) / len(gaps), max(gaps), len(gaps))
    if result.mean_abs > bounds.mean or result.max_abs > bounds.largest:
        row, place, ours, theirs = pairs[gaps.index(result.max_abs)]
        raise TrainingError(
            "the sampling engine does not have the policy: the log-probabilities of "
            f"{result.tokens} sampled tokens differ from the trainer's by {result.mean_abs:.3g} on average and "
            f"{result.max_abs:.3g} at most (token {place} of completion {row}: {ours:.4f} in the engine, "
            f"{theirs:.4f} in the trainer)",
            expected=f"at most {bounds.mean:g} on average and {bounds.largest:g} for a token",
            where="rollout.probe_every",
            fix="a large difference on every token: the weights were not taken over; on a few: another dtype, "
            "temperature or a sampling option that the trainer does not know; rollout.lora: merged sends an adapter "
            "within the weights; rollout.engine: transformers samples from the trainer's own model",
        )
    return result
