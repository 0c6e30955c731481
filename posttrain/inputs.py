"""What a run is made from, checked before a model loads: rows, rewards, and whether there is such a model at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posttrain.config import Recipe
from posttrain.data import check_disjoint
from posttrain.errors import ConfigError, DataError, PosttrainError
from posttrain.reward import Reward, load_reward
from posttrain.sections import RewardConfig
from posttrain.tasks import TaskData


def load_data(recipe: Recipe) -> TaskData:
    """The task's rows, checked: rows to evaluate on, none of them trained on.

    Raises:
        DataError: There are no evaluation rows, or training has seen some of them.
    """
    data = recipe.task.load(recipe.run.seed)
    if not data.eval:
        raise DataError(
            "the task has no evaluation rows",
            expected="at least one held-out row: every run is evaluated at its end",
            where=recipe.where("task.eval"),
            fix="set task.eval above 0, some hundreds for a useful interval",
        )
    check_disjoint(data.eval, data.train, data.demonstrations)
    return data


def load_rewards(recipe: Recipe, data: TaskData, functions: Iterable[Callable[..., Any]] = ()) -> list[Reward]:
    """The recipe's rewards and the given functions, their columns checked against the data.

    Raises:
        RewardError: A reward cannot be loaded, or takes a column that the data does not have.
    """
    sources: list[Any] = [*recipe.rewards, *functions] or [RewardConfig(name=recipe.task.reward)]
    rewards = [load_reward(source) for source in sources]
    for reward in rewards if data.train else []:
        reward.check_columns(set(data.train[0]))
    return rewards


@contextmanager
def loading(source: str | Path, where: str) -> Iterator[None]:
    """Turn what transformers raises for a model that is not there into an error that names the key.

    Args:
        source: The hub id or folder that the block loads.
        where: The key or argument that named it.

    Raises:
        ConfigError: There is no such folder, or the block could not load the model.
    """
    if _looks_like_a_path(str(source)) and not Path(source).expanduser().is_dir():
        raise ConfigError(
            f"there is no folder {str(source)!r}",
            expected="a folder with config.json, weights and tokenizer, or a hub id such as owner/name",
            where=where,
            fix=f"correct the path; it starts at {Path.cwd()}",
        )
    try:
        yield
    except PosttrainError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the model {str(source)!r} cannot be loaded: {(str(error).strip() or repr(error)).splitlines()[0]}",
            expected="a hub id that can be reached, or a folder with config.json, weights and tokenizer",
            where=where,
            fix="correct the name, or download the model and name its folder",
        ) from error


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1
