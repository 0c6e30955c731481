"""What a reward is and what it returns: `Score`, `Reward`, and one guarded call of one reward.

A reward is `score(completion: str, *, <columns it needs>, **row) -> float | Score | None`: one completion in, one
score in [0, 1] out, None when it does not apply. TRL-style functions (`completions, **columns -> list[float]`)
are taken as they are.

What training fills in: a reward of one completion that names an argument `group_completions` is a vote, and gets the
texts of all completions of the prompt; `completion_tokens` is how many tokens were sampled. A column of that name in
the data goes first. A function's attributes, if it has them: `check_kwargs` is called with the reward's kwargs when it
is loaded; `prepare`, with all of them as `kwargs` if it names that, once in each worker process before the first
completion's time begins; `only_in_training` says that it applies to no row elsewhere.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from posttrain.errors import RewardError
from posttrain.nearest import hint

#: What GRPOTrainer hands to reward functions besides the columns of the data set.
TRL_EXTRAS = frozenset({"trainer_state", "log_extra", "log_metric", "environments"})
_TRL_ARGUMENTS = frozenset({"prompts", "completions", "completion_ids"}) | TRL_EXTRAS
#: What a reward that judges a completion by its group is given: the texts of the group's completions, its own too.
GROUP = "group_completions"
#: What a reward that judges a completion's length is given: the tokens that were sampled of it.
LENGTH = "completion_tokens"
#: The column that says which source a row is from.
SOURCE = "source"
#: Columns that GRPOTrainer keeps from reward functions.
NOT_FOR_TRL = frozenset({"prompt", "completion", "completion_ids"})
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Score:
    """A reward's verdict on one completion.

    Args:
        value: In [0, 1]; `True` and `False` count as 1 and 0.
        parts: Named sub-scores, for the logs and the viewer only: the policy is trained on `value`.
        parsed: What the reward understood the completion to say.
        note: Why, in words.
        bounded: False lifts the [0, 1] rule, for TRL-style functions, whose scale is their own.

    Raises:
        RewardError: `value` or a part is not a finite number, or `value` is outside [0, 1].
    """

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    parsed: Any = None
    note: str = ""
    bounded: bool = True

    def __post_init__(self) -> None:
        value = as_number(self.value, "Score.value")
        if self.bounded:
            if not -_ROUNDING <= value <= 1 + _ROUNDING:
                raise RewardError(f"a score of {value!r}", expected="a value in [0, 1]", where="Score.value")
            value = min(max(value, 0.0), 1.0)
        object.__setattr__(self, "value", value)
        parts = {str(key): as_number(part, f"Score.parts[{key!r}]") for key, part in self.parts.items()}
        object.__setattr__(self, "parts", parts)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of scoring one completion: a score, an error, or neither (the reward does not apply).

    `seconds` is what the reward itself took; of a batch function, each completion's share.
    """

    score: Score | None = None
    error: str | None = None
    seconds: float = 0.0

    @property
    def value(self) -> float | None:
        """The number that training sees; None when there is no score."""
        return None if self.score is None else self.score.value


def as_number(value: Any, where: str) -> float:
    """A finite float from a Python, NumPy or 0-d tensor number; anything else is a RewardError."""
    if type(value) is float and math.isfinite(value):  # by far the most; asking about numbers.Real takes microseconds
        return value
    if not isinstance(value, numbers.Real) and callable(getattr(value, "item", None)):
        with contextlib.suppress(ValueError, RuntimeError):  # several elements: reported below as what it is
            value = value.item()
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise RewardError(f"{_short(value)} ({type(value).__name__})", expected="a finite number", where=where)
    return float(value)


