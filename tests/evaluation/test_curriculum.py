"""The order of a curriculum: never-solved prompts left out, the rest from easy to hard."""

from __future__ import annotations

import json

import pytest

from posttrain.errors import ConfigError, DataError
from posttrain.evaluation.curriculum import easy_to_hard, ordered, pass_rates
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
        assert [row["prompt"] for row in ordered(ROWS, file, measure)] == ["All", "half", "half again", "quarter"]
    assert calls == [1]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["pass_rate"] for line in lines] == RATES
    assert ordered(ROWS, file, measure)[0] is ROWS[3]


def test_rates_from_elsewhere_decide_by_prompt(tmp_path):
    file = tmp_path / "pass_rates.jsonl"
    file.write_text('{"prompt": "half", "pass_rate": 1}\n{"prompt": "none", "pass_rate": 0.1}\n')
    assert [row["prompt"] for row in ordered(ROWS, file, list)] == ["half", "none"]


def test_nothing_solved_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"none of the 5 prompts was ever solved(.|\n)*curriculum\.model=warmup"):
        ordered(ROWS, tmp_path / "pass_rates.jsonl", lambda: [0.0] * 5)


def test_a_curriculum_keeps_the_order_of_the_prompts(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: some/model\ntask: knights_knaves\nhybrid: {curriculum: {samples: 4}}\n")
    assert load_recipe(recipe).hybrid.trl_kwargs()["shuffle_dataset"] is False
    assert "shuffle_dataset" not in load_recipe(recipe, ["hybrid.curriculum=null"]).hybrid.trl_kwargs()
    with pytest.raises(ConfigError, match="one order of the prompts"):
        load_recipe(recipe, ["hybrid.args.shuffle_dataset=true"])
