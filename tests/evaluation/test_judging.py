"""Whether a completion passes: several rewards' scores as one, and what they are of."""

from __future__ import annotations

import pytest

from posttrain.errors import ConfigError, RewardError
from posttrain.evaluation.judging import judge, judged, passes, weighed
from posttrain.inputs.inputs import load_data, load_judges, load_rewards
from posttrain.recipe.recipe import load_recipe
from posttrain.rundir.completions import Completion
from posttrain.scoring.score import Outcome, Reward, Score


def reward(weight: float, name: str = "r") -> Reward:
    return Reward.from_callable(lambda completion: 0.0, weight, name)


def outcome(value: float | None) -> Outcome:
    return Outcome() if value is None else Outcome(Score(value, note=f"note {value:g}"))


@pytest.mark.parametrize(
    ("weights", "scores", "value"),
    [
        ([0.3], [0.7], 0.7),  # a weight alone changes nothing
        ([1.0, 0.1], [1.0, 1.0], 1.0),
        ([1.0, 0.1, 0.2, 0.7], [1.0] * 4, 1.0),
        ([1.0, 0.1], [1.0, 0.0], 1 / 1.1),
        ([3.0, 1.0], [0.0, 1.0], 0.25),
        ([1.0, 1.0], [0.5, None], 0.5),  # what does not apply does not weigh
        ([1.0, -0.5], [1.0, 1.0], 0.5),  # a penalty takes from what can be had
        ([1.0, -0.5], [1.0, 0.0], 1.0),
        ([1.0, -0.5], [None, 1.0], None),  # nothing that a problem could pass by
        ([1.0, 1.0], [None, None], None),
    ],
)
def test_the_mean_is_by_weight_over_what_applies(weights, scores, value):
    got = weighed([reward(each) for each in weights], [outcome(each) for each in scores])
    assert got.value == (None if value is None else pytest.approx(value, abs=1e-12))


def test_a_failure_of_one_is_a_failure():
    assert weighed([reward(1), reward(1)], [outcome(1.0), Outcome(error="broken")]).error == "broken"


def test_notes_say_whose_they_are_where_there_are_several():
    several = weighed([reward(1, "a"), reward(1, "b")], [outcome(1.0), outcome(0.0)])
    assert several.score is not None
    assert several.score.note == "a 1 (note 1); b 0 (note 0)"
    one = weighed([reward(1, "a"), reward(1, "b")], [outcome(None), outcome(0.0)])
    assert one.score is not None
    assert one.score.note == "note 0"


@pytest.mark.parametrize(
    ("value", "threshold", "passed"),
    [
        (1.0, 1.0, True),
        (1 - 1e-6, 1.0, False),
        (0.3 / 0.4, 0.75, True),
        (0.74, 0.75, False),
        (None, 0.1, False),
    ],
)
def test_a_completion_passes_from_the_threshold_on(value, threshold, passed):
    assert passes(outcome(value), threshold) == passed
    assert not passes(Outcome(error="broken"), threshold)


def test_a_trl_style_judge_is_called_as_trl_does():
    seen = {}

    def batch(prompts, completions, completion_ids, answer, **columns):
        seen.update(prompts=prompts, completions=completions, ids=completion_ids, answer=answer)
        return [1.0, None]

    rows = [{"prompt": [{"role": "user", "content": "a"}], "answer": "x"}, {"prompt": "b", "answer": "y"}]
    said = [Completion("one", [1], 1, False), Completion("two", [2, 3], 2, False)]
    assert [each.value for each in judged([Reward.from_callable(batch)], rows, said, None)] == [1.0, None]
    assert seen["completions"] == [[{"role": "assistant", "content": "one"}], "two"]
    assert (seen["ids"], seen["answer"]) == ([[1], [2, 3]], ["x", "y"])


TASK = "model: m\ntask: {name: knights_knaves, people: [2], split: statements, train: 4, eval: 3, demonstrations: 2}\n"


