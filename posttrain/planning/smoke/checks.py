"""What a smoke test checks before anything trains: rewards on real rows, the chat template, lengths, trackers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.errors import ConfigError, DataError, RewardError
from posttrain.inputs.applying import Tried, as_seen, idle_rewards, uses_rewards
from posttrain.inputs.data import fit_to_model, tokenize_demonstrations
from posttrain.inputs.rendering import tokenize_prompts
from posttrain.planning.smoke.recipe import characters
from posttrain.recipe.recipe import Recipe
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.score import Outcome, Reward
from posttrain.scoring.scorer import message_text
from posttrain.tasks import TaskData

SCORED, MEASURED = 500, 200
"""Rows of each part that are scored, spread over it; rows that are tokenised, the longest."""


def check_rewards(recipe: Recipe, rewards: Sequence[Reward], data: TaskData) -> list[str]:
    """Score demonstrations, and an empty completion and the prompt itself of other rows, with every reward.

    Returns:
        What was scored, in words, and which failures the run would put up with.

    Raises:
        RewardError: A reward fails on a demonstration's own completion, or more often than `scoring.max_error_rate`; or
            none scores any demonstration of some rows.
    """
    gold = [(row, message_text(row["completion"])) for row in _spread(data.demonstrations)]
    others = [(row, "") for row in _spread([*data.train, *data.eval])]
    others += [(row, message_text(row["prompt"])) for row in _spread([*data.train, *data.eval], SCORED // 10)]
    limits = recipe.scoring.model_dump(include={"workers", "time_limit_s", "memory_limit_mb"})
    notes, tried = [], []
    with RewardPool(rewards, **limits) as pool:
        for index, reward in enumerate(rewards):
            if reward.style == "trl":  # it wants a run's groups, token ids and state, which the training below gives it
                notes.append(f"{reward.name}: TRL-style, called by the training only")
                tried.append(Tried.of(reward, []))
                continue
            outcomes, _ = _check(reward, index, pool, gold, most=0.0, what="demonstrations")
            tried.append(Tried.of(reward, outcomes))
            _, failures = _check(
                reward, index, pool, others, most=recipe.scoring.max_error_rate, what="rows without an answer"
            )
            notes += failures
    for alone, error in idle_rewards(tried) if uses_rewards(recipe) else ():
        if alone:
            raise error
        notes.append(f"{error.where}: {error.seen}")
    names = ", ".join(reward.name for reward in rewards)
    return [f"{names} on {len(gold)} demonstrations and {len(others)} rows without an answer", *notes]


def _check(
    reward: Reward, index: int, pool: RewardPool, pairs: Sequence[tuple[dict[str, Any], str]], *, most: float, what: str
) -> tuple[list[Outcome], list[str]]:
    """The outcomes of the rows that the reward is for, and in words which failures the run would put up with."""
    pairs = [(row, text) for row, text in pairs if reward.applies_to(row)]
    rows = [as_seen(row) for row, _ in pairs]
    outcomes = pool.score(index, [text for _, text in pairs], rows)
    failed = [place for place, outcome in enumerate(outcomes) if outcome.error]
    if not failed:
        return outcomes, []
    first = failed[0]
    seen = f"it failed on {len(failed)} of {len(pairs)} {what}, the first time by: {outcomes[first].error}"
    if len(failed) <= most * len(pairs):
        return outcomes, [f"{reward.name}: {seen}"]
    raise RewardError(
        f"{seen}\n  that row: {_shortened(rows[first])}\n  its completion: {pairs[first][1][:300]!r}",
        expected=f"a score or None of each; a run stops above {most:.0%}" if most else "a score or None of each",
        where=f"reward {reward.name!r}",
        fix="correct the reward or the row; posttrain rewards check shows more of it",
    )


@dataclass(frozen=True)
class Lengths:
    """How long the longest rows are.

    Args:
        longest: Tokens of the longest row, a demonstration with its completion or a prompt.
        characters_per_token: Of these rows.
        notes: The lengths in words, and what is cut.
    """

    longest: int
    characters_per_token: float
    notes: list[str]


def check_rows(recipe: Recipe, data: TaskData, tokenizer: Any, config: Any) -> Lengths:
    """Render and tokenise the longest rows as both stages would.

    Args:
        recipe: The recipe.
        data: All of its rows.
        tokenizer: Of the recipe's model.
        config: The configuration of that model.

    Raises:
        DataError: Rows are conversations and the model has no chat template; a template that refuses them; a prompt and
            a completion do not fit the model or `rollout.max_model_length`.
    """
    _check_template(recipe, data, tokenizer)
    template_kwargs, notes = recipe.hybrid.template_kwargs, []
    prompts = fit_to_model(_longest([*data.train, *data.eval]), tokenizer)
    demonstrations = fit_to_model(_longest(data.demonstrations), tokenizer)
    try:
        tokens = [len(ids) for ids in tokenize_prompts(tokenizer, [row["prompt"] for row in prompts], template_kwargs)]
        whole = (
            tokenize_demonstrations(
                demonstrations,
                tokenizer,
                template_kwargs=template_kwargs,
                after=recipe.hybrid.demonstrations_after,
            )
            if demonstrations
            else []
        )
    except (DataError, KeyboardInterrupt):
        raise
    except Exception as error:  # jinja's, or whatever a tokenizer raises
        raise DataError(
            f"the rows cannot be rendered and tokenised: {type(error).__name__}: {error}",
            expected="rows that the model's chat template takes",
            where=recipe.where("model"),
            fix="correct the template, hybrid.args.chat_template_kwargs or the rows",
        ) from error
    if tokenizer.chat_template is None:
        notes.append("the model has no chat template: prompts go in as plain text")
    if whole:
        lengths, limit = sorted(len(row["input_ids"]) for row in whole), recipe.warmup.max_length
        notes.append(f"the longest demonstration has {lengths[-1]} tokens")
        cut = sum(limit is not None and length > limit for length in lengths)
        if cut:
            notes.append(f"{cut} of the {len(lengths)} longest demonstrations are cut at warmup.max_length {limit}")
    if tokens:
        notes.append(f"the longest prompt has {max(tokens)}")
        _check_room(recipe, max(tokens), config)
    demonstrated = [len(row["input_ids"]) for row in whole]
    read = sum(map(characters, prompts if not demonstrated else demonstrations))
    return Lengths(max([*tokens, *demonstrated]), read / max(1, sum(demonstrated or tokens)), notes)


def _check_template(recipe: Recipe, data: TaskData, tokenizer: Any) -> None:
    if tokenizer.chat_template is not None:
        return
    rows = [*data.train, *data.demonstrations, *data.eval]
    if any(not isinstance(row["prompt"], str) for row in rows):
        raise DataError(
            "the rows are conversations, and the model's tokenizer has no chat template",
            expected="prompts of plain text, or a model with a chat template",
            where=recipe.where("model"),
            fix="name a model that was trained for conversations, often one whose name ends in -Instruct",
        )
    if recipe.hybrid.template_kwargs:
        raise ConfigError(
            "arguments for a chat template, and the model's tokenizer has none",
            expected="a model with a chat template, or no arguments for it",
            where=recipe.where("hybrid.args.chat_template_kwargs"),
            fix="leave them out",
        )


def _check_room(recipe: Recipe, prompt: int, config: Any) -> None:
    """Whether the longest prompt and a completion fit the model and the sampler."""
    lengths = recipe.evaluate.max_completion_length, recipe.hybrid.grpo.max_completion_length
    completion = max(length for length in lengths if length)
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    limits = {"the model's max_position_embeddings": positions}
    if recipe.rollout.uses_vllm():
        limits["rollout.max_model_length"] = recipe.rollout.max_model_length
    for name, limit in limits.items():
        if limit is not None and prompt + completion > limit:
            raise DataError(
                f"the longest prompt has {prompt} tokens; with {completion} for the completion that is "
                f"{prompt + completion}",
                expected=f"at most {limit}, {name}",
                where="hybrid.grpo.max_completion_length",
                fix=f"raise {name}, shorten the completions, or drop long prompts",
            )


def check_trackers(names: Sequence[str]) -> None:
    """Whether each tracker of `run.report_to` is installed; nothing is sent.

    Raises:
        ConfigError: One is not.
    """
    from transformers.integrations import get_reporting_integration_callbacks

    for name in names:
        try:
            for callback in get_reporting_integration_callbacks([name]):
                callback()
        except (RuntimeError, ImportError) as error:
            raise ConfigError(
                f"{name} cannot be used: {error}", where="run.report_to", fix=f"install {name}, or leave it out"
            ) from error


def _spread(rows: Sequence[dict[str, Any]], most: int = SCORED) -> list[dict[str, Any]]:
    size = min(most, len(rows))
    return [rows[place * len(rows) // size] for place in range(size)]


def _longest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=characters, reverse=True)[:MEASURED]


def _shortened(row: dict[str, Any]) -> str:
    text = repr(row)
    return text if len(text) <= 500 else f"{text[:500]}..."
