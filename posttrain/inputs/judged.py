"""Which rewards judge which rows: each task's own, or those that the recipe names, routed to their tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from posttrain.errors import ConfigError
from posttrain.recipe.recipe import Recipe
from posttrain.recipe.sections import RewardConfig
from posttrain.tasks import Judges, Task, TaskData, own_rewards

_BUILT_IN = "posttrain.rewards."


def rows_of(recipe: Recipe, *, task: Any = None, functions: Sequence[Callable[..., Any]] = ()) -> TaskData:
    """The rows of a recipe, without those that what judges them cannot read.

    Args:
        recipe: The recipe.
        task: In place of the recipe's own: the same one, asked for other numbers of rows.
        functions: Rewards beside the recipe's.

    Raises:
        ConfigError: A reward names a task that there is not.
        DataError: As the task says.
    """
    judges = Judges(
        training=_named(recipe, recipe.rewards, functions),
        evaluation=_named(recipe, *_judging(recipe, functions)),
    )
    return (task or recipe.task).load(recipe.run.seed, judges)


def _judging(
    recipe: Recipe, functions: Sequence[Callable[..., Any]]
) -> tuple[Sequence[RewardConfig], Sequence[Callable[..., Any]]]:
    named = recipe.evaluate.reward
    return (named, ()) if named else (recipe.rewards, functions)


def _named(
    recipe: Recipe, rewards: Iterable[RewardConfig], functions: Iterable[Callable[..., Any]]
) -> dict[str, frozenset[str]]:
    """Label of each task to the names of the rewards with a weight that judge its rows."""
    configs, functions = list(rewards), list(functions)
    if not configs and not functions:
        configs = own_reward_configs(recipe.task)
    found = [(routed(one, recipe.task).tasks, _name(one)) for one in configs if one.weight]
    found += [(None, _short(str(getattr(function, "__module__", "")))) for function in functions]
    return {
        label: frozenset(name for tasks, name in found if tasks is None or label in tasks)
        for label in own_rewards(recipe.task)
    }


def _name(reward: RewardConfig) -> str:
    """What a task knows it by. One of some sources alone is not what a task's rows have to be readable by."""
    name = reward.name or _short(reward.import_ or reward.path or "")
    return f"{name} of {', '.join(reward.sources)}" if reward.sources else name


def _short(source: str) -> str:
    """The name of a built-in reward that is named by its module; other sources as they are."""
    module = source.partition(":")[0]
    return module.removeprefix(_BUILT_IN) if module.startswith(_BUILT_IN) else source


def own_reward_configs(task: Task) -> list[RewardConfig]:
    """The task's own rewards as a recipe would name them; one that several tasks of a mixture share is there once."""
    own = own_rewards(task)
    tasks: dict[str, list[str]] = {}
    for label, reward in own.items():
        if reward is not None:
            tasks.setdefault(reward, []).append(label)
    return [RewardConfig(name=reward, tasks=labels if len(own) > 1 else None) for reward, labels in tasks.items()]


def routed(reward: RewardConfig, task: Task, key: str = "rewards") -> RewardConfig:
    """A reward that is one of a mixture's tasks' own applies to that task's rows, unless the recipe says otherwise."""
    own = own_rewards(task)
    unknown = sorted(set(reward.tasks or ()) - set(own))
    if unknown:
        raise ConfigError(
            f"the reward applies to {unknown[0]!r}",
            expected="tasks of the recipe: " + ", ".join(own),
            where=f"{key}.tasks",
            fix="a single task needs no `tasks`" if len(own) == 1 else None,
        )
    tasks = [name for name, its in own.items() if its == reward.name]
    return reward if reward.tasks or not tasks or len(own) == 1 else reward.model_copy(update={"tasks": tasks})