def judges(tmp_path, text: str, *overrides: str):
    (tmp_path / "r.yaml").write_text(TASK + text)
    (tmp_path / "mine.py").write_text("def score(completion, **row):\n    return 1.0\n")
    recipe = load_recipe(tmp_path / "r.yaml", overrides)
    data = load_data(recipe)
    return judge(load_judges(recipe, data, load_rewards(recipe, data)), recipe.evaluate.threshold)


@pytest.mark.parametrize(
    ("text", "named", "threshold"),
    [
        ("", [("knights_knaves", 1.0)], 1.0),
        ("rewards: [{path: mine.py}]", [("mine", 1.0)], 1.0),
        ("rewards: [{path: mine.py}, {name: format, weight: 0.1}]", [("mine", 1.0), ("format", 0.1)], 1.0),
        ("rewards: [{path: mine.py}, {name: format, weight: 0.0}]", [("mine", 1.0)], 1.0),
        ("rewards: [format]\nevaluate: {reward: knights_knaves}", [("knights_knaves", 1.0)], 1.0),
        ("rewards: [format]\nevaluate: {reward: {path: mine.py}, threshold: 0.5}", [("mine", 1.0)], 0.5),
        (
            "rewards: [{name: majority, kwargs: {of: knights_knaves}}, {name: format, weight: 0.1}]",
            [("knights_knaves", 1.0)],
            1.0,
        ),
        (
            "rewards: [knights_knaves, {name: length_budget, weight: 0.2}]\nhybrid: {length_budget: {start: 9}}",
            [("knights_knaves", 1.0)],
            1.0,
        ),
        ("evaluate: {reward: [{path: mine.py, weight: 2}, format]}", [("mine", 2.0), ("format", 1.0)], 1.0),
    ],
)
def test_the_recipe_says_what_judges(tmp_path, text, named, threshold):
    found = judges(tmp_path, text)
    assert [(each["name"], each["weight"]) for each in found["rewards"]] == named
    assert found["threshold"] == threshold


def test_the_command_line_says_it_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for override in ("evaluate.reward=format", "evaluate.reward=[format]", "evaluate.reward={name: format}"):
        assert judges(tmp_path, "", override)["rewards"] == [{"name": "format", "weight": 1.0}]


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("rewards: [{name: format, weight: 0.0}]", ConfigError, r"weight above 0(.|\n)*reward: knights_knaves"),
        ("evaluate: {reward: {name: format, weight: -1}}", ConfigError, "weight above 0"),
        ("evaluate: {reward: math_answer}", RewardError, "no column 'answer'"),
        ("evaluate: {reward: []}", ConfigError, "evaluate.reward"),
        ("evaluate: {reward: {name: majority, kwargs: {of: knights_knaves}}}", ConfigError, "judged one by one"),
        (
            "rewards: [{name: majority, kwargs: {of: knights_knaves}}]\nhybrid: {method: hpt}",
            ConfigError,
            "votes in a group, whose rows the method hpt",
        ),
        ("evaluate: {reward: {path: absent.py}}", ConfigError, r"evaluate.reward.0.path: .*absent.py does not exist"),
        ("evaluate: {reward: {path: ../x.py}}", ConfigError, "leads out of the folder"),
        ("evaluate: {threshold: 0}", ConfigError, "evaluate.threshold"),
        ("evaluate: {threshold: 1.5}", ConfigError, "evaluate.threshold"),
    ],
)
def test_what_cannot_judge_is_refused(tmp_path, text, error, said):
    with pytest.raises(error, match=said):
        judges(tmp_path, text)


@pytest.mark.parametrize(("written", "k"), [("8", [8]), ("[1, 8]", [1, 8])])
def test_one_k_is_a_list_of_one(tmp_path, written, k):
    (tmp_path / "r.yaml").write_text(TASK)
    assert load_recipe(tmp_path / "r.yaml", [f"evaluate.k={written}", "evaluate.samples=8"]).evaluate.k == k


def test_no_k_at_all_is_refused(tmp_path):
    (tmp_path / "r.yaml").write_text(TASK)
    for written in ("0", "[]", "null", "true"):
        with pytest.raises(ConfigError, match=r"evaluate\.k"):
            load_recipe(tmp_path / "r.yaml", [f"evaluate.k={written}"])
