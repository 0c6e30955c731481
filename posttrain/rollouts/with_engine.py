"""Sampling for evaluations with a vLLM engine: as `rollouts.transformers.generate`, by other means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posttrain.inputs.rendering import Prompt, tokenize_prompts
from posttrain.rollouts.engine import Engine
from posttrain.rollouts.sampling import EVALUATIONS, Sampling, request_seed
from posttrain.rundir.completions import Completion

AT_ONCE = 512
"""Completions asked for between two reports of progress, and under one time limit: enough to keep an engine full."""


def generate(
    engine: Engine,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float = 1.0,
    num_samples: int = 1,
    seed: int = 0,
    template_kwargs: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    places: Sequence[int] | None = None,
) -> list[list[Completion]]:
    """Sample `num_samples` completions of each prompt; temperature 0 takes the likeliest token each time.

    Args:
        engine: An engine that has the model's weights.
        tokenizer: The model's.
        prompts, max_new_tokens, temperature, top_p, num_samples, template_kwargs: As for
            `rollouts.transformers.generate`.
        seed: A sample is a function of it, of the number of its prompt and of its own number.
        on_progress: Called with (completions done, completions in all) now and then.
        places: The prompts' numbers, where these are one process's share of them; None is 0, 1, 2, ...

    Returns:
        One list of `num_samples` completions per prompt, in the order of `prompts`.

    Raises:
        DataError: A prompt has no tokens, or too many for the engine.
        TrainingError: The engine died or took too long.
    """
    prompt_ids = tokenize_prompts(tokenizer, prompts, template_kwargs)
    sampling = Sampling(n=num_samples, max_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
    seeds = [request_seed(seed, EVALUATIONS, place) for place in (range(len(prompt_ids)) if places is None else places)]
    if len(seeds) != len(prompt_ids):
        raise ValueError(f"{len(prompt_ids)} prompts and {len(seeds)} places")
    groups: list[list[Completion]] = []
    at_once = max(1, AT_ONCE // num_samples)
    for start in range(0, len(prompt_ids), at_once):
        some = slice(start, start + at_once)
        sampled = engine.sample(prompt_ids[some], seeds[some], sampling)
        texts = tokenizer.batch_decode([one.token_ids for group in sampled for one in group], skip_special_tokens=True)
        text = iter(texts)
        groups += [
            [Completion(next(text), one.token_ids, len(one.token_ids), one.truncated) for one in group]
            for group in sampled
        ]
        if on_progress is not None:
            on_progress(len(groups) * num_samples, len(prompt_ids) * num_samples)
    return groups
