"""Every recipe that ships loads, contradicts nothing, and survives being written out resolved."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from posttrain.recipe.arithmetic import batch_plan, describe
from posttrain.recipe.contradictions import check
from posttrain.recipe.recipe import Recipe, load_recipe
from posttrain.study.study import Study

RECIPES = Path(__file__).parents[2] / "recipes"
NOT_RECIPES = {"base", "accelerate", "studies"}
STUDIES = sorted((RECIPES / "studies").glob("*.yaml"))
FILES = sorted(path for path in RECIPES.rglob("*.yaml") if not NOT_RECIPES & set(path.relative_to(RECIPES).parts))


def test_there_are_recipes() -> None:
    assert FILES


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_the_arms_of_a_study_go_with_their_recipe(path: Path) -> None:
    study = Study(path)
    if path.stem == "toolbox":
        assert study.reference == "plain"
        return  # what its arms are: test_toolbox.py
    if path.stem == "curricula":
        assert study.reference == "uniform"
        assert {"easy_to_hard", "dump", "bots", "difficulty_pools", "gain_rl"} < set(study.arms)
        return
    assert study.reference == "switch"
    if path.stem == "countdown_smollm2":
        assert set(study.arms) == {"sft_only", "switch"}
        return
    assert {"warmup", "sft_only", "grpo_only"} < set(study.arms)
    # Held-out problems follow the seed, so that what is tuned is not judged by the same ones
    assert all(study.grid_of(arm) for arm in study.arms if study.points(arm))
    assert study.tuning_seed not in study.file.seeds


def processes(path: Path) -> int:
    return 8 if path.stem.endswith("-8gpu") else 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_recipe_loads_and_has_a_plan(path: Path) -> None:
    recipe, number = load_recipe(path), processes(path)
    check(recipe, number)
    plan = batch_plan(recipe, number, prompts=recipe.task.train, demonstrations=recipe.task.demonstrations)
    assert plan.generation_batch % recipe.hybrid.grpo.num_generations == 0
    assert describe(recipe, plan)
    if recipe.hybrid.steps and recipe.hybrid.controller.needs_g_warmup:
        # SASR compares norms of both stages, and a norm grows with the noise of a smaller batch
        assert plan.demonstrations_per_step == plan.warmup_rows_per_step


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_header_says_how_to_run_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    header = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    assert 3 <= len(header) <= 14
    said, recipe = "\n".join(header), f"recipes/{path.relative_to(RECIPES)}"
    if processes(path) == 1:
        assert f"#   posttrain run {recipe}" in said
        return
    assert f"#   posttrain launch {recipe} --gpus 8\n" in said
    assert f"#   accelerate launch --config_file recipes/accelerate/ddp.yaml -m posttrain run {recipe}" in said


@pytest.mark.parametrize("path", [path for path in FILES if processes(path) > 1], ids=lambda path: path.name)
def test_a_node_does_the_one_gpu_recipe_with_larger_steps(path: Path) -> None:
    node, one = load_recipe(path), load_recipe(path.with_name(path.name.replace("-8gpu", "")))
    assert (node.model, node.task, node.rewards, node.lora) == (one.model, one.task, one.rewards, one.lora)
    counts = {"prompts": one.task.train, "demonstrations": one.task.demonstrations}
    large, small = batch_plan(node, 8, **counts), batch_plan(one, 1, **counts)
    assert large.completions_per_step == 4 * small.completions_per_step
    assert large.warmup_rows_per_step == 2 * small.warmup_rows_per_step
    assert large.warmup_epochs == pytest.approx(small.warmup_epochs)
    assert node.hybrid.steps * large.completions_per_step == 2 * one.hybrid.steps * small.completions_per_step


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
