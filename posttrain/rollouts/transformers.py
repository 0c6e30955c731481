"""Sampling with transformers' models: the engine that needs nothing installed, and the one of the evaluations.

Prompts are turned into tokens as HybridTrainer does it, so that training and evaluation see the same ids.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
)

from posttrain.inputs.rendering import Prompt, tokenize_prompts
from posttrain.models.generation import plain_generation
from posttrain.models.inference import inference
from posttrain.rollouts.choice import Choice, sampler
from posttrain.rollouts.decode import NotPlain, OnRow, decode, why_not
from posttrain.rollouts.drafted import decode_drafted
from posttrain.rollouts.drafts import Drafts, Texts
from posttrain.rollouts.sampling import Sampling
from posttrain.rundir.completions import Completion

__all__ = ["Completion", "generate"]


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float = 1.0,
    num_samples: int = 1,
    batch_size: int = 128,
    seed: int | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
    places: Sequence[int] | None = None,
    synced: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[list[Completion]]:
    """Sample `num_samples` completions of each prompt; temperature 0 takes the likeliest token each time.

    A sample is a function of `seed`, the place of its prompt in `prompts` and its own number: a generator made of the
    three gives one uniform number a token, which picks the token from the cumulative distribution. So it depends
    neither on batch size, on the other prompts, on `num_samples` nor on torch's generators, which are not touched
    either. What padding changes in the last bits of the logits can still tip a token now and then.

    Args:
        model: A causal language model of transformers or PEFT. It is put in eval mode and back, module by module,
            so that gradient checkpointing does not switch the KV cache off.
        tokenizer: Its tokenizer. Without a padding token the end-of-sequence token pads.
        prompts: Texts, or conversations as lists of messages, which go through the chat template.
        max_new_tokens: The limit on a completion's length, in tokens.
        temperature: Divides the logits before sampling; 0 is greedy.
        top_p: Samples from the smallest set of tokens that holds this probability mass.
        num_samples: Completions per prompt.
        batch_size: Completions per call of model.generate(), longest prompts first.
        seed: None draws a fresh one.
        places: The prompts' numbers for the seeds, where `prompts` is only one process's share; 0, 1, ... if `None`.
        synced: Every process makes the same number of forward passes, which a sharded model needs. Each must pass as
            many prompts as the others.
        on_progress: Called with (completions done, completions in all) after each batch.

    Returns:
        One list of `num_samples` completions per prompt, in the order of `prompts`.

    Raises:
        DataError: a prompt has no tokens, or the chat template refuses one.
    """
    prompt_ids = tokenize_prompts(tokenizer, prompts, template_kwargs)
    seed = secrets.randbits(63) if seed is None else seed
    jobs = [(prompt, sample) for prompt in range(len(prompt_ids)) for sample in range(num_samples)]
    jobs.sort(key=lambda job: -len(prompt_ids[job[0]]))
    numbers = range(len(prompt_ids)) if places is None else places
    completions: dict[tuple[int, int], Completion] = {}
    eos_ids = end_of_sequence_ids(model, tokenizer)
    sampling = Sampling(max_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
    config = _generation_config(tokenizer, eos_ids, sampling)
    with inference(model):
        for start in range(0, len(jobs), batch_size):
            batch = jobs[start : start + batch_size]
            token_ids = _sample_batch(
                model, [prompt_ids[prompt] for prompt, _ in batch], config,
                sampler([(seed, numbers[prompt], sample) for prompt, sample in batch], sampling, model.device),
                synced=synced,
            )  # fmt: skip
            for job, completion in zip(batch, _cut(token_ids, eos_ids, tokenizer), strict=True):
                completions[job] = completion
            if on_progress is not None:
                on_progress(len(completions), len(jobs))
    return [[completions[prompt, sample] for sample in range(num_samples)] for prompt in range(len(prompt_ids))]


def sample_tokens(
    model: Any,
    prompt_ids: list[list[int]],
    seeds: Sequence[tuple[int, ...]],
    sampling: Sampling,
    *,
    tokenizer: Any,
    eos_ids: list[int],
    synced: bool | None = None,
    limits: Sequence[int] | None = None,
    on_row: OnRow | None = None,
    texts: Texts | None = None,
) -> list[list[int]]:
    """One completion of each prompt, all in one batch, as token ids with the end-of-sequence token.

    Args:
        model: In eval mode.
        prompt_ids: Token ids of each prompt.
        seeds: For each prompt, the numbers that its completion is a function of.
        sampling: Its `n` is not looked at.
        tokenizer: The model's.
        eos_ids: Tokens that end a completion.
        synced: Every process makes the same number of forward passes; `None` leaves it to transformers.
        limits: Most tokens of each completion, where that is less than the sampling's own limit.
        on_row: Called with (the row's place in `prompt_ids`, its token ids) as soon as the row has ended, and once for
            each; where transformers' generate() samples, that is when all have.
        texts: Like those that the model writes; they change how long it takes, not what comes out.
    """
    config = _generation_config(tokenizer, eos_ids, sampling)
    processors = sampler(seeds, sampling, model.device)
    return _sample_batch(
        model, prompt_ids, config, processors, synced=synced, limits=limits, on_row=on_row, texts=texts
    )


def end_of_sequence_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a completion: the tokenizer's, and those that the model declares, such as end of turn."""
    declared = model.generation_config.eos_token_id
    declared = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return list(dict.fromkeys([*own, *declared]))


def _generation_config(tokenizer: Any, eos_ids: list[int], sampling: Sampling) -> GenerationConfig:
    """Plain decoding; with `plain_generation`, for generate() fills what is left open from the model's own config."""
    pad_id = tokenizer.pad_token_id
    return GenerationConfig(
        max_new_tokens=sampling.max_tokens,
        do_sample=False,  # sampling is InverseTransform's
        repetition_penalty=sampling.repetition_penalty,
        use_cache=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=eos_ids or None,
        pad_token_id=pad_id if pad_id is not None else (eos_ids[0] if eos_ids else 0),
        disable_compile=True,
    )


def _sample_batch(
    model: Any,
    prompt_ids: list[list[int]],
    config: GenerationConfig,
    processors: LogitsProcessorList,
    *,
    synced: bool | None = False,
    limits: Sequence[int] | None = None,
    on_row: OnRow | None = None,
    texts: Texts | None = None,
) -> list[list[int]]:
    """A completion of each prompt, with its end-of-sequence token: on a CPU by `decode_drafted`; else, and where its
    attention is not for that, by `decode`; and by model.generate() where neither knows the model or the settings.
    """
    if not synced and config.repetition_penalty == 1 and why_not(model) is None:
        choice, ends = Choice(processors), config.eos_token_id or ()
        asked: dict[str, Any] = {"max_new_tokens": config.max_new_tokens, "eos_ids": ends, "limits": limits}
        if model.device.type == "cpu":
            with contextlib.suppress(NotPlain):
                return decode_drafted(model, prompt_ids, choice, Drafts(texts), **asked, on_row=on_row)
        with contextlib.suppress(NotPlain):
            return decode(model, prompt_ids, choice, pad_id=config.pad_token_id, **asked, on_row=on_row)
    rows = _generate(model, prompt_ids, config, processors, synced=synced)
    rows = [_up_to_the_end(row, set(config.eos_token_id or ()))[0] for row in rows]
    if limits is not None:
        rows = [row[:limit] for row, limit in zip(rows, limits, strict=True)]
    if on_row is not None:
        for row, token_ids in enumerate(rows):
            on_row(row, token_ids)
    return rows


def _generate(
    model: Any,
    prompt_ids: list[list[int]],
    config: GenerationConfig,
    processors: LogitsProcessorList,
    *,
    synced: bool | None = False,
) -> list[list[int]]:
    """What model.generate() adds to each prompt: end-of-sequence tokens and padding are still on it."""
    width = max(len(ids) for ids in prompt_ids)
    input_ids_B_T = torch.full((len(prompt_ids), width), config.pad_token_id, dtype=torch.long)
    mask_B_T = torch.zeros_like(input_ids_B_T)
    for row, ids in enumerate(prompt_ids):
        input_ids_B_T[row, width - len(ids) :] = torch.tensor(ids)
        mask_B_T[row, width - len(ids) :] = 1
    with plain_generation(model):
        output_B_T = model.generate(
            input_ids=input_ids_B_T.to(model.device),
            attention_mask=mask_B_T.to(model.device),
            generation_config=config,
            logits_processor=processors,
            synced_gpus=synced,
        )
    return output_B_T[:, width:].tolist()


def _cut(rows: list[list[int]], eos_ids: list[int], tokenizer: Any) -> list[Completion]:
    """Completions of sampled rows, each up to and including its first end-of-sequence token."""
    ends = set(eos_ids)
    kept, truncated = [], []
    for row in rows:
        ids, cut = _up_to_the_end(row, ends)
        kept.append(ids)
        truncated.append(cut)
    texts = tokenizer.batch_decode(kept, skip_special_tokens=True)
    return [
        Completion(text=text, token_ids=ids, length=len(ids), truncated=cut)
        for text, ids, cut in zip(texts, kept, truncated, strict=True)
    ]


def _up_to_the_end(row: list[int], ends: set[int]) -> tuple[list[int], bool]:
    """The tokens up to and including the first of `ends`, and whether there was none."""
    end = next((place for place, token in enumerate(row) if token in ends), None)
    return (row, True) if end is None else (row[: end + 1], False)
