"""STUDY.yaml: what is refused, where it was written, and the runs that come of it."""

from __future__ import annotations

import pytest

from posttrain.errors import ConfigError
from posttrain.study.study import Study

RECIPE = """
model: {init: {hidden_size: 32, layers: 2, heads: 2, vocab_size: 300, max_position_embeddings: 160}}
task: {name: knights_knaves, people: [2], train: 10, eval: 8, demonstrations: 12}
warmup: {steps: 5}
hybrid: {steps: 6, per_device_train_batch_size: 8, grpo: {num_generations: 2, max_completion_length: 12}}
run: {device: cpu}
"""
STUDY = """recipe: recipe.yaml
budget: {steps: 6}
seeds: [0, 1]
tune:
  seed: 100
  grid: {hybrid.learning_rate: [1.0e-4, 1.0e-3]}
arms:
  warmup: {hybrid.steps: 0}
  sft_only: {hybrid.controller: sft_only}
  switch: {hybrid.controller: {name: switch, at: 0.5}}
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def make(text: str = STUDY, **changes: str) -> Study:
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "study.yaml").write_text(text)
        return Study(tmp_path / "study.yaml", tmp_path / "dir")

    return make


def test_arms_are_the_recipe_with_their_keys(study):
    made = study()
    recipe = made.recipe("switch", 1)
    assert recipe.hybrid.controller.name == "switch"
    assert (recipe.run.seed, recipe.hybrid.budget.steps) == (1, 6)
    assert made.recipe("warmup", 0).hybrid.budget is None
    assert made.reference == "switch"
    assert made.points("warmup") == []  # without a hybrid stage there is nothing to tune
    assert made.points("sft_only") == [{"hybrid.learning_rate": 1e-4}, {"hybrid.learning_rate": 1e-3}]
    assert made.recipe("sft_only", 100, {"hybrid.learning_rate": 1e-4}, tuning=True).hybrid.learning_rate == 1e-4


def test_arms_of_a_seed_share_a_warm_up_unless_they_change_it(study):
    made = study(**{"sft_only: {": "longer: {warmup.steps: 6}\n  sft_only: {"})
    of = {arm: made.final(arm, 0, {}).begins_from for arm in made.arms}
    other = of.pop("longer")
    assert of == dict.fromkeys(("warmup", "sft_only", "switch"), "warmups/seed0")
    assert other.startswith("warmups/seed0-")
    again = study(**{"sft_only: {": "longer: {warmup.steps: 6}\n  sft_only: {"})
    assert again.final("longer", 0, {}).begins_from == other  # whichever arm is looked at first
    assert made.final("switch", 1, {}).begins_from == "warmups/seed1"
    warmup = made.warmup_of(made.final("longer", 0, {}))
    assert (warmup.recipe.warmup.steps, warmup.recipe.hybrid.steps) == (6, 0)


def test_an_arms_own_grid_stands_beside_the_common_one(study):
    made = study(**{"arms:\n  warmup": "  arms: {switch: {hybrid.controller.at: [0.25, 0.5]}}\narms:\n  warmup"})
    assert len(made.points("switch")) == 4
    assert len(made.points("sft_only")) == 2
    point = {"hybrid.learning_rate": 1e-3, "hybrid.controller.at": 0.25}
    assert made.recipe("switch", 100, point, tuning=True).hybrid.controller.at == 0.25


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds: [0, 1]", "seeds: [0, 0]", "different ones"),
        ("seeds: [0, 1]", "seeds: [0, 100]", "a seed of its own"),
        ("seeds: [0, 1]", "seed: [0, 1]", r"study.yaml:3: seed"),
        ("budget: {steps: 6}", "budget: {steps: 6, seconds: 3}", "one of seconds, tokens, flops and steps"),
        ("hybrid.controller: sft_only", "hybrid.controler: sft_only", r"study.yaml:9.*controler(.|\n)*controller"),
        ("hybrid.controller: sft_only", "run.seed: 3", "the study sets"),
        ("hybrid.controller: sft_only", "hybrid.budget: {steps: 3}", "the study sets"),
        ("hybrid.controller: sft_only", "hybrid.learning_rate: 1.0", "set or tuned, not both"),
        ("hybrid.controller: sft_only", "hybrid.controller: {name: switch, at: 0.5}", "switch is the same as sft_only"),
        ("[1.0e-4, 1.0e-3]", "[1.0e-4, fast]", r"study.yaml:6.*learning_rate"),
        ("  seed: 100", "  seed: 100\n  arms: {swich: {hybrid.learning_rate: [1.0]}}", "is no arm"),
        ("recipe: recipe.yaml", "recipe: recip.yaml", r"study.yaml:1: recipe: (.|\n)*did you mean (.|\n)*recipe.yaml"),
        ("seeds: [0, 1]", "seeds: [0, 1]\nreference: sasr", "is no arm"),
    ],
)
def test_what_is_refused(study, old, new, said):
    with pytest.raises(ConfigError) as refused:
        study(**{old: new})
    import re

    assert re.search(said, str(refused.value)), str(refused.value)
