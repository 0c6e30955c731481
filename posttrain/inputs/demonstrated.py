"""A few demonstrations as both stages train on them, beside what rollouts of their prompts start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.errors import DataError
from posttrain.inputs.data import demonstration_ids
from posttrain.inputs.rendering import After, tokenize_prompts

SAMPLE = 20
"""Demonstrations that are looked at, evenly spaced."""

SHOWN = 6
"""Tokens of either end."""


@dataclass(frozen=True)
class Demonstration:
    """One as it is trained on.

    Attributes:
        row: What it was made from.
        prompt_ids: The context.
        completion_ids: What is trained on.
        sampled_ids: What a rollout of its prompt starts from.
    """

    row: Mapping[str, Any]
    prompt_ids: list[int]
    completion_ids: list[int]
    sampled_ids: list[int]


@dataclass(frozen=True)
class Found:
    """What is not as it should be.

    Attributes:
        refused: Whether it is to stop a run.
        error: What was seen, and what to do.
    """

    refused: bool
    error: DataError


def demonstrated(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    *,
    template_kwargs: Mapping[str, Any],
    after: After,
    sampled: Callable[[list[Any]], list[list[int]]] | None = None,
) -> list[Demonstration]:
    """A sample of the rows as both stages train on them.

    Args:
        rows: With `prompt` and `completion`, messages where the model has a chat template.
        tokenizer: The model's.
        template_kwargs, after: As for `tokenize_demonstrations`.
        sampled: Gives the token ids that rollouts of prompts start from; `tokenize_prompts` if `None`.

    Raises:
        DataError: As `tokenize_demonstrations` and `tokenize_prompts`.
    """
    size = min(SAMPLE, len(rows))
    some = [rows[place * len(rows) // size] for place in range(size)]
    pairs = [demonstration_ids(row, number, tokenizer, template_kwargs, after) for number, row in enumerate(some)]
    sampled = sampled or (lambda prompts: tokenize_prompts(tokenizer, prompts, template_kwargs))
    starts = [sampled([row["prompt"]])[0] for row in some]
    return [Demonstration(row, *pair, start) for row, pair, start in zip(some, pairs, starts, strict=True)]


def shown(tokenizer: Any, ids: Sequence[int], most: int = SHOWN) -> str:
    """Tokens in words and as ids."""
    some = list(ids[:most])
    return f"{tokenizer.decode(some)!r} {some}"


def without_end(text: str, end: str) -> str:
    """A text without the ends of sequence at its end."""
    while end and text.endswith(end):
        text = text.removesuffix(end)
    return text


def ends_by(tokenizer: Any, ids: Sequence[int], ends: Sequence[int]) -> bool:
    """Whether token ids end by one of these tokens, but for white space that a template puts behind it."""
    return bool(rest := up_to_end(tokenizer, ids, ends)) and rest[-1] in ends


def up_to_end(tokenizer: Any, ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Token ids without the white space behind the last that is something else, or an end."""
    rest = list(ids)
    while rest and rest[-1] not in ends and not tokenizer.decode(rest[-1:]).strip():
        rest.pop()
    return rest
