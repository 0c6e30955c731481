"""Rows of the user's own: every form they come in, what reaches the rewards, and what is said of those not used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from posttrain.errors import ConfigError, DataError, PosttrainError
from posttrain.inputs.data import as_table
from posttrain.inputs.inputs import load_data, load_judges, load_rewards, task_rewards
from posttrain.recipe.recipe import load_recipe
from posttrain.rundir.data_changes import contents, data_changes
from posttrain.scoring.score import Reward
from posttrain.scoring.scorer import Scorer
from posttrain.tasks import TaskData, own_rewards
from posttrain.tasks.rows import Rows
from posttrain.tasks.rows.templates import Template

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "1 + 1?"}
SAID = {"role": "assistant", "content": "2"}
MORE = [{"role": "assistant", "content": "Sure."}, {"role": "user", "content": "And 2 + 2?"}]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def sums(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"prompt": f"{n} + 1?", "completion": f"It is {n + 1}.", "answer": n + 1} for n in range(start, count)]


def task(**settings: Any) -> Rows:
    return TypeAdapter(Rows).validate_python(settings)


def loaded(folder: Path, rows: list[Any], **settings: Any) -> TaskData:
    return task(path=write(folder / "rows.jsonl", rows), **{"eval": 0, **settings}).load(0)


# ---- forms ----


@pytest.mark.parametrize(
    ("row", "settings", "prompt", "completion"),
    [
        ({"prompt": "1 + 1?", "completion": "2"}, {}, "1 + 1?", "2"),
        ({"prompt": "1 + 1?"}, {}, "1 + 1?", None),
        ({"prompt": "1 + 1?", "completion": ""}, {}, "1 + 1?", None),
        ({"prompt": "1 + 1?", "completion": 2}, {}, "1 + 1?", "2"),
        ({"prompt": [USER], "completion": [SAID]}, {}, [USER], [SAID]),
        ({"prompt": [USER], "completion": "2"}, {}, [USER], [SAID]),
        ({"prompt": "1 + 1?", "completion": [SAID]}, {}, [USER], [SAID]),
        ({"prompt": [USER], "completion": SAID}, {}, [USER], [SAID]),
        ({"messages": [SYSTEM, USER, SAID]}, {}, [SYSTEM, USER], [SAID]),
        ({"messages": [USER, *MORE, SAID]}, {}, [USER, *MORE], [SAID]),
        ({"messages": [USER]}, {}, [USER], None),
        ({"messages": [USER], "completion": "2"}, {}, [USER], [SAID]),
        ({"messages": [USER, SAID], "prompt": "1 + 1?"}, {}, [USER], [SAID]),
        (
            {"talk": [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]},
            {"columns": {"messages": "talk"}},
            [USER],
            [SAID],
        ),
        ({"q": "1 + 1?", "a": "2"}, {"columns": {"prompt": "q", "completion": "a"}}, "1 + 1?", "2"),
        ({"q": "1 + 1?", "a": 2}, {"prompt": "Q: {q}\nA:", "completion": " {a}."}, "Q: 1 + 1?\nA:", " 2."),
        ({"q": "1 + 1?"}, {"prompt": "{q} Say \\boxed{}, {{x}} or {\"a\": 1}"}, '1 + 1? Say \\boxed{}, {x} or {"a": 1}',
         None),
        ({"prompt": "1 + 1?", "a": None}, {"completion": "{a}"}, "1 + 1?", None),
        ({"prompt": "1 + 1?", "completion": "2"}, {"system": "Be brief."}, [SYSTEM, USER], [SAID]),
        ({"prompt": "1 + 1?", "how": "brief"}, {"system": "Be {how}."}, [SYSTEM, USER], None),
        ({"prompt": "1 + 1?", "how": None}, {"system": "Be {how}."}, "1 + 1?", None),
        ({"prompt": "1 + 1?", "system": "Be brief."}, {}, [SYSTEM, USER], None),
        ({"messages": [SYSTEM, USER, SAID]}, {"system": "Be long."}, [SYSTEM, USER], [SAID]),
    ],
)  # fmt: skip
def test_forms(tmp_path: Path, row: Any, settings: dict[str, Any], prompt: Any, completion: Any) -> None:
    data = loaded(tmp_path, [row], **settings)
    (shown,) = data.train
    assert shown["prompt"] == prompt
    assert "completion" not in shown
    assert [one["completion"] for one in data.demonstrations] == ([] if completion is None else [completion])


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"question": "1?"}, {}, r"columns question(.|\n)*columns: \{prompt: question\}"),
        ({"conversations": []}, {}, r"columns: \{messages: conversations\}"),
        ({"x": 1}, {}, r"columns x(.|\n)*expected: prompt"),
        ({"question": "1?"}, {"prompt": "{qestion}"}, r"'qestion' \(nearest: 'question'\)(.|\n)*rows: question"),
        ({"prompt": "1?", "sol": 1}, {"completion": "\\frac{a}{b}"}, r"no column 'a'(.|\n)*write \{\{a\}\}"),
        ({"prompt": "1?"}, {"columns": {"completion": "solution"}}, r"columns\.completion(.|\n)*one of prompt"),
        ({"prompt": "1?", "task": "x"}, {}, r"the column 'task'(.|\n)*columns: \{my_task: task\}"),
        ({"prompt": "1?", "chosen": "x"}, {}, "the column 'chosen'"),
        ({"prompt": [USER, SAID]}, {}, "the assistant's(.|\n)*a column messages"),
        ({"prompt": ["1?"]}, {}, "a str among the messages"),
        ({"messages": "hello"}, {}, "a str(.|\n)*a list of messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, {}, "content that is not text"),
        ({"messages": [{"text": "x"}]}, {}, "a message with text"),
        ({"prompt": "1?"}, {"slice_by": "level"}, "no column 'level'"),
        ({"prompt": None, "completion": "x"}, {}, r"no row of 1 can be used \(1 row: 1 without a prompt\)"),
    ],
)  # fmt: skip
def test_what_is_in_no_form_is_named(tmp_path: Path, row: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PosttrainError, match=message) as caught:
        loaded(tmp_path, [row], **settings)
    assert caught.value.expected
    assert caught.value.where


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"path": "a.jsonl", "dataset": "some/data"},
        {"path": "a.jsonl", "eval_split": "test"},
        {"dataset": "some/data", "eval_split": "test", "eval_path": "b.jsonl"},
        {"path": "a.jsonl", "prompt": "{q}", "columns": {"prompt": "q"}},
        {"path": "a.jsonl", "columns": {"task": "kind"}},
        {"path": {"file": "a.jsonl", "weight": 0}},
        {"path": {"file": "a.jsonl", "wieght": 2}},
    ],
)
def test_settings_that_contradict(settings: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, ValidationError)):
        task(**settings)


def test_in_python_a_path_alone_will_do(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", sums(10))
    assert Rows(path=path, eval_path=[path]) == task(path=[{"file": path, "weight": 1}], eval_path=path)  # type: ignore[arg-type]


def test_a_template_puts_any_cell_into_words() -> None:
    cells = {"a": 1.5, "b": True, "c": ["x", {"y": 1}], "d": "{a}", "e": "\\1"}
    assert Template("{a} {b} {c} {d} {e}", "task.prompt").fill(cells) == '1.5 true ["x", {"y": 1}] {a} \\1'


# ---- files ----


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".csv", ".tsv", "dataset"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    rows = [{"prompt": f'Say "{n}", or\nnot?', "completion": f"{n}", "unit": "km" if n else None} for n in range(6)]
    file = tmp_path / f"rows{suffix}"
    settings: dict[str, Any] = {"path": str(file)}
    if suffix == "dataset":
        (tmp_path / "hub").mkdir()
        write(tmp_path / "hub" / "train.jsonl", rows)
        settings = {"dataset": str(tmp_path / "hub")}
    elif suffix == ".parquet":
        from pyarrow import Table, parquet

        parquet.write_table(Table.from_pylist(rows), file)
    elif suffix in (".csv", ".tsv"):
        between = "\t" if suffix == ".tsv" else ","
        lines = [between.join('"' + str(cell or "").replace('"', '""') + '"' for cell in row.values()) for row in rows]
        file.write_text("\ufeff" + "\r\n".join([between.join(rows[0]), *lines]), encoding="utf-8", newline="")
    else:
        file.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = task(**settings, eval=2).load(0)
    everything = [*data.train, *data.eval]
    assert sorted((row["prompt"], row["unit"]) for row in everything) == sorted(
        (row["prompt"], row["unit"]) for row in rows
    )
    assert len(data.demonstrations) == 4
    assert {row["prompt"] for row in data.demonstrations} == {row["prompt"] for row in data.train}


def test_a_split_and_a_file_to_evaluate_on(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    write(tmp_path / "hub" / "train.jsonl", sums(8))
    test = write(tmp_path / "hub" / "test.jsonl", sums(10, start=6))
    data = task(dataset=str(tmp_path / "hub"), eval_split="test").load(0)
    assert (len(data.train), len(data.eval)) == (6, 4)
    assert data.notes == ["8 rows: 2 among the evaluation rows, 6 left for both; 4 evaluation rows: 4 held out"]
    assert task(path=str(tmp_path / "hub" / "train.jsonl"), eval_path=test).load(0) == data


@pytest.mark.parametrize(("weight", "least", "most"), [(1, 20, 20), (3, 60, 60), (0.5, 4, 16), (2.5, 42, 58)])
def test_a_weight_is_how_often_a_row_stands_there(tmp_path: Path, weight: float, least: int, most: int) -> None:
    heavy, light = write(tmp_path / "a.jsonl", sums(20)), write(tmp_path / "b.jsonl", sums(30, start=20))
    data = task(path=[{"file": heavy, "weight": weight}, light], eval=0).load(0)
    for rows in (data.train, data.demonstrations):
        assert least <= sum(row["answer"] <= 20 for row in rows) <= most
        assert sum(row["answer"] > 20 for row in rows) == 10
    assert (weight == 1) == (len(data.notes) == 1)
    assert task(path=[{"file": heavy, "weight": weight}, light], eval=0).load(0) == data


# ---- counts ----


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    rows = [
        *sums(20),
        *sums(3),
        {"prompt": " ", "completion": "x"},
        {"prompt": "y" * 99, "answer": 1},
        {"prompt": "3  + 1?", "completion": "Four.", "answer": 4},
        {"prompt": "4 + 1?", "answer": 6},
    ]
    data = loaded(tmp_path, rows, eval=5, longest=50, train=10, demonstrations=4)
    counts = (
        "27 rows: 3 duplicates, 1 without a prompt, 1 too long, 1 with another demonstration of an earlier row's "
        "prompt, 1 with an earlier row's prompt and other columns, 5 held out, 4 left for both, 6 prompts, 5 not asked "
        "for"
    )
    assert data.notes[0] == counts
    numbers = [int(part.split()[0]) for part in data.notes[0].partition(": ")[2].split(", ")]
    assert sum(numbers) == 27
    assert f"{tmp_path / 'rows.jsonl'}:27: answer 6, and {tmp_path / 'rows.jsonl'}:5 has 5" in data.notes[1]
    assert (len(data.train), len(data.demonstrations), len(data.eval)) == (10, 4, 5)


def test_two_demonstrations_of_one_prompt_are_both_used(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": text, "id": n} for n, text in enumerate(("x", "y", "x"))]
    data = loaded(tmp_path, rows)
    assert [row["completion"] for row in data.demonstrations] == ["x", "y"]
    assert len(data.train) == 1
    assert "1 duplicate" in data.notes[0]


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({}, (16, 16, 4)),
        ({"shared": False}, (8, 8, 4)),
        ({"shared": False, "train": 5}, (5, 11, 4)),
        ({"shared": False, "demonstrations": 5}, (11, 5, 4)),
        ({"eval": 10, "train": 3, "demonstrations": 7}, (3, 7, 10)),
        ({"eval": 0}, (20, 20, 0)),
    ],
)
def test_counts_and_their_defaults(tmp_path: Path, settings: dict[str, Any], parts: tuple[int, int, int]) -> None:
    data = task(path=write(tmp_path / "rows.jsonl", sums(20)), **settings).load(3)
    assert (len(data.train), len(data.demonstrations), len(data.eval)) == parts
    prompts = [{row["prompt"] for row in part} for part in (data.train, data.demonstrations)]
    assert not (prompts[0] | prompts[1]) & {row["prompt"] for row in data.eval}
    if settings.get("shared") is False:
        assert not prompts[0] & prompts[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eval": 20, "demonstrations": 5}, r"eval takes 20 \(20 rows: 20 held out\)(.|\n)*set eval to 4 or less"),
        ({"eval": 21}, "20 different rows for eval(.|\n)*set eval to 4"),
        ({"train": 17, "eval": 4}, "16 rows besides eval for train(.|\n)*set train to 16 or less, or lower eval"),
        ({"shared": False, "train": 15, "demonstrations": 10, "eval": 1}, "9 rows besides(.|\n)*set shared: true"),
    ],
)
def test_an_error_names_what_took_the_rows(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        task(path=write(tmp_path / "rows.jsonl", sums(20)), **settings).load(0)


# ---- recipes and rewards ----


RECIPE = """
model: {init: {}}
task: {name: rows, path: rows.jsonl, eval: 2}
warmup: {steps: 1}
"""
REWARD = """
def score(completion, *, answer, unit, tests, id, prompt, **row):
    assert "completion" not in row and row == {"solution": None}, row
    return float(isinstance(answer, int) and unit == "km" and tests == {str(id): [id]} and str(id) in prompt)
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    rows = [{**row, "id": n, "unit": "km", "tests": {str(n): [n]}, "solution": None} for n, row in enumerate(sums(10))]
    write(tmp_path / "rows.jsonl", rows)
    (tmp_path / "mine.py").write_text(REWARD)
    (tmp_path / "r.yaml").write_text(RECIPE + "rewards: [{path: mine.py}]\n")
    return tmp_path / "r.yaml"


