"""The recipes of the toolbox: each changes what it says of one base, and the study's arms are these very recipes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from posttrain.recipe.recipe import load_recipe
from posttrain.study.study import Study

RECIPES = Path(__file__).parents[2] / "recipes"
TOOLS = sorted(path for path in (RECIPES / "toolbox").glob("*.yaml") if path.stem != "base")


@cache
def settings(path: Path) -> dict[str, Any]:
    """What a recipe comes to, without where its run lives and what its evaluations look at beside greedy pass@1."""
    return _compared(load_recipe(path).resolved())


def _compared(resolved: dict[str, Any]) -> dict[str, Any]:
    run = {key: value for key, value in resolved["run"].items() if key != "dir"}
    beside = ("every", "times", "k", "samples")
    evaluate = {key: value for key, value in resolved["evaluate"].items() if key not in beside}
    return resolved | {"run": run, "evaluate": evaluate}


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_each_differs_from_the_base_and_from_the_others(path: Path) -> None:
    assert settings(path) != settings(RECIPES / "toolbox/base.yaml")
    assert all(settings(path) != settings(other) for other in TOOLS if other != path)
    assert load_recipe(path).run.dir == f"runs/toolbox-{path.stem.replace('_', '-')}"


def test_the_arms_of_the_study_are_the_recipes() -> None:
    study = Study(RECIPES / "studies/toolbox.yaml")
    assert study.reference == "plain"
    for name, changed in study.arms.items():
        path = RECIPES / "toolbox" / f"{'base' if name == 'plain' else name}.yaml"
        overrides = [f"{key}={json.dumps(value)}" for key, value in changed.items()]
        assert _compared(load_recipe(RECIPES / "toolbox/base.yaml", overrides).resolved()) == settings(path), name


def test_the_page_has_a_line_for_each() -> None:
    lines = (RECIPES.parent / "docs/toolbox.md").read_text().splitlines()
    for path in TOOLS:
        link = f"| [{path.stem}](../recipes/toolbox/{path.name}) |"
        assert sum(line.startswith(link) for line in lines) == 1, path.stem
