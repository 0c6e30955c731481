"""What is asked of a sampling engine and what it gives back, and the seed of each request. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from posttrain.errors import ConfigError, DataError

CHILDREN = 1 << 14
"""Completions that one request can have without running into the seeds of the next prompt."""

PROMPTS = 1 << 18
"""Prompts that one window can have before their seeds repeat."""

EVALUATIONS = 1_000_000_000
"""Windows from here on are those of evaluations, which so take no seed of the training's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How completions are drawn; names and meanings are those of TRL's `GRPOConfig`.

    Attributes:
        max_tokens: The limit on a completion's length.
        n: Completions per prompt.
        temperature: Divides the logits; 0 takes the likeliest token each time.
        top_p: Draws from the smallest set of tokens that holds this probability mass.
        top_k: Draws from this many of the likeliest tokens; 0 draws from all.
        min_p: Draws from the tokens at least this likely relative to the likeliest; None draws from all.
        repetition_penalty: Above 1 disfavours tokens that were seen before.
    """

    max_tokens: int
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self):
        if self.max_tokens < 1 or not 1 <= self.n <= CHILDREN or self.temperature < 0.0:
            raise ConfigError(
                f"max_tokens={self.max_tokens}, n={self.n}, temperature={self.temperature}",
                expected=f"max_tokens >= 1, 1 <= n <= {CHILDREN}, temperature >= 0",
                where="Sampling",
            )


@dataclass(frozen=True, slots=True)
class Sampled:
    """One completion.

    Attributes:
        token_ids: The sampled tokens, with the end-of-sequence token if there was one.
        logprobs: The log-probability of each of them in the distribution it was drawn from: after temperature,
            truncation and penalties. At temperature 0 it is the model's own.
        truncated: Whether the limit came before an end-of-sequence token.
    """

    token_ids: list[int]
    logprobs: list[float]
    truncated: bool


def request_seed(run_seed: int, window: int, prompt: int) -> int:
    """The seed of a prompt's request; its completion number i is drawn with this seed plus i.

    Depends on nothing but its arguments, so that rollouts depend neither on the order of requests nor on how many
    processes share them, and a resumed run draws the same. Within a window no two completions of the first `PROMPTS`
    prompts share a seed, as long as a request has at most `CHILDREN` of them. That holds for the low 32 bits by
    themselves: torch's CPU generator uses no more of a seed.

    Args:
        run_seed: The seed of the run.
        window: Which generation of the run, counted from 0.
        prompt: The place of the prompt in the window, over all processes.

    Returns:
        A number from 0 to 2**62 + 2**32, which a signed 64-bit seed holds with room for the completions.
    """
    digest = blake2b(f"{run_seed} {window}".encode(), digest_size=8, person=b"posttrain seeds").digest()
    drawn = int.from_bytes(digest, "little")
    high, low = drawn >> 34, drawn & 0xFFFFFFFF
    return (high << 32) + (low + prompt * CHILDREN) % (1 << 32)


def check_lengths(
    prompt_ids: Sequence[Sequence[int]], max_tokens: int, max_model_length: int, limits: Sequence[int] | None = None
) -> list[int]:
    """Every prompt and its completion fit the engine's context.

    Args:
        prompt_ids: Token ids of each prompt.
        max_tokens: Of a completion at most.
        max_model_length: The engine's context.
        limits: The same as `max_tokens` of each prompt, where that is less.

    Returns:
        The most tokens of each prompt's completions.

    Raises:
        DataError: one does not, or a prompt is empty.
    """
    most = [max_tokens] * len(prompt_ids) if limits is None else [min(limit, max_tokens) for limit in limits]
    for index, (ids, limit) in enumerate(zip(prompt_ids, most, strict=True)):
        if not ids:
            raise DataError(f"prompt {index} has no tokens", expected="at least one token")
        if len(ids) + limit > max_model_length:
            raise DataError(
                f"prompt {index} has {len(ids)} tokens; with {limit} for the completion that is {len(ids) + limit}",
                expected=f"at most {max_model_length} tokens in all",
                where="rollout.max_model_length",
                fix=f"raise it to {len(ids) + limit} if the model allows that, shorten the completions, or drop "
                "long prompts",
            )
    return most
