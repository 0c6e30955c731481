"""Whether a recipe's rewards apply to its rows at all: what nothing scores, GRPO samples for nothing, in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.errors import ConfigError, RewardError
from posttrain.recipe.recipe import Recipe
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.score import Outcome, Reward
from posttrain.scoring.scorer import message_text
from posttrain.tasks import TaskData, own_rewards

FIRST, MORE = 4, 60
"""Gold completions that a reward is tried on, and how many more when it applies to none of these."""

Row = dict[str, Any]


def uses_rewards(recipe: Recipe) -> bool:
    """Whether any step is trained on rewards."""
    return bool(recipe.hybrid.steps and recipe.hybrid.controller.shares()[1])


def check_tasks_covered(recipe: Recipe, rewards: Sequence[Reward], rows: Sequence[Row]) -> None:
    """Refuse a mixture with prompts of a task that no reward applies to.

    Args:
        recipe: Names the tasks.
        rewards: Those of the recipe, routed to their tasks.
        rows: The prompts.

    Raises:
        ConfigError: With what to add.
    """
    own = own_rewards(recipe.task)
    if len(own) < 2 or not uses_rewards(recipe):
        return
    counts = Counter(row["task"] for row in rows)
    left = {
        task: count
        for task, count in counts.items()
        if not any(reward.weight and reward.applies_to({"task": task}) for reward in rewards)
    }
    if not left:
        return
    which = " and ".join(f"{count} of the {len(rows)} prompts, those of {task}" for task, count in left.items())
    adds = " and ".join(f"`- name: {own[task]}`" if own[task] else f"one for {task}" for task in left)
    raise ConfigError(
        f"no reward applies to {which}",
        expected="a reward with a weight for each task of a mixture; where `rewards` names any, the tasks' own are "
        "not added",
        where=recipe.where("rewards"),
        fix=f"add {adds} to rewards, or name {' and '.join(left)} in the `tasks` of one of them",
    )


@dataclass(frozen=True)
class Tried:
    """What a reward made of gold completions.

    Attributes:
        reward: Its name.
        weight: Its weight.
        tried: Gold completions of rows that it is for.
        scored: How many of these it scored.
        failed: How many it failed on.
        error: What it failed by first.
        tasks: The tasks it is for; None: all.
        sources: The sources it is for; None: all.
    """

    reward: str
    weight: float
    tried: int
    scored: int
    failed: int
    error: str
    tasks: frozenset[str] | None
    sources: frozenset[str] | None = None

    @classmethod
    def of(cls, reward: Reward, outcomes: Sequence[Outcome]) -> Tried:
        """From the outcomes of the rows that it is for."""
        errors = [outcome.error for outcome in outcomes if outcome.error]
        scored = sum(outcome.score is not None for outcome in outcomes)
        error = errors[0] if errors else ""
        routes = reward.tasks, reward.sources
        return cls(reward.name, reward.weight, len(outcomes), scored, len(errors), error, *routes)

    @property
    def idle(self) -> bool:
        """Whether it was tried and scored nothing."""
        return self.tried > 0 and not self.scored


def check_score_something(recipe: Recipe, rewards: Sequence[Reward], data: TaskData) -> None:
    """Refuse a reward that scores no gold completion where no other scores those rows: GRPO would learn nothing.

    Raises:
        RewardError: With what it gave.
    """
    if not uses_rewards(recipe):
        return
    for alone, error in idle_rewards(try_rewards(recipe, rewards, data)):
        if alone:
            raise error


def try_rewards(recipe: Recipe, rewards: Sequence[Reward], data: TaskData) -> list[Tried]:
    """Call the rewards of one completion on a few gold ones, under the recipe's limits, in a worker process.

    One that scores some of the first few is done with; one that scores none of them is tried on more, unless it fails
    on some. TRL-style functions want what only training has, and are not tried.

    Raises:
        RewardError: A reward cannot be sent to a worker.
    """
    called = [reward for reward in rewards if reward.style == "score" and (reward.judges or reward.of_group)]
    if not called or not data.demonstrations:
        return []
    limits = recipe.scoring.model_dump(include={"workers", "time_limit_s", "memory_limit_mb"})
    limits["workers"] = 1 if limits["workers"] is None else min(1, limits["workers"])
    with RewardPool(called, **limits) as pool:
        done = {id(reward): _try(reward, index, pool, data.demonstrations) for index, reward in enumerate(called)}
    return [done.get(id(reward)) or Tried.of(reward, []) for reward in rewards]


def _try(reward: Reward, index: int, pool: RewardPool, demonstrations: Sequence[Row]) -> Tried:
    rows = [row for row in demonstrations if reward.applies_to(row)]
    size = min(FIRST + MORE, len(rows))
    rows = [rows[place * len(rows) // size] for place in _spread(size)]
    outcomes: list[Outcome] = []
    for some in (rows[:FIRST], rows[FIRST:]):
        texts = [message_text(row["completion"]) for row in some]
        outcomes += pool.score(index, texts, [as_seen(row) for row in some])
        if any(outcome.score for outcome in outcomes) or any(outcome.error for outcome in outcomes):
            break
    return Tried.of(reward, outcomes)


def _spread(size: int) -> list[int]:
    """The numbers below `size`, the first few from all over it."""
    first = [place * size // FIRST for place in range(FIRST)] if size > FIRST else list(range(size))
    return [*first, *(place for place in range(size) if place not in first)]


def as_seen(row: Row) -> Row:
    """A row as a reward of one completion sees it."""
    return {**{key: value for key, value in row.items() if key != "completion"}, "prompt": message_text(row["prompt"])}


def idle_rewards(tried: Sequence[Tried]) -> Iterator[tuple[bool, RewardError]]:
    """What is wrong with rewards that scored no gold completion, and whether nothing else scores their rows.

    Args:
        tried: Every reward of the recipe; one that could not be tried may score all its rows.
    """
    for one in tried:
        if not one.idle:
            continue
        others = [each for each in tried if (each.scored or not each.tried) and each.weight and _shares_rows(each, one)]
        if one.failed == one.tried:
            seen = f"it failed on all {one.tried} gold completions that it was tried on, the first time by: {one.error}"
            fix = "correct the reward; `posttrain rewards check` shows more of what it does"
        else:
            failed = f"; it failed on {one.failed}, the first time by: {one.error}" if one.failed else ""
            seen = f"it applies to none of {one.tried} gold completions: it returned None{failed}"
            fix = "does it forget `return`? `posttrain rewards check` shows what it gives; else leave it out"
        rows = "" if others else "; no other reward scores these rows, so that GRPO would learn nothing from them"
        yield (
            not others,
            RewardError(
                seen + rows,
                expected="a number in [0, 1] or a Score for a demonstration's own completion; None is for rows that "
                "the reward is not for",
                where=f"reward {one.reward!r}",
                fix=fix,
            ),
        )


def _shares_rows(one: Tried, other: Tried) -> bool:
    """Whether a reward is for all rows that another one is for."""
    routes = (one.tasks, other.tasks), (one.sources, other.sources)
    return all(its is None or (others is not None and others <= its) for its, others in routes)
