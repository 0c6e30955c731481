"""Pass rates before a stage: measured once, and the order of an easy-to-hard curriculum that comes of them."""

from __future__ import annotations

import json
import re

import pytest

from posttrain.curricula.easy_to_hard import easy_to_hard
from posttrain.errors import ConfigError
from posttrain.evaluation.curriculum import measured, pass_rates
from posttrain.recipe.contradictions import contradictions
from posttrain.recipe.recipe import load_recipe

ROWS = [{"prompt": text, "answer": text} for text in ("none", "quarter", "half", "All", "half again")]
RATES = [0.0, 0.25, 0.5, 1.0, 0.5]


@pytest.mark.parametrize(
    ("rates", "order"),
    [
        ([0, 0.25, 0.5, 1], [3, 2, 1]),
        ([0.5, 1, 0.5, 1, 0], [1, 3, 0, 2]),
        ([0, 0], []),
        ([], []),
        ([1, 1, 1], [0, 1, 2]),
    ],
)
def test_never_solved_are_left_out_and_ties_stay_as_they_stood(rates, order):
    assert easy_to_hard(rates) == order


def test_pass_rates_are_those_of_the_samples_and_else_of_the_greedy_completion():
    def line(row, sample, passed):
        return {"row": row, "sample": sample, "passed": passed}

    greedy = [line(0, None, True), line(1, None, False), line(2, None, True)]
    sampled = [line(0, number, number == 0) for number in range(4)] + [line(1, number, True) for number in range(4)]
    assert pass_rates(greedy, 3) == [1.0, 0.0, 1.0]
    assert pass_rates(greedy + sampled, 3) == [0.25, 1.0, 1.0]


def test_measured_once_and_read_back_from_the_file(tmp_path):
    file, calls = tmp_path / "run" / "pass_rates.jsonl", []

    def measure():
        calls.append(1)
        return RATES

    for _ in range(2):
        assert measured(ROWS, file, measure) == RATES
    assert calls == [1]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["pass_rate"] for line in lines] == RATES


def test_rates_from_elsewhere_decide_by_prompt(tmp_path):
    file = tmp_path / "pass_rates.jsonl"
    file.write_text('{"prompt": "half", "pass_rate": 1}\n{"prompt": "none", "pass_rate": 0.1}\n')
    assert measured(ROWS, file, list) == [0.1, 0.0, 1.0, 0.0, 0.0]


def test_a_curriculum_without_a_name_is_easy_to_hard_and_another_takes_its_place(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: some/model\ntask: knights_knaves\nhybrid: {curriculum: {samples: 4}}\n")
    own = load_recipe(recipe).hybrid.curriculum
    assert (own.name, own.samples, own.completions) == ("easy_to_hard", 4, 4)
    assert load_recipe(recipe, ["hybrid.curriculum.samples=2"]).hybrid.curriculum.completions == 2
    other = load_recipe(recipe, ["hybrid.curriculum={name: dump, source: people}"]).hybrid.curriculum
    assert (other.name, other.temperature, other.completions) == ("dump", 0.1, 0)
    assert load_recipe(recipe, ["hybrid.curriculum=bots"]).hybrid.curriculum.target == 0.5
    with pytest.raises(ConfigError, match="temperatur"):
        load_recipe(recipe, ["hybrid.curriculum={name: dump, temperatur: 1}"])
    with pytest.raises(ConfigError, match=r"easy_fraction: 0.9, and hard_fraction: 0.2"):
        load_recipe(recipe, ["hybrid.curriculum={name: difficulty_pools, easy_fraction: 0.9, hard_fraction: 0.2}"])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["hybrid.controller=sft_only"], "the curriculum bots, but the controller sft_only takes no GRPO step"),
        (["hybrid.method=uft"], "the method uft begins them with demonstrations"),
        (
            ["rollout={engine: vllm, mode: server, server_base_url: 'http://localhost:1', ahead: 1}"],
            r"1, with a curriculum",
        ),
    ],
)
def test_what_a_curriculum_does_not_go_with_is_refused(tmp_path, overrides, says):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: some/model\ntask: knights_knaves\nhybrid: {curriculum: bots}\n")
    found = contradictions(load_recipe(recipe, overrides))
    assert any(re.search(says, str(each)) for each in found), found
    assert not contradictions(load_recipe(recipe))


def test_a_curriculum_keeps_the_order_of_the_prompts(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: some/model\ntask: knights_knaves\nhybrid: {curriculum: {samples: 4}}\n")
    assert load_recipe(recipe).hybrid.trl_kwargs()["shuffle_dataset"] is False
    assert "shuffle_dataset" not in load_recipe(recipe, ["hybrid.curriculum=null"]).hybrid.trl_kwargs()
    with pytest.raises(ConfigError, match="one order of the prompts"):
        load_recipe(recipe, ["hybrid.args.shuffle_dataset=true"])
