"""What `HybridTrainer` is given as a library: rewards of one completion, controllers by name, rows; checked at once."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel

from posttrain.controllers import CONTROLLERS, SASR, Controller
from posttrain.errors import ConfigError, DataError, RewardError
from posttrain.inputs.applying import as_seen
from posttrain.inputs.demonstrated import demonstrated
from posttrain.inputs.inputs import loading
from posttrain.inputs.misfits import beyond_embedding
from posttrain.inputs.rendering import OF_A_ROW, check_rendering, through_template
from posttrain.inputs.same_stream import differences, refuse
from posttrain.methods import METHODS, Method
from posttrain.models.generation import make_savable, unsavable
from posttrain.models.load import load_tokenizer
from posttrain.nearest import hint
from posttrain.recipe.sections import ScoringSection
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.score import Outcome, Reward
from posttrain.scoring.scorer import Scorer, trl_reward_functions

BRING_COLUMNS = ("rollout_func", "environment_factory", "tools")
"""Arguments of GRPOTrainer by which rewards are given more than the columns of the data set."""

CONTROLLER = "one such as SASR(gamma=1.0), or its name: " + ", ".join(CONTROLLERS)


def controller_of(given: Any) -> Controller:
    """A controller, by its name with its own defaults, or as it is; SASR for `None`.

    Raises:
        ConfigError: It is no controller.
    """
    if given is None:
        return SASR()
    if isinstance(given, str):
        if given not in CONTROLLERS:
            seen = f"no controller named {given!r}{hint(given, CONTROLLERS)}"
            raise ConfigError(seen, expected=CONTROLLER, where="controller", fix="controller=SASR()")
        return CONTROLLERS[given]()
    if isinstance(given, type) or not all(callable(getattr(given, name, None)) for name in ("decide", "shares")):
        name = given.__name__ if isinstance(given, type) else type(given).__name__
        raise ConfigError(
            f"the class {name}" if isinstance(given, type) else f"a {name}",
            expected=CONTROLLER,
            where="controller",
            fix=f"controller={name}()" if isinstance(given, type) else "controller=SASR()",
        )
    return given


def method_of(given: Any) -> Method | None:
    """A method, by its name with its own defaults, or as it is.

    Raises:
        ConfigError: It is no method.
    """
    if given is None or isinstance(given, Method):
        return given
    if isinstance(given, str) and given in METHODS:
        return METHODS[given]()
    seen = f"no method named {given!r}{hint(given, METHODS)}" if isinstance(given, str) else f"method is {given!r}"
    expected = f"one such as HPT(gate=0), or its name: {', '.join(METHODS)}"
    raise ConfigError(seen, expected=expected, where="method", fix="method=HPT()")


def rewards_of(given: Any, columns: Sequence[str], more: Mapping[str, Any]) -> tuple[Any, Scorer | None]:
    """Reward functions as GRPOTrainer calls them: those of one completion are scored as a recipe's are.

    That is in worker processes under a recipe's default limits, errors isolated and counted. TRL-style functions, names
    and models are left as they are.

    Args:
        given: `reward_funcs`, one or several.
        columns: Of the data set.
        more: The trainer's other arguments by name.

    Returns:
        The same, with those of one completion in TRL's style; and what scores these, `None` without any.

    Raises:
        RewardError: A function has no usable signature, or takes a column that there is not.
    """
    functions = list(given) if isinstance(given, list | tuple) else [given]
    known = not any(more.get(name) for name in BRING_COLUMNS)
    rewards: dict[int, Reward] = {}
    for place, function in enumerate(functions):
        if not (callable(function) and _parameters(function)) or hasattr(function, "scorer") or _is_module(function):
            continue
        names = _parameters(function)
        others = any(each.kind is each.VAR_KEYWORD for each in names.values()) and "completion" not in names
        if others and "completions" not in names:  # takes whatever it is called with
            continue
        reward = Reward.from_callable(function)
        if known:
            reward.check_columns(columns)
        if reward.style == "score":
            rewards[place] = reward
    if not rewards:
        return given, None
    scorer = Scorer(list(rewards.values()), max_error_rate=ScoringSection().max_error_rate)
    scorer.pool = _pool(scorer.rewards)
    for place, function in zip(rewards, trl_reward_functions(scorer), strict=True):
        functions[place] = function
    return functions, scorer


def scorer_of(function: Any) -> Scorer | None:
    """What scores by a reward function of `trl_reward_functions`; `None` for any other."""
    scorer = getattr(function, "scorer", None)
    return scorer if isinstance(scorer, Scorer) else None


def check_votes(scorer: Scorer, method: Method | None) -> None:
    """Refuse a reward that votes in a group beside a method, whose groups are no plain samples of one prompt.

    Raises:
        ConfigError: With what to change.
    """
    voting = [reward.name for reward in scorer.rewards if reward.of_group]
    if voting and method is not None:
        raise ConfigError(
            f"the reward {voting[0]} votes in a group, whose rows the method {method.name} makes, too",
            expected="groups of plain samples of a prompt",
            where="method",
            fix="leave one of them out",
        )


class Failures:
    """Says once that a reward failed on a completion."""

    def __init__(self, scorer: Scorer | None):
        self._scorer = scorer

    def say(self, step: int) -> None:
        """Look after a step."""
        if self._scorer is None or not self._scorer.errors:
            return
        first, self._scorer = self._scorer.errors[0], None
        warnings.warn(
            f"step {step}: reward {first['reward']!r} failed on a completion ({first['error']}); it counts as not "
            "scored, and so will others",
            stacklevel=3,
        )


def _pool(rewards: Sequence[Reward]) -> RewardPool | None:
    limits = ScoringSection().model_dump(include={"workers", "time_limit_s", "memory_limit_mb"})
    try:
        return RewardPool(rewards, **limits)
    except RewardError as error:
        warnings.warn(
            f"the rewards are scored in this process, without limits on time and memory: {error.seen}", stacklevel=4
        )
        return None


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _is_module(function: Any) -> bool:
    return hasattr(function, "forward") and hasattr(function, "parameters")


def check_tokenizer(model: Any, tokenizer: Any) -> None:
    """Refuse a local model without a tokenizer, where none is given beside it.

    Raises:
        ConfigError: There is none, or one without a token.
    """
    if not tokenizer and isinstance(model, str) and Path(model).is_dir():
        with loading(model, "model"):
            load_tokenizer(model)


def check_fit(model: Any, tokenizer: Any) -> None:
    """Refuse what would end a training when its model is saved, or when that is loaded again.

    A generation config that only says too little is mended in place (see `models.generation`).

    Args:
        model: The trainer's, not yet wrapped.
        tokenizer: Its tokenizer.

    Raises:
        ConfigError: Tokens without an embedding, or a generation config that transformers would not save.
    """
    if seen := beyond_embedding(tokenizer, model.config.get_text_config()):
        raise ConfigError(
            seen,
            expected="a tokenizer whose tokens the model has",
            where="processing_class",
            fix="tokenizer.pad_token = tokenizer.eos_token where that is what pads, or "
            "model.resize_token_embeddings(len(tokenizer))",
        )
    generation = getattr(model, "generation_config", None)
    make_savable(generation)
    why = None if generation is None or isinstance(model, PeftModel) else unsavable(generation)  # adapters go alone
    if why:
        raise ConfigError(
            f"the model's generation_config could not be saved with the trained model: {why}",
            expected="one that transformers saves",
            where="model",
            fix="correct model.generation_config, or set it to GenerationConfig()",
        )


def check_prompts(rows: Any, tokenizer: Any, template_kwargs: Mapping[str, Any]) -> None:
    """Refuse a data set without prompts, or with some that the chat template refuses.

    Raises:
        DataError: With what there is instead.
    """
    columns = list(rows.column_names)
    if "prompt" not in columns:
        raise DataError(
            f"train_dataset has no column 'prompt'{hint('prompt', columns)}; it has {', '.join(columns) or 'none'}",
            expected="a prompt in each row, text or messages, beside the columns that the rewards take",
            where="train_dataset",
            fix="rename the column: train_dataset.rename_column(..., 'prompt')",
        )
    if not len(rows):
        raise DataError(
            "train_dataset has no rows", expected="at least one prompt", where="train_dataset", fix="pass some rows"
        )
    first = rows[0]["prompt"]
    if not isinstance(first, str | list):
        raise DataError(
            f"the first prompt is {first!r}",
            expected="text, or messages with a role and a content",
            where="train_dataset",
            fix="leave rows without a prompt out",
        )
    if isinstance(first, list):
        own = [name for name in OF_A_ROW if name in columns]
        check_rendering(rows.select_columns(["prompt", *own]) if own else (), "train_dataset")
        through_template(tokenizer, first, add_generation_prompt=True, tokenize=False, **template_kwargs)


def check_same_stream(
    demonstrations: Any,
    tokenizer: Any,
    *,
    ends: Sequence[int],
    template_kwargs: Mapping[str, Any],
    after: Any,
    sampled: Callable[[list[Any]], list[list[int]]],
    scorer: Scorer | None,
) -> None:
    """Look at a few demonstrations token by token (see `inputs.same_stream`); rows of token ids are left as they are.

    Args:
        demonstrations: Those of the trainer.
        tokenizer: The policy's.
        ends: Tokens that end a completion.
        template_kwargs, after: As for `tokenize_demonstrations`.
        sampled: Gives the token ids that rollouts of prompts start from.
        scorer: Of the rewards of one completion.

    Raises:
        DataError: What is trained is not what is sampled.
    """
    if {"input_ids", "labels"} <= set(demonstrations[0]):
        return
    some = demonstrated(demonstrations, tokenizer, template_kwargs=template_kwargs, after=after, sampled=sampled)
    pool = scorer.pool if scorer else None

    def score(index: int, texts: list[str], rows: list[Mapping[str, Any]]) -> Sequence[Outcome]:
        assert pool is not None
        return pool.score(index, texts, [as_seen(dict(row)) for row in rows])

    rewards = pool.rewards if pool else []
    for note in refuse(list(differences(some, tokenizer, ends, rewards, score if pool else None))):
        warnings.warn(note, stacklevel=5)


def check_alike(rows: Any, demonstrations: Any) -> None:
    """Refuse demonstrations that would be rendered otherwise than the prompts.

    Raises:
        DataError: The ones are text, the others conversations.
    """
    first = next(iter(demonstrations), None)
    if not isinstance(first, Mapping) or "prompt" not in first or "input_ids" in first:
        return
    kinds = ["text" if isinstance(row["prompt"], str) else "conversations" for row in (rows[0], first)]
    if kinds[0] != kinds[1] and first["prompt"] is not None:
        message = "{'prompt': [{'role': 'user', 'content': TEXT}], 'completion': [{'role': 'assistant', ...}]}"
        raise DataError(
            f"the prompts of train_dataset are {kinds[0]}, and those of the demonstrations {kinds[1]}",
            expected="both of one kind: conversations go through the chat template, text does not, so that SFT and "
            "GRPO would train on two different prompts",
            where="demonstrations",
            fix=f"write demonstrations as {message}"
            if kinds[1] == "text"
            else "write the prompts as conversations, or the demonstrations as text",
        )
