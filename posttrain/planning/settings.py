"""Every resolved value of a recipe, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from posttrain.nearest import display
from posttrain.recipe.recipe import Recipe
from posttrain.recipe.yamlfile import COMMAND_LINE, DEFAULT
from posttrain.rundir.masking import without_secrets

Source = Literal["default", "parent", "recipe", "command line"]


@dataclass(frozen=True)
class Setting:
    """One value.

    Attributes:
        key: Dotted.
        value: In JSON's types.
        source: `recipe`: the file itself. `parent`: one that it extends.
        at: `file:line`; empty for a default and for the command line.
    """

    key: str
    value: Any
    source: Source
    at: str = ""


def settings(recipe: Recipe, path: str | Path) -> list[Setting]:
    """All values in the order of the recipe's sections, secrets masked as in a run's recipe.yaml.

    Args:
        recipe: As `load_recipe` made it.
        path: Its file.
    """
    values = dict(_leaves(without_secrets(recipe.resolved())))
    return [_setting(key, values[key], origin, display(Path(path))) for key, origin in recipe.provenance().items()]


def _setting(key: str, value: Any, origin: str, file: str) -> Setting:
    if origin == DEFAULT:
        return Setting(key, value, "default")
    if origin == COMMAND_LINE:
        return Setting(key, value, "command line")
    return Setting(key, value, "recipe" if origin.rpartition(":")[0] == file else "parent", origin)


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """As `Recipe.provenance` names them: an empty mapping or list is a value."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    pairs = list(items)
    if not pairs:
        yield at, value
    for key, item in pairs:
        yield from _leaves(item, f"{at}.{key}" if at else str(key))
