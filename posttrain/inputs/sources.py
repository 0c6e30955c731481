"""Whether rewards that are routed by sources meet the rows: a source without a reward, and a name that no row has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from posttrain.errors import ConfigError
from posttrain.nearest import hint
from posttrain.recipe.recipe import Recipe
from posttrain.scoring.score import SOURCE, Reward
from posttrain.tasks import TaskData

SHOWN = 8
"""Sources that an error lists."""

Row = Mapping[str, Any]


def check_sources(recipe: Recipe, data: TaskData, key: str = "rewards") -> None:
    """Refuse sources that no row has.

    Args:
        recipe: Names rewards.
        data: The rows, those to evaluate on included.
        key: Which of the recipe's rewards: `rewards` or `evaluate.reward`.

    Raises:
        ConfigError: With the nearest source that there is.
    """
    configs = recipe.rewards if key == "rewards" else recipe.evaluate.reward or []
    if not any(config.sources for config in configs):
        return
    rows = [*data.train, *data.demonstrations, *data.eval]
    known = list(sources_of(rows))
    for place, config in enumerate(configs):
        for name in config.sources or ():
            if rows and name not in known:
                raise _unknown(name, known, rows, recipe.where(f"{key}.{place}.sources"))


def _unknown(name: str, known: Sequence[str], rows: Sequence[Row], where: str) -> ConfigError:
    if not known:
        columns = ", ".join(dict.fromkeys(column for row in rows[:1] for column in row))
        return ConfigError(
            f"the reward is for the source {name!r}, and no row has a column {SOURCE!r}; they have {columns}",
            expected=f"rows that say in a column {SOURCE} where they are from",
            where=where,
            fix=f"name the column that does, such as task.columns: {{{SOURCE}: COLUMN}}; of a mixture use `tasks`",
        )
    return ConfigError(
        f"the reward is for the source {name!r}, which no row has{hint(name, known)}",
        expected=f"values of the rows' column {SOURCE}: {_listed(known)}",
        where=where,
        fix="correct the name, or leave it out",
    )


def check_sources_covered(
    rewards: Sequence[Reward], rows: Sequence[Row], where: str, *, what: str = "prompts", key: str = "rewards"
) -> None:
    """Refuse rows of a source that no reward applies to, where rewards are routed by sources.

    Raises:
        ConfigError: With how many rows each such source has.
    """
    if not any(reward.sources for reward in rewards):
        return
    kinds = Counter((row.get("task"), row.get(SOURCE)) for row in rows)
    left: Counter[str] = Counter()
    for (task, source), count in kinds.items():
        row = {SOURCE: source, **({} if task is None else {"task": task})}
        if not any(reward.weight and reward.applies_to(row) for reward in rewards):
            left[f"the source {source!r}" if source is not None else f"rows without a {SOURCE}"] += count
    if not left:
        return
    which = _listed([f"{name} ({count:,} of the {len(rows):,} {what})" for name, count in left.items()])
    raise ConfigError(
        f"no reward applies to {which}",
        expected=f"a reward with a weight for each source: {_listed(list(sources_of(rows)))}",
        where=where,
        fix=f"add a reward for them to {key}, name them in the `sources` of one, or leave out the rows",
    )


def check_columns_by_source(rewards: Iterable[Reward], rows: Sequence[Row]) -> None:
    """Compare what a reward takes with the columns that its sources' rows have filled.

    Raises:
        RewardError: A column that it requires is empty in all rows of one of its sources, or is not there.
    """
    routed = [reward for reward in rewards if reward.sources]
    filled: dict[str, set[str]] = {}
    for row in rows if routed else ():
        names = {name for name, value in row.items() if value is not None and name != "completion"}
        filled.setdefault(str(row.get(SOURCE)), set()).update(names)
    for reward in routed:
        for name in sorted(reward.sources or ()):
            if name in filled:
                reward.check_columns(filled[name])


def sources_of(rows: Iterable[Row]) -> Counter[str]:
    """How many rows each source has, as text, in the order in which they first stand there."""
    return Counter(str(row[SOURCE]) for row in rows if row.get(SOURCE) is not None)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
