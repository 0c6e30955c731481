"""STUDY.yaml: what is compared, over which seeds, at what cost. Importing this loads no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from posttrain.errors import ConfigError
from posttrain.nearest import display
from posttrain.recipe.mistakes import explain, raise_all, where_in
from posttrain.recipe.section import Count, Section, Size
from posttrain.recipe.shipped import PREFIX
from posttrain.recipe.stage_sections import BudgetSection
from posttrain.recipe.yamlfile import Layer, read_layer

Overrides = dict[str, Any]
"""Dotted recipe keys and their values."""

Grid = dict[str, Annotated[list[Any], Field(min_length=1)]]
"""Dotted recipe keys, each with the values that are tried."""

OF_THE_STUDY = ("run.seed", "run.dir", "hybrid.budget", "hybrid.time_limit_s")
"""Recipe keys that a study sets itself, the same for all arms."""

REFERENCE = "switch"
"""The arm that others are compared with, if there is one of that name."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class TuneSection(Section):
    """How each arm gets its best setting, before its runs that are judged.

    Args:
        seed: Of the tuning runs, and so of their held-out problems where the task draws them.
        grid: Recipe keys and the values that each arm tries, all combinations.
        arms: More keys for single arms, or other values for a key of `grid`.
        further: By key of a grid, how many values beyond it an arm may try, one after the other, for as long as its
            best value is the last one on that side. Each is the last by the ratio of the last two.
        overrides: Recipe keys that tuning runs have otherwise, such as another file of held-out problems.
    """

    seed: Count
    grid: Grid = {}
    arms: dict[str, Grid] = {}
    further: dict[str, Size] = {}
    overrides: Overrides = {}


class ForgettingSection(Section):
    """A second held-out set, on which every arm is evaluated at its end, and the start and the warm-up with it.

    Args:
        recipe: Whose task and rewards judge.
    """

    recipe: str


class StudyFile(Section):
    """What STUDY.yaml holds.

    Args:
        recipe: The recipe that all arms start from; a path is from the folder of the study.
        budget: What each arm's hybrid stage may spend.
        seeds: Of the runs that are judged.
        tune: How each arm gets its best setting; null takes the recipe's.
        arms: By name, the recipe keys in which an arm differs.
        reference: The arm that the others are compared with; null takes `switch`, or the first.
        evaluations: Evaluations of an arm spread over its budget, the final one among them; null leaves the recipe's.
        forgetting: A second held-out set; null has none.
    """

    recipe: str
    budget: BudgetSection
    seeds: Annotated[list[Count], Field(min_length=1)]
    tune: TuneSection | None = None
    arms: Annotated[dict[str, Overrides], Field(min_length=2)]
    reference: str | None = None
    evaluations: Size | None = None
    forgetting: ForgettingSection | None = None

    @model_validator(mode="after")
    def _seeds(self) -> StudyFile:
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds {self.seeds}", expected="different ones", where="seeds")
        if self.tune and self.tune.seed in self.seeds:
            raise ConfigError(
                f"tune.seed {self.tune.seed} is among the seeds {self.seeds}",
                expected="a seed of its own: what is tuned on a problem is not judged by it",
                where="tune.seed",
                fix="take another one, such as 100",
            )
        return self


def read_study(path: Path) -> tuple[StudyFile, Layer]:
    """A study's file, and where each of its keys was written.

    Raises:
        ConfigError: With file, line, key, what was expected and the nearest legal key, for every problem found.
    """
    layer = read_layer(path)
    try:
        file = StudyFile.model_validate(layer.data)
    except ValidationError as error:
        raise_all(explain(error, StudyFile, layer, layer.data), display(path))
        raise AssertionError("a validation error without a problem") from error
    raise_all(list(_problems(file, layer)), display(path))
    return file, layer


def _problems(file: StudyFile, layer: Layer) -> list[ConfigError]:
    found = []

    def wrong(key: tuple[str | int, ...], seen: str, expected: str, fix: str | None = None) -> None:
        found.append(ConfigError(seen, expected=expected, where=where_in(layer, key), fix=fix))

    for arm, overrides in file.arms.items():
        if not _NAME.fullmatch(arm):
            wrong(("arms", arm), f"an arm called {arm!r}", "letters, digits, _, - and .: it names a folder")
        for key in overrides:
            taken = next((own for own in OF_THE_STUDY if key == own or key.startswith(f"{own}.")), None)
            if taken:
                wrong(("arms", arm, key), f"{key} in the arm {arm}", f"no {taken}, which the study sets for all")
            for place in ("grid", "arms"):
                if key in _tuned_keys(file, arm, place):
                    wrong(
                        ("arms", arm, key),
                        f"{key}, which is tuned",
                        "a key that is set or tuned, not both",
                        f"leave it out here, or write tune: {{arms: {{{arm}: {{{key}: [...]}}}}}} for other values",
                    )
    if file.tune:
        for name in file.tune.arms:
            if name not in file.arms:
                wrong(("tune", "arms", name), f"{name!r} is no arm", f"one of {', '.join(file.arms)}")
        for key in file.tune.further:
            grids = [grid[key] for grid in (file.tune.grid, *file.tune.arms.values()) if key in grid]
            if not grids:
                wrong(("tune", "further", key), f"{key}, which no grid has", "a key of tune.grid or tune.arms")
            elif not all(_goes_on(values) for values in grids):
                seen = f"{key} has the values {next(values for values in grids if not _goes_on(values))}"
                wrong(("tune", "further", key), seen, "two different numbers above 0 or more, to know the next by")
    if file.reference is not None and file.reference not in file.arms:
        wrong(("reference",), f"{file.reference!r} is no arm", f"one of {', '.join(file.arms)}")
    return found


def _goes_on(values: list[Any]) -> bool:
    numbers = [
        value for value in values if isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    ]
    return len(numbers) == len(values) and len(set(numbers)) > 1


def _tuned_keys(file: StudyFile, arm: str, place: str) -> Mapping[str, Any]:
    if file.tune is None:
        return {}
    own = file.tune.arms.get(arm, {})
    return own if place == "arms" else {key: file.tune.grid[key] for key in file.tune.grid if key not in own}


def recipe_path(name: str, folder: Path) -> str | Path:
    """Where a recipe that a study names lies."""
    return name if name.startswith(PREFIX) else folder / Path(name).expanduser()
