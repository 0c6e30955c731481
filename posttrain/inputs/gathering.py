"""All that a run is made from but its model, gathered before anything heavy is loaded: a mistake costs a second."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from posttrain.inputs.applying import check_score_something
from posttrain.inputs.four_bit import check_four_bit
from posttrain.inputs.inputs import check_folder, load_data, load_judges, load_rewards
from posttrain.models.gguf_files import gguf_file
from posttrain.recipe.recipe import Recipe
from posttrain.scoring.score import Reward
from posttrain.tasks import TaskData


@dataclass(frozen=True)
class Inputs:
    """What a run is made from, checked.

    Attributes:
        data: The task's rows.
        rewards: What the policy is trained by.
        judges: What judges the evaluations.
    """

    data: TaskData
    rewards: list[Reward]
    judges: list[Reward]


def gather(recipe: Recipe, functions: Iterable[Callable[..., Any]] = (), data: TaskData | None = None) -> Inputs:
    """Load a recipe's rows and rewards, and see that the model's folder or file is there. Loads no torch.

    Args:
        recipe: The recipe.
        functions: Rewards beside the recipe's.
        data: Rows to take instead of those that the recipe's task would load.

    Raises:
        ConfigError, DataError, RewardError: As `load_data`, `load_rewards`, `load_judges`, `check_folder` and
            `check_four_bit`.
    """
    check_four_bit(recipe)
    name, where = recipe.model.gguf or recipe.model.name, recipe.where("model")
    if name and gguf_file(name, where) is None:
        check_folder(name, where)
    functions = list(functions)
    data = data or load_data(recipe, functions=functions)
    rewards = load_rewards(recipe, data, functions)
    judges = load_judges(recipe, data, rewards)
    check_score_something(recipe, rewards, data)
    return Inputs(data, rewards, judges)
