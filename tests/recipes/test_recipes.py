"""Every recipe that ships loads, contradicts nothing, and survives being written out resolved."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from posttrain.config import Recipe, load_recipe
from posttrain.plan import batch_plan, check, describe

RECIPES = Path(__file__).parents[2] / "recipes"
NOT_RECIPES = {"base", "accelerate"}
FILES = sorted(path for path in RECIPES.rglob("*.yaml") if not NOT_RECIPES & set(path.relative_to(RECIPES).parts))


def test_there_are_recipes() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_recipe_loads_and_has_a_plan(path: Path) -> None:
    recipe = load_recipe(path)
    check(recipe)
    plan = batch_plan(recipe, prompts=recipe.task.train, demonstrations=recipe.task.demonstrations)
    assert plan.generation_batch % recipe.hybrid.grpo.num_generations == 0
    assert describe(recipe, plan)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_resolved_recipe_is_the_same_recipe(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(recipe.resolved(), text)
    (tmp_path / "recipe.yaml").write_text(text.getvalue())
    again = load_recipe(tmp_path / "recipe.yaml")
    assert again.resolved() == recipe.resolved()


@pytest.mark.parametrize("path", sorted((RECIPES / "base").glob("*.yaml")), ids=lambda path: path.name)
def test_base_has_only_legal_keys(path: Path, tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    model = "" if path.name == "tiny.yaml" else "model: some/model\n"
    child.write_text(f"extends: {path}\n{model}task: knights_knaves\n")
    assert isinstance(load_recipe(child), Recipe)
