"""What is asked of vLLM for a prompt, and what comes back: in this process and on a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.rollouts.sampling import Sampled, Sampling

FINAL_ONLY = 2
"""vLLM's `RequestOutputKind`: all completions in one answer. Before 0.29 it is the last alone by default."""


def parameters(sampling: Sampling, seed: int, limit: int, stop_token_ids: Sequence[int]) -> dict[str, Any]:
    """The `SamplingParams` of one prompt's completions, as a server takes them.

    Args:
        sampling: How to draw.
        seed: Of the prompt.
        limit: Most tokens of a completion.
        stop_token_ids: Tokens that end one.
    """
    drawn = sampling.temperature > 0.0
    return {
        "n": sampling.n if drawn else 1,  # vLLM takes no more; the others are the same
        "max_tokens": limit,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p or 0.0,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": seed if drawn else None,
        "stop_token_ids": list(stop_token_ids),
        "logprobs": 0,
        "detokenize": False,
        "output_kind": FINAL_ONLY,
    }


def sampled_here(output: Any) -> Sampled:
    """A completion that an engine in this process gives."""
    flat = output.logprobs
    ids = list(output.token_ids)
    logprobs = [flat.logprobs[start] for start in flat.start_indices]
    if [flat.token_ids[start] for start in flat.start_indices] != ids:
        raise RuntimeError("log-probabilities and tokens do not belong together")
    return Sampled(ids, logprobs, output.finish_reason == "length")


def sampled_there(answer: Mapping[str, Any]) -> list[Sampled]:
    """The completions of a server's answer, in order."""
    return [_sampled(choice) for choice in sorted(answer["choices"], key=lambda choice: choice["index"])]


def _sampled(choice: Mapping[str, Any]) -> Sampled:
    ids = list(choice["token_ids"])
    logprobs = [float(token["logprob"]) for token in choice["logprobs"]["content"]]
    if len(logprobs) != len(ids):
        raise RuntimeError("log-probabilities and tokens do not belong together")
    return Sampled(ids, logprobs, choice["finish_reason"] == "length")
