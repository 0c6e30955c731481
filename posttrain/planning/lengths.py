"""How long a recipe's rows are in the model's tokens, what the limits cut off, and what three of them look like.

Rows are rendered and cut by what the run itself uses, so that what is counted is what will be trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from posttrain.recipe.recipe import Recipe
from posttrain.tasks import TaskData

MOST_ROWS = 2000
"""Of each stream that are tokenised, evenly spaced: the share of 2000 is within about 1 % of that of all."""

SAMPLES = 3


@dataclass(frozen=True)
class Lengths:
    """Tokens of one kind of text.

    Attributes:
        rows: Counted.
        of: Rows that there are.
        mean: Tokens.
        longest: Tokens.
        limit: What is kept; None: all.
        over: Share of the counted rows that are longer than the limit.
    """

    rows: int
    of: int
    mean: float
    longest: int
    limit: int | None
    over: float

    @classmethod
    def of_counts(cls, counts: Sequence[int], of: int, limit: int | None) -> Lengths:
        """From the tokens of each counted row, of which there is at least one."""
        over = sum(count > limit for count in counts) / len(counts) if limit is not None else 0.0
        return cls(len(counts), of, fmean(counts), max(counts), limit, over)


@dataclass(frozen=True)
class Sample:
    """A row as the model sees it.

    Attributes:
        prompt: Rendered by the chat template, up to where the completion begins.
        demonstration: What is trained on after it; empty for a row without one.
        prompt_tokens: Of the prompt.
        demonstration_tokens: Of the demonstration, the end of sequence included.
        kept_tokens: Of the demonstration, after `warmup.max_length`.
    """

    prompt: str
    demonstration: str
    prompt_tokens: int
    demonstration_tokens: int
    kept_tokens: int


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What a recipe's rows are in tokens. What a recipe has no rows of, or no use for, is None.

    Attributes:
        chat: Whether rows go through a chat template.
        prompts: Of the rollouts and evaluations, against what the model's positions leave beside a completion.
        demonstrations: With their prompts, against `warmup.max_length`.
        completions: Of the demonstrations alone, against `hybrid.grpo.max_completion_length`.
        dropped: Share of the demonstrations of which no token of the completion is left.
        labels: Share of the demonstrations' kept tokens that are trained on.
        kept: Mean tokens of a demonstration that are kept.
        kept_lengths: Of each counted one.
        samples: Three rows.
    """

    chat: bool
    prompts: Lengths | None = None
    demonstrations: Lengths | None = None
    completions: Lengths | None = None
    dropped: float = 0.0
    labels: float = 1.0
    kept: float = 0.0
    kept_lengths: tuple[int, ...] = ()
    samples: tuple[Sample, ...] = ()