def test_every_column_reaches_the_reward_as_it_stands_in_the_file(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    data = load_data(recipe)
    scorer = Scorer(load_rewards(recipe, data))
    table = as_table(data.train)  # what training reads
    rows = [dict(table[n]) for n in range(len(table))]
    names = [name for name in rows[0] if name not in ("prompt", "completion")]
    columns = {name: [row[name] for row in rows] for name in names}
    (outcomes,) = scorer([row["prompt"] for row in rows], ["x"] * len(rows), columns)
    assert [(outcome.value, outcome.error) for outcome in outcomes] == [(1.0, None)] * 8


def test_a_column_that_is_not_there_is_named_with_those_that_are(recipe_file: Path) -> None:
    (recipe_file.parent / "mine.py").write_text("def score(completion, *, units): return 1.0")
    recipe = load_recipe(recipe_file)
    message = r"no column 'units' \(nearest: 'unit'\)(.|\n)*has answer, id, prompt, solution, tests, unit"
    with pytest.raises(PosttrainError, match=message):
        load_rewards(recipe, load_data(recipe))


def test_rows_without_a_reward_are_refused(recipe_file: Path) -> None:
    recipe_file.write_text(RECIPE)
    recipe = load_recipe(recipe_file)
    data = load_data(recipe)
    with pytest.raises(ConfigError, match=r"no reward judges the rows of 'rows'(.|\n)*my_reward\.py") as caught:
        load_rewards(recipe, data)
    assert caught.value.expected
    assert caught.value.where

    def mine(completion: str) -> float:
        return 1.0

    assert [reward.name for reward in load_rewards(recipe, data, [mine])] == ["mine"]


MIXED = """
model: {init: {}}
task:
  - {name: rows, label: mine, path: rows.jsonl, eval: 2}
  - {name: rows, label: theirs, path: more.jsonl, eval: 2, columns: {answer: gold}}
  - {name: knights_knaves, people: [2], train: 3, eval: 2, demonstrations: 1, split: content}
rewards: [{path: mine.py, tasks: [mine]}, knights_knaves, {name: format, weight: 0}]
"""


def test_in_a_mixture_each_label_needs_a_reward_and_the_recipe_s_judge(recipe_file: Path) -> None:
    more = [{"prompt": f"{n}?", "gold": n, "solution": "x"} for n in range(6)]
    write(recipe_file.parent / "more.jsonl", more)
    recipe_file.write_text(MIXED.replace(", {name: format, weight: 0}", ""))
    recipe = load_recipe(recipe_file)
    data = load_data(recipe)
    assert own_rewards(recipe.task) == {"mine": None, "theirs": None, "knights_knaves": "knights_knaves"}
    with pytest.raises(ConfigError, match="no reward judges the rows of 'theirs'"):
        load_rewards(recipe, data)
    recipe = load_recipe(recipe_file, ["rewards=[math_answer, knights_knaves, {name: format, weight: 0}]"])
    assert [(one.name, one.tasks) for one in load_judges(recipe, data, load_rewards(recipe, data))] == [
        ("math_answer", {"mine", "theirs"}),
        ("knights_knaves", {"knights_knaves"}),
    ]


def test_the_recipe_s_rewards_judge_the_held_out_rows(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    data = load_data(recipe)
    rewards = load_rewards(recipe, data)
    assert load_judges(recipe, data, rewards) == rewards
    assert task_rewards(recipe.task) == []
    with pytest.raises(ConfigError, match=r"a weight above 0(.|\n)*reward: NAME"):
        load_judges(recipe, data, [Reward.from_callable(lambda completion: 0.0, 0.0)])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.eval=10"], r"no demonstrations \(10 rows: 10 held out\)"),
        (["task.eval=10", "warmup.steps=0", "hybrid.controller=grpo_only"], r"no prompts \(10 rows: 10 held out\)"),
        (["task.eval=0"], r"no evaluation rows \(10 rows: 10 left for both\)"),
    ],
)
def test_what_the_recipe_needs_and_the_rows_lack(recipe_file: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_data(load_recipe(recipe_file, overrides))
    assert caught.value.expected
    assert caught.value.fix


def test_paths_start_at_the_recipe_and_a_resolved_recipe_is_the_same(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file, ["task.path=[{file: a.jsonl, weight: 2}, b.csv]"])
    recipe_file.write_text(RECIPE.replace("rows.jsonl", "[{file: rows.jsonl, weight: 2}, b.csv]"))
    recipe = load_recipe(recipe_file)
    resolved = recipe.resolved()
    assert [one["file"] for one in resolved["task"]["path"]] == [str(tmp_path / "rows.jsonl"), str(tmp_path / "b.csv")]
    again = tmp_path / "elsewhere.yaml"
    again.write_text(json.dumps(resolved))
    assert load_recipe(again).task == recipe.task


def test_a_changed_row_is_told_of_when_a_run_goes_on(recipe_file: Path) -> None:
    def now() -> dict[str, Any]:
        data = load_data(load_recipe(recipe_file))
        return contents(train=data.train, demonstrations=data.demonstrations, eval=data.eval)

    was = json.loads(json.dumps(now()))
    assert data_changes(was, now()) == []
    file = recipe_file.parent / "rows.jsonl"
    file.write_text(file.read_text().replace('"unit": "km"', '"unit": "m"'))
    assert any('unit: "km" -> "m"' in line for line in data_changes(was, now()))


def test_further_demonstrations_may_have_another_name(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "solution": str(n), "answer": n} for n in range(4)]
    more = [{**rows[0], "solution": "Zero: 0"}, {**rows[1], "solution": ""}, {**rows[2], "answer": 99}]
    path = write(tmp_path / "rows.jsonl", [*rows, *more])
    loaded = task(path=path, columns={"prompt": "question", "completion": "solution"}, eval=1, train=0).load(0)
    assert "1 with another demonstration of an earlier row's prompt" in loaded.notes[0]
    assert "1 duplicate" in loaded.notes[0], "a repetition without a demonstration"
    assert "1 with an earlier row's prompt and other columns" in loaded.notes[0]


@pytest.mark.parametrize(
    ("cells", "filled"),
    [
        ({"a": "Add.", "b": "1, 2"}, "Add.\n\n1, 2\n"),
        ({"a": "Add.", "b": ""}, "Add.\n"),
        ({"a": "Add."}, "Add.\n"),
        ({"a": "", "b": "1, 2"}, None),
        ({"a": None, "b": None}, None),
    ],
)
def test_a_column_of_a_template_may_be_allowed_to_be_empty(cells: dict[str, Any], filled: str | None) -> None:
    template = Template("{a}\n\n{b?}\n", "task.prompt")
    assert template.columns == ("a", "b")
    assert template.fill(cells) == filled
    assert Template("{b?} of {b}", "task.prompt").fill({"b": ""}) is None, "it may not everywhere"
