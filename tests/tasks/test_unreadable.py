"""Rows whose gold answer `math_answer` cannot read: told by kind, kept for other rewards, left out where it judges."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.inputs.inputs import load_data
from posttrain.recipe.recipe import load_recipe
from posttrain.rewards.math_answer import score as math_answer
from posttrain.tasks import TaskData

MINE = "def score(completion, *, answer):\n    return 1.0\n"
UNREADABLE = ("see the figure", "?", "the proof is omitted here", "9^{9^{9^9}}", None)
MATH = "{name: math, path: rows.jsonl, demonstrations: 0, instruction: ''}"
ROWS = "{name: rows, path: rows.jsonl, demonstrations: 0}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    write(tmp_path / "rows.jsonl", 15)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, readable: int, unreadable: tuple[str | None, ...] = UNREADABLE) -> None:
    rows: list[dict[str, str | None]] = [{"question": f"Twice {n}?", "answer": str(2 * n)} for n in range(readable)]
    rows += [{"question": f"Number {n} of {path.stem}?", "answer": answer} for n, answer in enumerate(unreadable)]
    path.write_text("".join(json.dumps({**row, "prompt": row["question"]}) + "\n" for row in rows))


def load(task: str, rewards: str = "[]", judge: str = "null", functions: Any = ()) -> TaskData:
    text = f"model: m\ntask: {task}\nrewards: {rewards}\nevaluate: {{reward: {judge}}}\n"
    text += "warmup: {steps: 0}\nhybrid: {controller: {name: grpo_only}}\n"
    Path("recipe.yaml").write_text(text)
    return load_data(load_recipe("recipe.yaml"), functions=functions)


def unreadable(rows: list[dict[str, Any]]) -> int:
    return sum(row["answer"] in UNREADABLE for row in rows)


@pytest.mark.parametrize(
    ("rewards", "judge", "trained", "evaluated", "said"),
    [
        ("[]", "null", False, False, "are left out"),
        ("[math_answer]", "null", False, False, "are left out"),
        ("[format, {import: 'posttrain.rewards.math_answer:score'}]", "null", False, False, "are left out"),
        ("[{path: mine.py}]", "null", True, True, "they are kept, for other rewards judge them"),
        ("[{path: mine.py}, {name: math_answer, weight: 0}]", "null", True, True, "they are kept"),
        ("[{path: mine.py}]", "math_answer", True, False, "are not evaluated on, only trained on"),
        ("[math_answer]", "{path: mine.py}", False, True, "are not trained on, only evaluated on"),
    ],
)
def test_they_are_left_out_only_where_the_reward_judges(
    folder: Path, rewards: str, judge: str, trained: bool, evaluated: bool, said: str
) -> None:
    counts = [load(MATH.replace("}", f", eval: {n}}}"), rewards, judge) for n in ((3, 14) if evaluated else (3,))]
    data = counts[0]
    seen = [(unreadable(one.train), unreadable(one.eval)) for one in counts]
    assert (any(train for train, _ in seen), any(held for _, held in seen)) == (trained, evaluated)
    assert len(data.train) + len(data.eval) == (20 if trained else 15 + seen[0][1])
    first, *kinds = data.notes[1].splitlines()
    assert first.startswith("5 of 20 rows ")
    assert said in first
    assert [line.split(":")[0] for line in kinds] == ["  2 sentence", "  1 notation", "  1 size", "  1 empty"]
    assert kinds[0].startswith(f"  2 sentence: {folder / 'rows.jsonl'}:16: 'see the figure': ")


def test_the_counts_account_for_each_row(folder: Path) -> None:
    every = "20 rows: 4 with an unreadable answer (2 sentence, 1 notation, 1 size), 1 without an answer, 3 held out, "
    assert load(MATH, judge="null").notes[0] == every + "12 prompts"
    assert load(MATH, "[{path: mine.py}]").notes[0] == "20 rows: 4 held out, 16 prompts"
    late = load(MATH.replace("}", ", eval: 1}"), "[math_answer]", "{path: mine.py}").notes[0]
    parts = re.sub(r" \(.*?\)", "", late).removeprefix("20 rows: ").split(", ")
    assert sum(int(part.split()[0]) for part in parts) == 20
    assert any(part.endswith("with an unreadable answer") for part in parts)


def test_a_file_to_evaluate_on_has_its_own_judge_and_its_own_counts(folder: Path) -> None:
    write(folder / "test.jsonl", 0, UNREADABLE)
    with pytest.raises(DataError, match=r"no row has an answer(.|\n)*5 evaluation rows: 4 with an unreadable answer"):
        load(MATH.replace("}", ", eval_path: test.jsonl}"))
    data = load(MATH.replace("}", ", eval_path: test.jsonl}"), "[math_answer]", "{path: mine.py}")
    assert (len(data.train), unreadable(data.train), unreadable(data.eval)) == (15, 0, 5)
    with pytest.raises(DataError, match=r"5 different problems for eval \(5 evaluation rows: 5 held out\)"):
        load(MATH.replace("}", ", eval_path: test.jsonl, eval: 9}"), "[math_answer]", "{path: mine.py}")


def test_an_error_about_too_few_rows_names_those_that_were_left_out(folder: Path) -> None:
    with pytest.raises(DataError, match=r"12 problems besides eval(.|\n)*4 with an unreadable answer \(2 sentence, "):
        load(MATH.replace("}", ", train: 16}"))
    assert len(load(MATH.replace("}", ", train: 16}"), "[{path: mine.py}]").train) == 16


def test_functions_beside_the_recipe_judge_too(folder: Path) -> None:
    def mine(completion: str, *, answer: str | None) -> float:
        return 1.0

    assert unreadable(load(MATH, functions=[mine]).train) > 0
    assert unreadable(load(MATH, functions=[math_answer]).train) == 0


def test_of_a_mixture_each_task_has_its_own_judges(folder: Path) -> None:
    write(folder / "other.jsonl", 0, (*(f"see figure {n} there" for n in range(8)), "5", "6"))
    two = f"[{{label: a, {MATH[1:]}, {{label: b, {MATH[1:].replace('rows.jsonl', 'other.jsonl')}]"
    data = load(two, "[{name: math_answer, tasks: [a]}, {path: mine.py, tasks: [b]}]")
    kept = {task: sum(row["task"] == task for row in [*data.train, *data.eval]) for task in "ab"}
    assert kept == {"a": 15, "b": 10}
    assert any(note.startswith("b: 8 of 10 rows have an answer that math_answer cannot read") for note in data.notes)


def test_rows_of_any_kind_whose_only_reward_cannot_read_them(folder: Path) -> None:
    alone = load(ROWS, "[math_answer]")
    assert unreadable(alone.train) == unreadable(alone.eval) == 0
    assert alone.notes[0].startswith("20 rows: 4 with an unreadable answer (2 sentence, 1 notation, 1 size), 1 without")
    assert alone.notes[1].startswith("5 of 20 rows are left out: math_answer cannot read their answer\n  2 sentence: ")
    both = load(ROWS, "[math_answer, format]")
    assert len(both.train) + len(both.eval) == 20
    assert "they are kept, for other rewards judge them" in both.notes[1]
    assert len(load(ROWS, "[{path: mine.py}]").notes) == 1
    write(folder / "rows.jsonl", 0)
    with pytest.raises(DataError, match=r"no row of 5 can be used(.|\n)*2 sentence: "):
        load(ROWS, "[math_answer]")


def test_an_answer_that_the_recipe_gives_is_none_of_the_rows(folder: Path) -> None:
    rows = [{"prompt": f"What {n}?"} for n in range(6)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(load(ROWS, "[{name: math_answer, kwargs: {answer: '4'}}]").train) == 5