def texts_of(recipe: Recipe, data: TaskData, tokenizer: Any, positions: int | None) -> Texts:
    """Count and render a recipe's rows.

    Args:
        recipe: Its limits.
        data: Its rows.
        tokenizer: The model's.
        positions: Longest sequence that the model takes.
    """
    from posttrain.inputs.data import IGNORED, fit_to_model, tokenize_demonstrations

    uses_sft = bool(recipe.warmup.steps or (recipe.hybrid.steps and recipe.hybrid.controller.shares()[0]))
    demonstrations = evenly(data.demonstrations, MOST_ROWS) if uses_sft else []
    prompts = _prompts(recipe, data, tokenizer, positions)
    template = recipe.hybrid.template_kwargs
    if not demonstrations:
        rows = fit_to_model((data.train or data.eval)[:SAMPLES], tokenizer)
        samples = tuple(_bare(row["prompt"], tokenizer, template) for row in rows)
        return Texts(chat=bool(tokenizer.chat_template), prompts=prompts, samples=samples)
    rows = fit_to_model(demonstrations, tokenizer)
    after = recipe.hybrid.demonstrations_after
    whole = tokenize_demonstrations(rows, tokenizer, template_kwargs=template, after=after)
    limit = recipe.warmup.max_length
    starts = [sum(label == IGNORED for label in labels) for labels in whole["labels"]]
    totals = [len(ids) for ids in whole["input_ids"]]
    counts = [total - start for total, start in zip(totals, starts, strict=True)]
    kept = [total if limit is None else min(total, limit) for total in totals]
    trained = [max(0, most - start) for most, start in zip(kept, starts, strict=True)]
    left = [most for most, some in zip(kept, trained, strict=True) if some]
    number = len(data.demonstrations)
    longest_completion = recipe.hybrid.grpo.max_completion_length if _samples(recipe) else None
    return Texts(
        chat=bool(tokenizer.chat_template),
        prompts=prompts,
        demonstrations=Lengths.of_counts(totals, number, limit),
        completions=Lengths.of_counts(counts, number, longest_completion),
        dropped=1 - len(left) / len(totals),
        labels=sum(trained) / max(1, sum(left)),
        kept=fmean(left) if left else 0.0,
        kept_lengths=tuple(left),
        samples=tuple(
            Sample(
                _bare(rows[row]["prompt"], tokenizer, template).prompt,
                tokenizer.decode(whole[row]["input_ids"][starts[row] :]),
                starts[row],
                counts[row],
                trained[row],
            )
            for row in range(min(SAMPLES, len(whole)))
        ),
    )


def shares_over(texts: Texts | None) -> dict[str, Lengths]:
    """The lengths that there are, by name."""
    names = ("prompts", "demonstrations", "completions")
    return {name: lengths for name in names if (lengths := getattr(texts, name, None))}


def room_for_prompts(recipe: Recipe, positions: int | None) -> tuple[int | None, str]:
    """Tokens that a prompt may have beside a whole completion, and the setting or size that bounds the two together."""
    lengths = [recipe.hybrid.grpo.max_completion_length] if _samples(recipe) else []
    lengths.append(recipe.evaluate.max_completion_length or recipe.hybrid.grpo.max_completion_length)
    bounds: list[tuple[int, str]] = [(positions, "the model's positions")] if positions else []
    if recipe.rollout.uses_vllm() and recipe.rollout.max_model_length:
        bounds.append((recipe.rollout.max_model_length, "rollout.max_model_length"))
    if not bounds:
        return None, ""
    most, what = min(bounds)
    return most - max(lengths), what


def evenly(rows: Sequence[Any], most: int) -> list[Any]:
    """At most that many of the rows, evenly spaced, the first among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[place * len(rows) // most] for place in range(most)]


def _samples(recipe: Recipe) -> bool:
    """Whether rollouts are sampled."""
    return bool(recipe.hybrid.steps and recipe.hybrid.controller.shares()[1])


def _prompts(recipe: Recipe, data: TaskData, tokenizer: Any, positions: int | None) -> Lengths | None:
    from posttrain.inputs.data import fit_to_model
    from posttrain.inputs.rendering import tokenize_prompts

    streams = [data.train, data.eval] if _samples(recipe) else [data.eval]
    rows = [row for stream in streams for row in evenly(stream, MOST_ROWS // len(streams))]
    if not rows:
        return None
    prompts = [row["prompt"] for row in fit_to_model(rows, tokenizer)]
    counts = [len(ids) for ids in tokenize_prompts(tokenizer, prompts, recipe.hybrid.template_kwargs)]
    return Lengths.of_counts(counts, sum(map(len, streams)), room_for_prompts(recipe, positions)[0])


def _bare(prompt: Any, tokenizer: Any, template: Any) -> Sample:
    """A prompt without a demonstration."""
    from posttrain.inputs.rendering import tokenize_prompts

    ids = tokenize_prompts(tokenizer, [prompt], template)[0]
    return Sample(tokenizer.decode(ids), "", len(ids), 0, 0)
