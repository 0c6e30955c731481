"""Whether what is trained is what is sampled: a few demonstrations, looked at token by token before anything trains.

The context that a demonstration is trained after is the prompt that rollouts start from; its tokens read as its
completion; its last one ends a completion of this model; and a reward that sees it as it sees a rollout, tokens made
text again, gives it what it gives its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from posttrain.errors import DataError
from posttrain.inputs.applying import as_seen
from posttrain.inputs.data import fit_to_model
from posttrain.inputs.demonstrated import (
    SHOWN,
    Demonstration,
    Found,
    demonstrated,
    ends_by,
    shown,
    up_to_end,
    without_end,
)
from posttrain.inputs.rendering import lost_words
from posttrain.inputs.same_scores import Score, lower_scores
from posttrain.inputs.tokens import written
from posttrain.recipe.recipe import Recipe
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.score import Outcome, Reward
from posttrain.tasks import TaskData


def differences_of(
    recipe: Recipe, data: TaskData, tokenizer: Any, ends: Sequence[int], rewards: Sequence[Reward] = ()
) -> list[Found]:
    """What a recipe would train otherwise than it samples; nothing where it trains on no demonstrations.

    Args:
        recipe: The recipe.
        data: Its rows.
        tokenizer: Its model's.
        ends: Tokens that end a completion (`ends.ends_of`).
        rewards: Those that score rollouts and evaluations; called in a worker process under the recipe's limits, and
            only where a demonstration comes to them as another text than it is.

    Raises:
        DataError: The rows cannot be rendered.
    """
    trains = recipe.warmup.steps or (recipe.hybrid.steps and recipe.hybrid.controller.shares()[0])
    if not trains or not data.demonstrations:
        return []
    limits = recipe.scoring.model_dump(include={"workers", "time_limit_s", "memory_limit_mb"})
    limits["workers"] = 1 if limits["workers"] is None else min(1, limits["workers"])

    def score(index: int, texts: list[str], rows: list[Mapping[str, Any]]) -> Sequence[Outcome]:
        with RewardPool([rewards[index]], **limits) as pool:
            return pool.score(0, texts, [as_seen(dict(row)) for row in rows])

    some = demonstrated(
        fit_to_model(data.demonstrations, tokenizer),
        tokenizer,
        template_kwargs=recipe.hybrid.template_kwargs,
        after=recipe.hybrid.demonstrations_after,
    )
    return list(differences(some, tokenizer, ends, rewards, score))


def refuse(found: Sequence[Found]) -> list[str]:
    """What would not stop a run, in words.

    Raises:
        DataError: The first of what does.
    """
    for each in found:
        if each.refused:
            raise each.error
    return [f"{each.error.where}: {each.error.seen}; {each.error.fix}" for each in found]


def differences(
    demonstrations: Sequence[Demonstration],
    tokenizer: Any,
    ends: Sequence[int],
    rewards: Sequence[Reward] = (),
    score: Score | None = None,
) -> Iterator[Found]:
    """What is trained otherwise than it is sampled, one of a kind.

    Args:
        demonstrations: As `demonstrated` gives them.
        tokenizer: The model's.
        ends: Tokens that end a completion.
        rewards: Those that score rollouts.
        score: Called with a reward's number, texts and rows; `None` scores nothing.
    """
    for find in (_context, _words, _end):
        yield from _first(find(each, tokenizer, ends) for each in demonstrations)
    yield from lower_scores(demonstrations, tokenizer, ends, rewards, score)


def _first(found: Iterator[Found | None]) -> Iterator[Found]:
    yield from [each for each in found if each is not None][:1]


def _context(one: Demonstration, tokenizer: Any, ends: Sequence[int]) -> Found | None:
    if one.prompt_ids == one.sampled_ids:
        return None
    same = next((i for i, (a, b) in enumerate(zip(one.prompt_ids, one.sampled_ids, strict=False)) if a != b), None)
    same = min(len(one.prompt_ids), len(one.sampled_ids)) if same is None else same
    trained, sampled = (shown(tokenizer, ids[max(0, same - 2) :][:SHOWN]) for ids in (one.prompt_ids, one.sampled_ids))
    return Found(
        True,
        DataError(
            f"a demonstration is trained after another prompt than rollouts start from: from token {same} on, after "
            f"{trained}, they from {sampled}",
            expected="the same tokens: else SFT teaches one prompt and GRPO samples from another",
            where="demonstrations",
            fix="set hybrid.demonstrations_after to generation_prompt (demonstrations_after of HybridConfig), or give "
            "both the same template arguments",
        ),
    )


def _words(one: Demonstration, tokenizer: Any, ends: Sequence[int]) -> Found | None:
    completion = one.row["completion"]
    if not isinstance(completion, str):
        lost = lost_words(tokenizer, one.prompt_ids, one.completion_ids, completion)
        return _unread(lost, tokenizer, one, refused=True) if lost else None
    end = tokenizer.eos_token or ""
    read = written(tokenizer, one.prompt_ids, one.completion_ids) or ""
    if without_end(read, end) == without_end(completion, end):
        return None
    as_message = [{"content": without_end(completion, end)}]
    lost = lost_words(tokenizer, one.prompt_ids, one.completion_ids, as_message)
    return _unread(completion, tokenizer, one, refused=bool(lost))


def _unread(words: str, tokenizer: Any, one: Demonstration, *, refused: bool) -> Found:
    what = "other words" if refused else "other white space or signs"
    return Found(
        refused,
        DataError(
            f"what is trained on reads as {what} than the completion {words[:60]!r}: "
            f"{shown(tokenizer, one.completion_ids, most=12)}",
            expected="tokens that read as the completion",
            where="demonstrations",
            fix="write completions in signs that the model's vocabulary has, or take another model",
        ),
    )


def _end(one: Demonstration, tokenizer: Any, ends: Sequence[int]) -> Found | None:
    if ends_by(tokenizer, one.completion_ids, ends):
        return None
    last = shown(tokenizer, one.completion_ids[-SHOWN:])
    known = ", ".join(f"{tokenizer.decode([end])!r} ({end})" for end in ends) or "none"
    return Found(
        True,
        DataError(
            f"demonstrations end in {last}, and that ends no completion: what ends one is {known}; a policy that "
            "learns from them would run on to the limit every time",
            expected="demonstrations whose last token is one of these",
            where="demonstrations",
            fix=_mend(tokenizer, up_to_end(tokenizer, one.completion_ids, ends)[-1:]),
        ),
    )


def _mend(tokenizer: Any, last: list[int]) -> str:
    if not last or (last[0] not in tokenizer.all_special_ids and last[0] not in tokenizer.added_tokens_decoder):
        return "use a chat template that puts an end behind an answer, such as the one of the model's instruct version"
    token = tokenizer.convert_ids_to_tokens(last[0])
    return (
        f"set warmup.args.eos_token to {token!r} (in Python tokenizer.eos_token), in both stages; or add {last[0]} to "
        "eos_token_id in the model's generation_config.json"
    )
