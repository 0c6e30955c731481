"""The published protocols that ship as recipes say what their papers say."""

from __future__ import annotations

from pathlib import Path

from posttrain.recipe.recipe import load_recipe

PROTOCOLS = Path(__file__).parents[2] / "recipes" / "protocols"


def test_sasr_is_the_papers_rule_alone():
    recipe = load_recipe(PROTOCOLS / "sasr-gsm8k.yaml")
    controller = recipe.hybrid.controller
    assert (controller.name, controller.mode, controller.gamma) == ("sasr", "step", 1.0)
    assert (controller.kl_target, controller.refresh_every) == (None, 0)
    assert recipe.warmup.steps > 0
    assert recipe.lora is None


def test_the_second_half_of_the_warm_up_first_protocol_starts_from_the_first():
    first, second = (load_recipe(PROTOCOLS / f"warm-up-first-{half}.yaml") for half in (1, 2))
    assert second.model.name == f"{first.run.dir}/model"
    assert (first.hybrid.steps, second.warmup.steps) == (0, 0)
    assert (first.task.name, first.task.people) == ("knights_knaves", [3, 4, 5, 6, 7])
    assert (first.task.demonstrations, first.task.eval, first.warmup.learning_rate) == (4500, 500, 1e-6)
    assert (second.task.name, second.task.train, second.task.eval) == ("math", 100, 500)
    assert second.hybrid.controller.name == "grpo_only"
    assert (second.hybrid.grpo.loss_type, second.hybrid.grpo.scale_rewards) == ("dr_grpo", "none")


def test_the_first_half_holds_out_other_puzzles_than_it_shows():
    task = load_recipe(PROTOCOLS / "warm-up-first-1.yaml", ["task.demonstrations=45", "task.eval=10"]).task
    data = task.load(0)
    assert not {row["prompt"] for row in data.eval} & {row["prompt"] for row in data.demonstrations}
    assert {row["people"] for row in data.demonstrations} == {3, 4, 5, 6, 7}
    assert all("<think>" in row["completion"] for row in data.demonstrations)


def test_easy_to_hard_goes_by_the_base_models_pass_rates():
    recipe = load_recipe(PROTOCOLS / "easy-to-hard-kk.yaml")
    assert recipe.hybrid.curriculum is not None
    assert recipe.hybrid.curriculum.model == "base"
    assert recipe.hybrid.trl_kwargs()["shuffle_dataset"] is False
    assert (recipe.task.demonstrations, recipe.hybrid.controller.name) == (2000, "grpo_only")
    assert load_recipe(PROTOCOLS / "easy-to-hard-kk.yaml", ["hybrid.curriculum=null"]).hybrid.curriculum is None