@dataclass(frozen=True)
class Reward:
    """A reward function, how it wants to be called, and where it came from. Build one with `from_callable`.

    Args:
        name: Its key in logs, tables and metrics.
        function: What is called.
        weight: Its factor in the sum of rewards.
        kwargs: Fixed keyword arguments; they win over columns of the same name.
        style: `score` takes one completion, `trl` takes TRL's batch of `completions, **columns`.
        source: The file that defines the function, if there is one.
        source_sha256: SHA-256 of that file, so that a resumed run notices a changed reward.
        tasks: The tasks it applies to: a row whose column `task` names another is not scored. None: to every row.
        sources: The sources it applies to: a row whose column `source` names another, or none, is not scored. None: to
            every row.
    """

    name: str
    function: Callable[..., Any]
    weight: float = 1.0
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    style: Literal["score", "trl"] = "score"
    source: str | None = None
    source_sha256: str | None = None
    tasks: frozenset[str] | None = None
    sources: frozenset[str] | None = None

    @classmethod
    def from_callable(
        cls,
        function: Callable[..., Any],
        weight: float = 1.0,
        name: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        tasks: Iterable[str] | None = None,
        sources: Iterable[str] | None = None,
    ) -> Reward:
        """Wrap a function, reading its calling style from its signature.

        Raises:
            RewardError: it is not callable, has neither a `completion` nor a `completions` argument, does not
                take one of `kwargs`, or is an async function of one completion.
        """
        name = name or callable_name(function)
        parameters = _parameters(function, name)
        style: Literal["score", "trl"]
        if "completions" in parameters:
            style = "trl"
        elif "completion" in parameters:
            style = "score"
        else:
            raise RewardError(
                f"arguments ({', '.join(parameters)})",
                expected="score(completion, *, <columns>, **row) or TRL's (completions, **columns)",
                where=f"reward {name!r}",
                fix="name the first argument `completion`",
            )
        if style == "score" and inspect.iscoroutinefunction(inspect.unwrap(function)):
            raise RewardError(
                "an async function of one completion",
                where=f"reward {name!r}",
                fix="make it a plain function, or an async TRL-style one that takes the whole batch",
            )
        kwargs = dict(kwargs or {})
        if not _takes_any(parameters):
            for key in kwargs:
                if key not in parameters:
                    raise RewardError(
                        f"no argument {key!r}{hint(key, parameters)}",
                        expected="one of " + ", ".join(parameters),
                        where=f"kwargs of reward {name!r}",
                    )
        if check := getattr(function, "check_kwargs", None):
            check(**kwargs)
        path, digest = _source(function)
        routed = (None if names is None else frozenset(names) for names in (tasks, sources))
        return cls(name, function, float(weight), kwargs, style, path, digest, *routed)

    @functools.cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The function's parameters by name."""
        return _parameters(self.function, self.name)

    @functools.cached_property
    def _takes_any(self) -> bool:
        return _takes_any(self.parameters)

    @property
    def of_group(self) -> bool:
        """Whether a completion is scored by what the others of its group say."""
        return self.style == "score" and GROUP in self.parameters

    @property
    def judges(self) -> bool:
        """Whether it can judge a completion of an evaluation: not by its group, nor by what only training fills in."""
        return not self.of_group and not self._only_in_training

    @property
    def _only_in_training(self) -> bool:
        return getattr(self.function, "only_in_training", False)

    @property
    def of_length(self) -> bool:
        """Whether a completion's sampled tokens are counted for the reward."""
        return self.style == "score" and LENGTH in self.parameters

    def with_length(self, row: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """A row with the tokens that were sampled, which a column of that name stays in the place of.

        Such a column was what the argument asked for before training filled anything in; what applies to training alone
        asks for no column.
        """
        return {**row, LENGTH: tokens} if self._only_in_training else {LENGTH: tokens, **row}

    def required_columns(self) -> list[str]:
        """The arguments without a default that a column of the data set has to fill."""
        ours = _TRL_ARGUMENTS if self.style == "trl" else {"completion"}
        return [
            key
            for key, parameter in self.parameters.items()
            if key not in ours
            and key not in (GROUP, LENGTH)
            and key not in self.kwargs
            and parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ]

    def check_columns(self, columns: Iterable[str]) -> None:
        """Compare the signature with the columns of the data set, before anything runs.

        Raises:
            RewardError: a required argument is no column; names the nearest column and all of them.
        """
        if self.style == "trl":
            available = sorted(set(columns) - NOT_FOR_TRL)
        else:
            available = sorted(set(columns) | {"prompt"})
        for key in self.required_columns():
            if key not in available:
                raise RewardError(
                    f"the data has no column {key!r}{hint(key, available)}",
                    expected=f"a column for every required argument; the data has {', '.join(available)}",
                    where=f"reward {self.name!r}",
                    fix=f"rename the column, give the argument a default, or set kwargs: {{{key}: ...}}",
                )

    def applies_to(self, row: Mapping[str, Any]) -> bool:
        """Whether the row is of one of the reward's tasks, and of one of its sources.

        A row without the column `task` is of the only task, and one without the column `source` of the only source:
        workers are sent what a function takes alone. A row whose `source` is empty is of none.
        """
        if self.tasks is not None and "task" in row and row["task"] not in self.tasks:
            return False
        if self.sources is None or SOURCE not in row:
            return True
        return row[SOURCE] is not None and str(row[SOURCE]) in self.sources

    def columns(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The part of `row` that the function's signature takes."""
        any_key, taken, kwargs = self._takes_any, self.parameters, self.kwargs
        return {
            key: value
            for key, value in row.items()
            if (any_key or key in taken) and key not in kwargs and key not in ("completion", "completions")
        }

    def arguments(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The part of `row` that the function's signature takes, with `kwargs` on top."""
        return self.columns(row) | dict(self.kwargs)


def describe(error: BaseException) -> str:
    """An exception in one line, as outcomes carry it."""
    if isinstance(error, RewardError):
        return " ".join(str(error).split())
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:500]}" if lines else type(error).__name__


def callable_name(function: Callable[..., Any]) -> str:
    """A function's own name, through `functools.partial`; a callable object's class name."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def _parameters(function: Callable[..., Any], name: str) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError) as error:
        raise RewardError(
            f"{_short(function)} has no readable signature",
            expected="a Python function",
            where=f"reward {name!r}",
        ) from error


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _source(function: Callable[..., Any]) -> tuple[str | None, str | None]:
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    try:
        file = inspect.getsourcefile(function if hasattr(function, "__code__") else type(function))
        return (file, hashlib.sha256(Path(file).read_bytes()).hexdigest()) if file else (None, None)
    except (TypeError, OSError):
        return None, None  # built in, or typed at a prompt: there is no file to fingerprint


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
