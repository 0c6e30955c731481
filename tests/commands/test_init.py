"""`posttrain init`: what it finds in files, and that what it writes runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli import main
from posttrain.planning.starting import answers
from posttrain.planning.starting.columns import shown
from posttrain.planning.starting.found import look
from posttrain.planning.starting.recipe_file import relative
from posttrain.planning.starting.reward_file import place_of
from posttrain.recipe.recipe import Recipe, load_recipe
from posttrain.scoring.loading import load_reward
from tests.pipeline.runs import forked

Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, rows: Rows) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def eggs(count: int = 30) -> Rows:
    return [
        {"question": f"{n} eggs, 2 more?", "answer": n + 2, "solution": f"{n} + 2 makes {n + 2} eggs"}
        for n in range(count)
    ]


def chats(count: int = 30) -> Rows:
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "?"}]
    answer = "That is what everybody will tell you who has learned to count"
    return [
        {
            "messages": [
                said[0],
                {**said[1], "content": f"What is {n} + 1?"},
                {"role": "assistant", "content": f"{answer}: {n + 1}."},
            ]
        }
        for n in range(count)
    ]


def begun(name: str, *words: str) -> Recipe:
    assert main(["init", name, *words]) == 0
    return load_recipe(Path(Path(name).stem) / "recipe.yaml")


def gold_scores(recipe: Recipe) -> set[float | None]:
    """What the reward gives each demonstration."""
    reward = load_reward(recipe.rewards[0])
    scores = set()
    for row in recipe.task.load(0).demonstrations:
        text = row["completion"] if isinstance(row["completion"], str) else row["completion"][-1]["content"]
        score = reward.function(text, **{key: value for key, value in row.items() if key != "completion"})
        scores.add(score if score is None else score.value)
    return scores


# ---- what it says ----


def test_it_says_what_is_in_a_file(capsys):
    rows = eggs()
    rows += [rows[0], {**rows[1], "answer": 99}, {**rows[2], "solution": "4"}, {"question": "", "answer": 1}]
    evaluation = write("eval.jsonl", [*eggs(4), {**eggs()[0], "question": "None?"}])
    assert main(["init", write("eggs.jsonl", rows), "--eval", evaluation]) == 0
    said = capsys.readouterr().out
    for part in (
        "eggs.jsonl: 34 rows, 3 columns",
        "duplicates: 1; other demonstrations of a prompt: 1; contradicting an earlier row: 1; without a prompt: 1",
        "eggs.jsonl:32: answer 99, and eggs.jsonl:2 has 3",
        "4 of 5 prompts of eval.jsonl are in eggs.jsonl too: they are not trained on",
        "demonstrations: 30 of 30 prompts have one (100%)",
        "prompts: half have up to 17 characters, nine in ten up to 17, the longest 17",
        "the last number is the answer in 100% of 30 demonstrations",
        "wrote eggs/recipe.yaml, eggs/reward.py",
    ):
        assert part in said, part
    columns = {line.split()[0]: " ".join(line.split()) for line in said.splitlines()[2:5]}
    assert columns == {
        "question": "question text 16 1 empty prompt 0 eggs, 2 more?",
        "answer": "answer number 2 answer 2",
        "solution": "solution text 20 1 empty demonstration 0 + 2 makes 2 eggs",
    }
    commands = ["rewards check eggs/recipe.yaml", "run eggs/recipe.yaml --smoke", "run eggs/recipe.yaml"]
    assert said.splitlines()[-3:] == [f"  posttrain {command}" for command in commands]


def test_control_codes_of_a_file_do_not_reach_the_terminal(capsys):
    rows = [{**row, "note\u009b1m": "\x1b[31mred\nline"} for row in eggs()]
    begun(write("eggs.jsonl", rows))
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\u009b" not in said
    assert shown("x" * 99, 10) == "xxxxxxx..."


# ---- which columns are what, and what is written ----


@pytest.mark.parametrize(
    ("rows", "prompt", "completion", "says"),
    [
        (eggs(), "0 eggs, 2 more?\n", "0 + 2 makes 2 eggs", "def last_number"),
        ([{"prompt": f"{n}?", "completion": f"<answer>{n}</answer>.", "gold": n} for n in range(9)], "0?", None, "tag"),
        ([{"Question text": f"{n}?", "Final Answer": "x"} for n in range(9)], "0?", "x", "def whole"),
        ([{"problem": f"{n}?", "answer": f"So.\n#### {n},000"} for n in range(9)], "0?\n", None, "def after_hashes"),
        ([{"query": f"{n}?", "class": n, "label": "b", "response": "It is B."} for n in range(9)], "0?\n", None, "end"),
        (
            [{"instruction": "Add.", "input": f"{n}, 1", "output": f"{n + 1}", "task": "sum"} for n in range(9)],
            "Add.\n\n0, 1\n", "1", "def plain",
        ),
        (
            [{"instruction": f"Say {n}.", "input": "", "output": "A word that is long enough to be " + "long " * 9}
             for n in range(9)],
            "Say 0.\n", None, "def words",
        ),
        (
            [{"prompt": [{"role": "user", "content": f"{n}?"}], "completion": [{"role": "assistant", "content": "7"}]}
             for n in range(9)],
            [{"role": "user", "content": "0?"}], [{"role": "assistant", "content": "7"}], "def plain",
        ),
        (
            [{"conversations": [{"from": "human", "value": f"{n}?"}, {"from": "gpt", "value": "one two " * 9}]}
             for n in range(9)],
            [{"role": "user", "content": "0?"}], None, "def words",
        ),
    ],
)  # fmt: skip
def test_what_columns_are_taken_for(rows, prompt, completion, says):
    recipe = begun(write("mine.jsonl", rows))
    data = recipe.task.load(0)
    first = [row for row in data.demonstrations + data.eval if row["prompt"] == prompt]
    assert first
    if completion is not None:
        assert {str(row["completion"]) for row in first if "completion" in row} <= {str(completion)}
        assert data.demonstrations
    assert says in Path("mine/reward.py").read_text()
    assert gold_scores(recipe) == {1.0}


def test_rows_without_demonstrations_are_trained_by_rewards_alone(capsys):
    recipe = begun(write("mine.jsonl", [{"text": f"Write about {n}."} for n in range(9)]))
    assert (recipe.warmup.steps, recipe.hybrid.controller.name) == (0, "grpo_only")
    said = capsys.readouterr().out
    assert "the rows have no answer to judge by" in said
    assert "rewards check" not in said
    score = load_reward(recipe.rewards[0]).function
    assert (score("").value, score("a story").value, score("x" * 800).value) == (0.0, 1.0, 0.5)


def test_a_prompt_that_is_called_like_none_is_guessed_aloud(capsys):
    recipe = begun(write("mine.jsonl", [{"n": n, "riddle": f"What is {n}?"} for n in range(9)]))
    assert recipe.task.prompt == "{riddle}\n"
    assert "no column is called like a prompt: riddle is the first with text" in capsys.readouterr().out


def test_slices_only_where_both_files_have_them():
    rows = [{**row, "level": n % 3} for n, row in enumerate(eggs())]
    assert begun(write("eggs.jsonl", rows)).task.slice_by == "level"
    recipe = begun("eggs.jsonl", "--eval", write("eval.jsonl", [{**eggs()[0], "question": "?"}]), "--force")
    assert recipe.task.slice_by is None
    assert [Path(one.file).name for one in recipe.task.eval_path] == ["eval.jsonl"]


def test_a_row_that_is_too_long_for_the_tiny_model_is_left_out():
    rows = eggs()
    rows[0]["question"] += " word" * 2000
    recipe = begun(write("eggs.jsonl", rows))
    assert recipe.model.init.max_position_embeddings == 4096
    assert "1 too long" in recipe.task.load(0).notes[0]
    most = begun(write("long.jsonl", [{**row, "question": f"{n}" + " word" * 2000} for n, row in enumerate(eggs())]))
    assert most.task.longest is None
    assert most.model.init.max_position_embeddings == 16384


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_other_files(suffix):
    rows, name = eggs(), f"my eggs.{suffix}"
    if suffix == "csv":
        lines = ["question,answer,solution", *(f'"{r["question"]}",{r["answer"]},{r["solution"]}' for r in rows)]
        Path(name).write_text("\n".join(lines))
    elif suffix == "json":
        Path(name).write_text(json.dumps(rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), name)
    assert main(["init", name]) == 0
    recipe = load_recipe("my-eggs/recipe.yaml")
    assert recipe.run.dir == "runs/my-eggs"
    assert gold_scores(recipe) == {1.0}


# ---- where answers stand ----


@pytest.mark.parametrize(
    ("pairs", "place"),
    [
        ([("4", "4")], answers.whole),
        ([("so\n#### 4", "4")], answers.after_hashes),
        ([("it is \\boxed{\\frac{1}{2}}!", "\\frac{1}{2}")], answers.boxed),
        ([("<answer> b </answer> done", "B")], answers.tagged),
        ([("The answer is Paris.\nBye", "paris")], answers.after_colon),
        ([("First x.\nthen y", "then y")], answers.last_line),
        ([("1 + 3 makes 1,004.50 euros", "1004.5")], answers.last_number),
        ([("the capital is Paris.", "Paris")], answers.ending),
        ([("x", "4")] * 2, answers.whole),
        ([("1 makes 4 eggs", "4"), ("1 makes 4 eggs", "4"), ("x", "4")], answers.last_number),
        ([("y \\boxed{3}", "x \\boxed{3}")], answers.boxed),
    ],
)
def test_where_demonstrations_have_their_answers(pairs, place):
    assert place_of(pairs)[0] is place


def test_places_are_empty_where_nothing_stands():
    for place in answers.PLACES[1:]:
        assert place("", "x") is None, place
    assert answers.boxed("\\boxed{1", "x") is None
    assert answers.ending("Outparis", "paris") is None


# ---- rewards of one's own, the example, and what is refused ----


def test_a_reward_that_is_there_is_named(capsys):
    write("eggs.jsonl", eggs())
    Path("mine.py").write_text(
        "def right(completion, *, answer, **row):\n    return 1.0 * (str(answer) in completion)\n"
    )
    recipe = begun("eggs.jsonl", "--reward", "mine.py:right")
    assert recipe.rewards[0].path == f"{Path('mine.py').resolve()}:right"
    assert not Path("eggs/reward.py").exists()
    Path("eggs/own.py").write_text("def score(completion):\n    return 1.0\n")
    recipe = begun("eggs.jsonl", "--reward", "eggs/own.py", "--force")
    assert "path: own.py:score" in Path("eggs/recipe.yaml").read_text().replace('"', "")


def test_the_example_works_where_it_lands(capsys):
    assert main(["init", "--example", "--out", "deep/mine"]) == 0
    assert "posttrain run deep/mine/recipe.yaml --smoke" in capsys.readouterr().out
    text = Path("deep/mine/recipe.yaml").read_text()
    assert "extends: posttrain:base/tiny\n" in text
    assert "recipes/custom_reward" not in text
    assert main(["rewards", "check", "deep/mine/recipe.yaml", "--rows", "3"]) == 0
    assert main(["init", "--example", "--out", "deep/mine"]) == 2
    assert "my_reward.py and recipe.yaml and sums.jsonl are there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "neither a file nor --example"),
        (["eggs.jsonl", "--example"], "a file and --example"),
        (["--example", "--eval", "eggs.jsonl"], "--eval with --example"),
        (["nowhere.jsonl"], "no such file"),
        (["eggs.txt"], "file type '.txt'"),
        (["broken.jsonl"], "broken.jsonl:1"),
        (["one.jsonl"], "no rows to train on: 1 row: 1 held out"),
        (["numbers.jsonl"], "none of them is text or messages"),
        (["eggs.jsonl", "--eval", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["eggs.jsonl", "--eval", "numbers.jsonl"], "no column"),
        (["eggs.jsonl", "--reward", "egs.py"], "did you mean eggs.py?"),
        (["eggs.jsonl", "--reward", "eggs.py:scor"], "scor"),
        (["eggs.jsonl", "--out", "eggs.py"], "eggs.py: is a file"),
        (["eggs.jsonl", "--out", "full"], "reward.py is there already"),
    ],
)
def test_what_is_refused_and_leaves_nothing(words, said, capsys, folder):
    write("eggs.jsonl", eggs())
    write("one.jsonl", eggs(1))
    write("numbers.jsonl", [{"a": 1, "b": 2}])
    Path("broken.jsonl").write_text("{")
    Path("eggs.py").write_text("def score(completion):\n    return 1.0\n")
    Path("full").mkdir()
    Path("full/reward.py").write_text("mine")
    before = sorted(folder.rglob("*"))
    assert main(["init", *words]) in (1, 2)
    assert said in capsys.readouterr().err
    assert [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts] == before
    assert Path("full/reward.py").read_text() == "mine"


def test_nothing_is_written_over_without_force(capsys):
    write("eggs.jsonl", eggs())
    begun("eggs.jsonl")
    Path("eggs/reward.py").write_text("mine")
    assert main(["init", "eggs.jsonl"]) == 2
    assert "recipe.yaml and reward.py are there already" in capsys.readouterr().err
    assert Path("eggs/reward.py").read_text() == "mine"
    begun("eggs.jsonl", "--force")
    assert "last_number" in Path("eggs/reward.py").read_text()


def test_paths_start_at_the_recipe(folder):
    assert relative(folder / "a.jsonl", folder / "mine") == "../a.jsonl"
    assert relative(folder / "a.jsonl", folder / "x" / "y" / "z") == str(folder / "a.jsonl")
    assert look(write("eggs.jsonl", eggs())).total == 30


# ---- and it runs ----


@pytest.mark.parametrize("rows", [eggs(), chats()], ids=["answers", "conversations"])
def test_what_it_writes_is_planned_checked_and_smoked(rows, folder, capsys):
    recipe = begun(write("mine.jsonl", rows))
    assert gold_scores(recipe) == {1.0}
    assert main(["plan", "mine/recipe.yaml", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    assert [finding["kind"] for finding in plan["findings"] if finding["level"] == "problem"] == []
    ended = forked(folder, "run", "mine/recipe.yaml", "--smoke")
    assert ended.code == 0, ended.text
    assert "nothing failed" in ended.text
