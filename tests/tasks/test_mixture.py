"""Several tasks in one recipe: their rows side by side, and each reward on its own task's rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset

from posttrain.errors import ConfigError, DataError, RewardError
from posttrain.inputs.inputs import load_data, load_rewards, task_rewards
from posttrain.recipe.contradictions import check
from posttrain.recipe.recipe import load_recipe
from posttrain.scoring.scorer import Scorer
from posttrain.tasks.mixture import _side_by_side
from posttrain.tasks.replay import wanted

RECIPE = """
model: some/model
task:
  - {name: knights_knaves, people: [2], train: 6, eval: 4, demonstrations: 3, prompt: short, split: content}
  - {name: math, path: sums.jsonl, train: 5, eval: 3, demonstrations: 2}
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    sums = [
        {"question": f"What is {n} + {n + 1}?", "answer": f"{n} + {n + 1} = {2 * n + 1}.\n#### {2 * n + 1}"}
        for n in range(10)
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
    file = tmp_path / "mixed.yaml"
    file.write_text(RECIPE)
    return file


def test_rows_of_both_tasks_say_which_they_are(recipe_file: Path) -> None:
    data = load_data(load_recipe(recipe_file))
    assert [row["task"] for row in data.train] == ["knights_knaves"] * 6 + ["math"] * 5
    assert [row["task"] for row in data.eval] == ["knights_knaves"] * 4 + ["math"] * 3
    assert len(data.demonstrations) == 5
    assert all(row["completion"] for row in data.demonstrations)
    # A table needs the same columns in every row
    assert len({frozenset(row) for row in data.train}) == 1
    assert Dataset.from_list(data.train)["answer"][6:] == [row["answer"] for row in data.train[6:]]


def test_each_reward_scores_its_own_rows(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    data = load_data(recipe)
    puzzles = [row for row in data.demonstrations if row["task"] == "knights_knaves"]
    sums = [row for row in data.demonstrations if row["task"] == "math"]
    rows = [puzzles[0], sums[0], puzzles[1], sums[1]]
    columns = {name: [row[name] for row in rows] for name in rows[0] if name not in ("prompt", "completion")}
    for rewards in (load_rewards(recipe, data), task_rewards(recipe.task)):
        scored = Scorer(rewards)([r["prompt"] for r in rows], [r["completion"] for r in rows], columns)
        values = {
            reward.name: [outcome.value for outcome in some] for reward, some in zip(rewards, scored, strict=True)
        }
        assert values == {"knights_knaves": [1.0, None, 1.0, None], "math_answer": [None, 1.0, None, 1.0]}


def test_a_reward_can_be_said_to_apply_to_some_tasks(recipe_file: Path) -> None:
    recipe_file.write_text(RECIPE + "rewards: [math_answer, knights_knaves, format, {name: format, tasks: [math]}]\n")
    recipe = load_recipe(recipe_file)
    tasks = [reward.tasks for reward in load_rewards(recipe, load_data(recipe))]
    assert tasks == [{"math"}, {"knights_knaves"}, None, {"math"}]


def test_a_task_that_is_not_in_the_mixture_is_refused(recipe_file: Path) -> None:
    recipe_file.write_text(RECIPE + "rewards: [{name: format, tasks: [maths]}]\n")
    recipe = load_recipe(recipe_file)
    with pytest.raises(ConfigError, match=r"(?s)'maths'.*tasks of the recipe: knights_knaves, math"):
        load_rewards(recipe, load_data(recipe))


def test_a_task_stands_in_a_mixture_once(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("model: some/model\ntask: [knights_knaves, {name: knights_knaves, people: [5]}]\n")
    with pytest.raises(ConfigError, match="knights_knaves stands there twice"):
        load_recipe(file)


def test_columns_of_two_kinds_are_kept_as_they_are() -> None:
    rows = _side_by_side({"a": [{"answer": "12", "id": 1}], "b": [{"answer": ["12"], "tests": {"x": 1}}]})
    assert [(row["task"], row["answer"]) for row in rows] == [("a", "12"), ("b", ["12"])]
    assert (rows[0]["tests"], rows[1]["id"]) == (None, None)


TWICE = """
model: some/model
task:
  - {name: math, label: sums, path: sums.jsonl, train: 5, eval: 3, demonstrations: 2}
  - {name: math, label: products, path: products.jsonl, train: 4, eval: 2}
"""


@pytest.fixture
def twice_file(recipe_file: Path) -> Path:
    rows = [{"question": f"What is {n} * 7?", "answer": str(7 * n), "unit": n} for n in range(8)]
    (recipe_file.parent / "products.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe_file.write_text(TWICE)
    return recipe_file


def test_two_tasks_of_one_kind_have_labels(twice_file: Path) -> None:
    recipe = load_recipe(twice_file)
    data = load_data(recipe)
    assert [row["task"] for row in data.train] == ["sums"] * 5 + ["products"] * 4
    (reward,) = load_rewards(recipe, data)
    assert (reward.name, reward.tasks) == ("math_answer", {"sums", "products"})
    assert load_rewards(recipe, data) == task_rewards(recipe.task)
    assert data.notes == [
        "sums: 10 rows: 3 held out, 5 prompts, 2 demonstrations",
        "products: 8 rows: 2 held out, 4 prompts, 2 not asked for",
    ]


def test_a_reward_names_a_label(twice_file: Path) -> None:
    twice_file.write_text(TWICE + "rewards: [math_answer, {name: format, tasks: [products]}]\n")
    recipe = load_recipe(twice_file)
    first, second = load_rewards(recipe, load_data(recipe))
    assert (first.tasks, second.tasks) == ({"sums", "products"}, {"products"})
    recipe = load_recipe(twice_file, ["rewards=[{name: format, tasks: [math]}]"])
    with pytest.raises(ConfigError, match=r"'math'(.|\n)*sums, products"):
        load_rewards(recipe, load_data(recipe))


def test_a_reward_of_a_column_that_one_file_has_applies_there(twice_file: Path) -> None:
    def units(completion: str, *, unit: int) -> float:
        return 1.0

    recipe = load_recipe(twice_file, ["rewards=[math_answer]"])
    (*_, reward) = load_rewards(recipe, load_data(recipe), [units])
    assert reward.tasks == {"products"}


@pytest.mark.parametrize("labels", [("a", "a"), ("math", None)])
def test_two_tasks_of_one_label_are_refused(twice_file: Path, labels: tuple[str, str | None]) -> None:
    text = TWICE.replace("label: sums", f"label: {labels[0]}")
    twice_file.write_text(text.replace("label: products, ", f"label: {labels[1]}, " if labels[1] else ""))
    with pytest.raises(ConfigError, match=f"the task {labels[0]} stands there twice(.|\n)*label: gsm8k"):
        load_recipe(twice_file)


def test_what_one_task_holds_out_no_other_trains_on(twice_file: Path) -> None:
    recipe = load_recipe(twice_file, ["task.tasks.1.path=" + str(twice_file.parent / "sums.jsonl")])
    data = load_data(recipe)
    held_out = {row["prompt"] for row in data.eval}
    assert held_out
    assert not held_out & {row["prompt"] for row in [*data.train, *data.demonstrations]}
    assert any("another task of the mixture evaluates on them" in note for note in data.notes)


def test_counts_left_open_are_not_taken_for_none(twice_file: Path) -> None:
    recipe = load_recipe(twice_file, ["warmup.steps=1"])
    assert (recipe.task.train, recipe.task.demonstrations, recipe.task.eval) == (9, None, 5)  # type: ignore[attr-defined]
    check(recipe)


def needs_a_sum(completion: str, *, answer: str, **row: object) -> float:
    return float(answer in completion)


def needs_what_nobody_has(completion: str, *, colour: str) -> float:
    return 0.0


def test_a_reward_applies_where_its_columns_are(recipe_file: Path) -> None:
    """The other task's rows have the column, too, for a table needs it; but there it is empty."""
    recipe_file.write_text(RECIPE + "rewards: [knights_knaves]\n")
    recipe = load_recipe(recipe_file)
    data = load_data(recipe)
    (*_, reward) = load_rewards(recipe, data, [needs_a_sum])
    assert reward.tasks == {"math"}
    assert reward.applies_to(data.train[-1])
    assert not reward.applies_to(data.train[0])


def test_a_column_that_no_task_has_is_refused(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    with pytest.raises(RewardError, match="no column 'colour'"):
        load_rewards(recipe, load_data(recipe), [needs_what_nobody_has])


def test_a_column_that_the_named_task_has_not_is_refused(recipe_file: Path) -> None:
    recipe_file.write_text(RECIPE + "rewards: [{name: math_answer, tasks: [knights_knaves]}]\n")
    recipe = load_recipe(recipe_file)
    with pytest.raises(RewardError, match="no column 'answer'"):
        load_rewards(recipe, load_data(recipe))


# ---- replay by share ----

REPLAYED = """
model: some/model
task:
  name: mixture
  tasks:
    - {name: math, label: new, path: sums.jsonl, train: 3, eval: 1, demonstrations: 6}
    - {name: math, label: old, path: products.jsonl, train: 20, eval: 5, demonstrations: 30}
  replay: {old: 0.25}
warmup: {steps: 4, per_device_train_batch_size: 4}
hybrid: {controller: sft_only}
"""


@pytest.fixture
def replaying(recipe_file: Path) -> Path:
    products = [{"question": f"What is {n} * 3?", "answer": f"{3 * n}\n#### {3 * n}"} for n in range(55)]
    (recipe_file.parent / "products.jsonl").write_text("".join(json.dumps(row) + "\n" for row in products))
    recipe_file.write_text(REPLAYED)
    return recipe_file


def test_old_rows_are_mixed_in_by_their_share_of_all(replaying: Path) -> None:
    recipe = load_recipe(replaying)
    data = load_data(recipe)
    assert [row["task"] for row in data.demonstrations] == ["new"] * 6 + ["old"] * 2  # 2 of 8 is a fourth
    assert [row["task"] for row in data.train] == ["new"] * 3 + ["old"]
    assert [row["task"] for row in data.eval] == ["new"] + ["old"] * 5, (
        "what is forgotten shows on the old held-out rows"
    )
    assert "old: 2 of 30 demonstrations are replayed, 0.25 of all 8" in data.notes
    assert "old: 1 of 20 prompts are replayed, 0.25 of all 4" in data.notes
    assert (recipe.task.demonstrations, recipe.task.train) == (8, 4)  # type: ignore[attr-defined]


def test_which_rows_depends_on_the_seed_alone(replaying: Path) -> None:
    def drawn(seed: int) -> list[str]:
        data = load_data(load_recipe(replaying, [f"run.seed={seed}", "task.replay.old=0.6"]))
        return [row["prompt"] for row in data.demonstrations if row["task"] == "old"]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    some = drawn(1)
    replaying.write_text(REPLAYED.replace("  replay: {old: 0.25}\n", ""))
    whole = load_data(load_recipe(replaying, ["run.seed=1"])).demonstrations
    in_order = [row["prompt"] for row in whole if row["task"] == "old"]
    assert [in_order.index(prompt) for prompt in some] == sorted(in_order.index(prompt) for prompt in some)


def test_an_old_task_without_prompts_replays_its_demonstrations_alone(replaying: Path) -> None:
    data = load_data(load_recipe(replaying, ["task.tasks.1.train=0"]))
    assert [row["task"] for row in data.train] == ["new"] * 3
    assert [row["task"] for row in data.demonstrations].count("old") == 2


def test_two_old_tasks_have_their_shares_together() -> None:
    assert wanted({"new": 60, "a": 100, "b": 100}, {"a": 0.1, "b": 0.3}) == {"a": 10, "b": 30}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("task.replay={older: 0.1}", r"no task 'older'(.|\n)*new, old"),
        ("task.replay={new: 0.5, old: 0.5}", r"a task that none is named for"),
        ("task.replay={old: 1.0}", r"less than 1"),
    ],
)
def test_shares_that_cannot_be_are_refused(replaying: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_recipe(replaying, [override])


def test_too_few_old_rows_say_how_many_there_would_have_to_be(replaying: Path) -> None:
    with pytest.raises(DataError, match=r"old has 30 demonstrations, and 0.9 of all would be 54 of 60(.|\n)*0.83"):
        load_data(load_recipe(replaying, ["task.replay.old=0.9"]))
