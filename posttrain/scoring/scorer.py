"""Scoring batches with several rewards: errors isolated and counted, and the bridge to TRL.

Import these from `posttrain.scoring.loading`, the public face.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from posttrain.errors import RewardError
from posttrain.scoring.calling import score_batch, score_completion
from posttrain.scoring.score import GROUP, TRL_EXTRAS, Outcome, Reward

if TYPE_CHECKING:
    from posttrain.processes.ranks import Ranks
    from posttrain.scoring.pool import RewardPool

T = TypeVar("T")

#: What a row may have beside the columns that GRPOTrainer hands on; `prompt` is handed on apart from them.
_NO_COLUMNS = frozenset({"prompt", "completion", "completion_ids"}) | TRL_EXTRAS
_KEPT_ERRORS = 200
_KEPT_TEXT = 4000  # characters of a completion kept with its error


class Scorer:
    """Several rewards, scored one batch at a time.

    An exception, or a value that is no score, costs only its own completion: it is counted, kept in `errors`
    with the completion, and scored None. When too many fail, the run stops.

    Args:
        rewards: In the order of the outcomes; a repeated name gets a number.
        max_error_rate: Share of failures of one reward, over its last `window` completions, above which scoring
            raises.
        window: How many of the latest completions the share is taken over.
        min_seen: No share is taken of fewer completions than this.
        pool: Worker processes that have these rewards, to score in; TRL-style functions stay in this process.
        ranks: The processes that score a batch together, each its share, in the order of their numbers. Failures are
            counted over all of them, so that several stop after as many completions as one would, and all at once.

    Attributes:
        errors: The latest failures, oldest first, at most 200: dicts of `reward`, `prompt`, `completion`, `error`.
            The caller may clear it after logging them.
        error_count: All failures so far.
        weights: The rewards' weights, in order, as TRL's `reward_weights` wants them.
        group: Completions of a prompt, which follow each other over all processes; `None` where they are no groups.
    """

    def __init__(
        self,
        rewards: Sequence[Reward],
        *,
        max_error_rate: float = 0.5,
        window: int = 200,
        min_seen: int = 20,
        pool: RewardPool | None = None,
        ranks: Ranks | None = None,
    ):
        self.rewards = list(rewards)
        self.pool, self.ranks = pool, ranks
        self.group: int | None = None
        self.names = _unique_names([reward.name for reward in self.rewards])
        self.weights = [reward.weight for reward in self.rewards]
        self.max_error_rate, self.min_seen = max_error_rate, min_seen
        self.errors: list[dict[str, str]] = []
        self.error_count = 0
        self._failed: list[deque[bool]] = [deque(maxlen=window) for _ in self.rewards]
        self._latest: list[deque[dict[str, str]]] = [deque(maxlen=window) for _ in self.rewards]

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: Mapping[str, Sequence[Any]],
        completion_ids: Sequence[Sequence[int]] | None = None,
        trainer_state: Any = None,
        **extras: Any,
    ) -> list[list[Outcome]]:
        """Score a batch of B completions with every reward.

        Args:
            prompts, completions: Length B, text or conversations.
            columns: Lists of length B, by column name.
            completion_ids, trainer_state, extras: Only TRL-style functions see these.

        Returns:
            One list of B outcomes for each reward.

        Raises:
            RewardError: a reward fails too often; shows the worst examples.
        """
        if trainer_state is not None:
            extras["trainer_state"] = trainer_state
        return [
            self.score_one(index, prompts, completions, columns, completion_ids, extras)
            for index in range(len(self.rewards))
        ]

    def score_one(
        self,
        index: int,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: Mapping[str, Sequence[Any]],
        completion_ids: Sequence[Sequence[int]] | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> list[Outcome]:
        """Score a batch with one reward; arguments as in `__call__`."""
        reward = self.rewards[index]
        texts = [message_text(completion) for completion in completions]
        prompt_texts = [message_text(prompt) for prompt in prompts]
        groups = self._groups(texts, index) if reward.of_group and self.group else None

        def score() -> list[Outcome]:
            if not completions:  # of this process; the others may have some
                return []
            if reward.style == "trl":
                ids = {} if completion_ids is None else {"completion_ids": completion_ids}
                return score_batch(reward, prompts, completions, columns, {**ids, **(extras or {})})
            rows = [
                {"prompt": prompt} | {key: values[i] for key, values in columns.items() if key != "prompt"}
                for i, prompt in enumerate(prompt_texts)
            ]
            if groups is not None:
                rows = [{GROUP: groups[i], **row} for i, row in enumerate(rows)]
            if reward.of_length and completion_ids is not None:
                rows = [reward.with_length(row, len(ids)) for row, ids in zip(rows, completion_ids, strict=True)]
            return score_rows(reward, texts, rows, self.pool)

        outcomes = score() if self.ranks is None else self.ranks.together(score)
        self._count(index, prompt_texts, texts, outcomes)
        return outcomes

    def _groups(self, texts: list[str], index: int) -> list[list[str]]:
        """The completions of the group of each of this process's; a group may lie on two processes."""
        shares = [texts] if self.ranks is None else self.ranks.gathered(texts)
        first = 0 if self.ranks is None else sum(map(len, shares[: self.ranks.number]))
        every, size = [text for share in shares for text in share], self.group or 1
        if len(every) % size:
            error = RewardError(
                f"{len(every)} completions at once, groups of {size}",
                expected="whole groups: the reward judges a completion by the others of its prompt",
                where=f"reward {self.names[index]!r}",
            )
            error.shared = self.ranks is not None and self.ranks.count > 1
            raise error
        starts = [place // size * size for place in range(first, first + len(texts))]
        return [every[start : start + size] for start in starts]

    def _gathered(self, values: list[T]) -> list[T]:
        """The values of all processes, in the order of the batch."""
        if self.ranks is None:
            return values
        return [value for share in self.ranks.gathered(values) for value in share]

    def _count(self, index: int, prompts: Sequence[str], texts: Sequence[str], outcomes: Sequence[Outcome]) -> None:
        failed = self._failed[index]
        failed.extend(self._gathered([outcome.error is not None for outcome in outcomes]))
        for prompt, text, outcome in zip(prompts, texts, outcomes, strict=True):
            if outcome.error is None:
                continue
            self.error_count += 1
            entry = {
                "reward": self.names[index],
                "prompt": prompt[:_KEPT_TEXT],
                "completion": text[:_KEPT_TEXT],
                "error": outcome.error,
            }
            self._latest[index].append(entry)
            self.errors.append(entry)
        del self.errors[:-_KEPT_ERRORS]
        if len(failed) >= self.min_seen and sum(failed) > self.max_error_rate * len(failed):
            error = RewardError(
                f"{sum(failed)} of the last {len(failed)} completions could not be scored\n"
                + _worst(self._gathered(list(self._latest[index]))),
                expected=f"at most {self.max_error_rate:.0%} failures",
                where=f"reward {self.names[index]!r}",
                fix="repair the reward for such completions, or raise max_error_rate",
            )
            error.shared = self.ranks is not None and self.ranks.count > 1
            raise error


def score_rows(
    reward: Reward, completions: Sequence[str], rows: Sequence[Mapping[str, Any]], pool: RewardPool | None = None
) -> list[Outcome]:
    """Score completions with one reward, in the worker processes of `pool` when there are any.

    Args:
        completions, rows: Length B; a row's `prompt` is text for a reward that takes one completion.
        pool: A pool that has the reward.
    """
    if pool is None or reward.style == "trl":
        return [score_completion(reward, text, row) for text, row in zip(completions, rows, strict=True)]
    return pool.score(pool.index(reward), completions, rows)


def row_of(example: Mapping[str, Any]) -> dict[str, Any]:
    """A row as rewards of one completion see it, of an example as the trainer draws it from the data set."""
    columns = {name: value for name, value in example.items() if name not in _NO_COLUMNS}
    return {"prompt": message_text(example["prompt"]), **columns}


def _worst(errors: Sequence[dict[str, str]], shown: int = 3, width: int = 160) -> str:
    """The most frequent errors, each with how often and the head of its latest completion."""
    counts = Counter(entry["error"] for entry in errors)
    latest = {entry["error"]: entry["completion"] for entry in errors}
    return "\n".join(
        f"  {count}x {error}\n     on {latest[error][:width]!r}{'...' if len(latest[error]) > width else ''}"
        for error, count in counts.most_common(shown)
    )


def trl_reward_functions(scorer: Scorer) -> list[Callable[..., list[float | None]]]:
    """One function per reward, to be given to `GRPOTrainer(reward_funcs=...)` (weights: `scorer.weights`).

    Each is called as TRL calls reward functions, returns unweighted values, and keeps the outcomes of its last
    batch in its attribute `last_outcomes`, which have the parts and notes that TRL has no place for. The attributes
    `scorer` and `index` say which reward it is.
    """
    return [_trl_function(scorer, index) for index in range(len(scorer.rewards))]


def _trl_function(scorer: Scorer, index: int) -> Callable[..., list[float | None]]:
    def reward_function(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        extras = {key: columns.pop(key) for key in list(columns) if key in TRL_EXTRAS}
        outcomes = scorer.score_one(index, prompts, completions, columns, completion_ids, extras)
        reward_function.last_outcomes = outcomes  # type: ignore[attr-defined]
        return [outcome.value for outcome in outcomes]

    reward_function.__name__ = reward_function.__qualname__ = scorer.names[index]
    reward_function.last_outcomes = []  # type: ignore[attr-defined]
    reward_function.scorer, reward_function.index = scorer, index  # type: ignore[attr-defined]
    return reward_function


def message_text(text: Any) -> str:
    """Plain text of a prompt or completion: text as it is; of a conversation, the last assistant message.

    A conversation without an assistant message gives all its contents, one a line.
    """
    if isinstance(text, str):
        return text
    if isinstance(text, Mapping):
        text = [text]
    for message in reversed(text):
        if message.get("role") == "assistant":
            return _content(message)
    return "\n".join(_content(message) for message in text)


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content)


def _unique_names(names: Sequence[str]) -> list[str]:
    unique: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in unique:
            candidate, number = f"{name}_{number}", number + 1
        unique.append(candidate)
    return unique
