from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from posttrain.errors import ConfigError, DataError
from posttrain.rewards.math_answer import score
from posttrain.tasks.math import INSTRUCTION, Math
from posttrain.tasks.math_rows import without_calculator_marks

GSM8K_ANSWER = (
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
    "Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.\n"
    "#### 72"
)


def gsm8k(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"question": f"What is {n} + {n}?", "answer": f"{n} + {n} = <<{n}+{n}={2 * n}>>{2 * n}\n#### {2 * n}"}
        for n in range(start, start + count)
    ]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def task(**settings: Any) -> Math:
    return TypeAdapter(Math).validate_python(settings)


def prompts(rows: list[dict[str, Any]]) -> set[str]:
    return {row["prompt"] for row in rows}


def test_gsm8k_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "gsm8k.jsonl", [{"question": "How many clips? ", "answer": GSM8K_ANSWER}])
    data = task(path=path, train=0, eval=0, demonstrations=1).load(0)
    assert data.demonstrations == [
        {
            "prompt": f"How many clips?\n\n{INSTRUCTION}",
            "completion": (
                "Natalia sold 48/2 = 24 clips in May.\n"
                "Natalia sold 48+24 = 72 clips altogether in April and May.\n"
                "The final answer is \\boxed{72}."
            ),
            "answer": "72",
            "level": "2",
            "kind": None,
            "question": "How many clips? ",
        }
    ]
    assert data.notes == ["1 row: 1 demonstration"]


def test_math_rows_with_a_solution(tmp_path: Path) -> None:
    row = {
        "problem": "Solve $2x=1$.",
        "solution": "Halve it: $x=\\boxed{\\frac{1}{2}}$.",
        "level": "Level 5",
        "type": "Algebra",
    }
    data = task(path=write(tmp_path / "math.jsonl", [row]), train=0, eval=0, demonstrations=1).load(0)
    (shown,) = data.demonstrations
    assert shown["completion"] == row["solution"]
    assert (shown["answer"], shown["level"], shown["kind"]) == ("\\frac{1}{2}", "5", "Algebra")


def test_math_rows_with_an_answer_only(tmp_path: Path) -> None:
    rows = [{"problem": f"Is it {n}?", "answer": n, "difficulty": 3.0, "subject": "Number Theory"} for n in range(4)]
    path = write(tmp_path / "math.jsonl", rows)
    data = task(path=path, train=3, eval=1, demonstrations=0).load(0)
    assert {row["answer"] for row in data.train + data.eval} == {"0", "1", "2", "3"}
    assert {row["level"] for row in data.train} == {"3"}
    with pytest.raises(
        DataError, match=r"0 of the 3 training rows have a worked solution(.|\n)*set demonstrations to 0"
    ):
        task(path=path, train=0, eval=1, demonstrations=2).load(0)


def test_a_solution_without_a_box_gets_one(tmp_path: Path) -> None:
    row = {"problem": "1+1?", "answer": "2", "solution": "Count: one, two."}
    data = task(path=write(tmp_path / "rows.jsonl", [row]), train=0, eval=0, demonstrations=1).load(0)
    assert data.demonstrations[0]["completion"] == "Count: one, two.\nThe final answer is \\boxed{2}."


def test_every_demonstration_earns_the_reward(tmp_path: Path) -> None:
    data = task(path=write(tmp_path / "gsm8k.jsonl", gsm8k(20)), train=5, eval=5, demonstrations=10).load(0)
    assert [score(row["completion"], answer=row["answer"]).value for row in data.demonstrations] == [1.0] * 10  # type: ignore[union-attr]


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_json_and_parquet(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps(gsm8k(6)), encoding="utf-8")
    else:
        from pyarrow import Table, parquet

        parquet.write_table(Table.from_pylist(gsm8k(6)), path)
    settings: dict[str, Any] = {"train": 2, "eval": 2, "demonstrations": 2}
    same = task(path=write(tmp_path / "rows.jsonl", gsm8k(6)), **settings).load(3)
    assert task(path=str(path), **settings).load(3) == same


def test_the_three_sets_are_disjoint_and_seeded(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", gsm8k(40))
    one = task(path=path, train=15, eval=10, demonstrations=10)
    data = one.load(1)
    parts = prompts(data.train), prompts(data.eval), prompts(data.demonstrations)
    assert [len(part) for part in parts] == [15, 10, 10]
    assert len(set.union(*parts)) == 35
    assert one.load(1) == data
    assert one.load(2) != data


def test_null_takes_all_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", gsm8k(40))
    test = write(tmp_path / "test.jsonl", gsm8k(7, start=100))
    assert len(task(path=path, train=None, eval=10, demonstrations=10).load(0).train) == 20
    assert len(task(path=path, eval_path=test, train=None, eval=None, demonstrations=0).load(0).eval) == 7


def test_a_separate_test_file_and_its_leaks(tmp_path: Path) -> None:
    leaked = {"question": "  what IS 3 + 3?", "answer": "6\n#### 6"}
    path = write(tmp_path / "train.jsonl", gsm8k(10))
    test = write(tmp_path / "test.jsonl", [*gsm8k(5, start=100), leaked])
    data = task(path=path, eval_path=test, train=None, eval=2, demonstrations=0).load(0)
    assert len(data.eval) == 2
    assert len(data.train) == 9
    assert "What is 3 + 3?" not in " ".join(prompts(data.train))
    assert data.notes == [
        "10 rows: 1 among the evaluation rows, 9 prompts; 6 evaluation rows: 2 held out, 4 not asked for"
    ]


def test_a_repeated_problem_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [*gsm8k(4), *gsm8k(2)])
    data = task(path=path, train=None, eval=1, demonstrations=0).load(0)
    assert len(data.train) == 3
    assert data.notes == ["6 rows: 2 duplicates, 1 held out, 3 prompts"]


def test_unreadable_gold_answers_are_left_out_and_listed(tmp_path: Path) -> None:
    bad = [{"question": f"Bad {n}?", "answer": answer} for n, answer in enumerate(["1\n#### ?", "x\n#### 9^{9^{9^9}}"])]
    bad += [{"question": f"None {n}?", "answer": None} for n in range(5)]
    path = write(tmp_path / "rows.jsonl", [*gsm8k(3), *bad])
    data = task(path=path, train=None, eval=1, demonstrations=0).load(0)
    assert len(data.train) + len(data.eval) == 3
    counts, note = data.notes
    assert counts == (
        "10 rows: 2 with an unreadable answer (1 notation, 1 size), 5 without an answer, 1 held out, 2 prompts"
    )
    first, *kinds = note.splitlines()
    assert first == "7 of 10 rows are left out: math_answer cannot read their answer"
    assert kinds[0] == f"  5 empty: {path}:6: there is no answer"
    assert kinds[1].startswith(f"  1 notation: {path}:4: '?': ")
    assert kinds[2].startswith(f"  1 size: {path}:5: ")
    assert "too big to compute" in kinds[2]


def test_when_no_answer_can_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"problem": "?", "answer": None}])
    with pytest.raises(DataError, match=r"no row has an answer that can be checked \(1 row: 1 without an answer\)"):
        task(path=path).load(0)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train": 9, "eval": 2, "demonstrations": 0}, "8 problems besides eval and demonstrations for train"),
        ({"train": 0, "eval": 11, "demonstrations": 0}, "10 different problems for eval"),
        ({"train": 0, "eval": 5, "demonstrations": 6}, "5 of the 5 training rows have a worked solution"),
    ],
)
def test_counts_larger_than_there_is(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        task(path=write(tmp_path / "rows.jsonl", gsm8k(10)), **counts).load(0)


def test_unknown_columns_and_columns_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"q": "1+1?", "gold": "2", "steps": "It is 2."}])
    with pytest.raises(DataError, match=r"rows\.jsonl:1: columns q, gold, steps(.|\n)*question and answer"):
        task(path=path).load(0)
    named = task(
        path=path,
        question_column="q",
        answer_column="gold",
        solution_column="steps",
        instruction="",
        train=0,
        eval=0,
        demonstrations=1,
    )
    (row,) = named.load(0).demonstrations
    assert (row["prompt"], row["completion"]) == ("1+1?", "It is 2.\nThe final answer is \\boxed{2}.")
    with pytest.raises(DataError, match="no column 'missing'"):
        task(path=path, question_column="missing").load(0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("{", "not JSON"),
        ("[1]\n", "a list"),
        ('{"question": "  ", "answer": "#### 1"}', "the text of the problem"),
        ('{"question": "a", "answer": ["1"]}', "a list"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        task(path=str(path)).load(0)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        task(path=str(tmp_path / "none.jsonl")).load(0)
    with pytest.raises(DataError, match="file type"):
        task(path=str(tmp_path / "none.txt")).load(0)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"path": "a.jsonl", "dataset": "some/data"},
        {"path": "a.jsonl", "eval_split": "test"},
        {"dataset": "some/data", "eval_split": "test", "eval_path": "b.jsonl"},
    ],
)
def test_settings_that_contradict(settings: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, ValueError)):
        task(**settings)


def test_a_dataset_as_the_hub_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "train.jsonl", gsm8k(8))
    write(folder / "test.jsonl", gsm8k(4, start=50))
    data = task(dataset=str(folder), eval_split="test", train=None, eval=None, demonstrations=3).load(0)
    assert [len(rows) for rows in (data.train, data.demonstrations, data.eval)] == [5, 3, 4]


def test_a_dataset_that_cannot_be_reached(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be loaded(.|\n)*name them with `path`"):
        task(dataset=str(tmp_path / "nothing"), splits="train").load(0)


def test_calculator_marks() -> None:
    assert without_calculator_marks("48/2 = <<48/2=24>>24, 1<2, <<a\n>>") == "48/2 = 24, 1<2, <<a\n>>"


def test_the_task_needs_no_heavy_import() -> None:
    code = (
        "import sys, posttrain.tasks.math\n"
        "assert not {'torch', 'transformers', 'trl', 'datasets', 'sympy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_column_of_a_row_reaches_the_rewards_but_reserved_names(tmp_path: Path) -> None:
    rows = [{**row, "unit": "coins", "id": n, "task": "sums", "tests": {"n": n}} for n, row in enumerate(gsm8k(6))]
    rows[2].pop("unit")
    data = task(path=write(tmp_path / "rows.jsonl", rows), train=3, eval=1, demonstrations=2).load(0)
    everything = [*data.train, *data.eval, *data.demonstrations]
    assert {row["id"]: row["unit"] for row in everything} == {0: "coins", 1: "coins", 2: None} | dict.fromkeys(
        (3, 4, 5), "coins"
    )
    assert all(row["tests"] == {"n": row["id"]} and row["question"] in row["prompt"] for row in everything)
    assert all("task" not in row and "####" not in row["answer"] for row in everything)
    assert data.notes[1].startswith("the column task of the files does not reach the rewards")


def test_two_answers_to_one_problem_are_told_and_the_first_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [*gsm8k(5), {"question": "what is  1 + 1?", "answer": "#### 3"}])
    data = task(path=path, eval=1, demonstrations=0).load(0)
    assert data.notes[0] == "6 rows: 1 with another answer to an earlier problem, 1 held out, 4 prompts"
    assert f"{path}:6: '3', and {path}:2 says '2'" in data.notes[1]
    assert "3" not in {row["answer"] for row in [*data.train, *data.eval]}


@pytest.mark.parametrize(("rows", "parts"), [(200, (80, 80, 40)), (7, (3, 3, 1)), (1500, (650, 650, 200))])
def test_left_to_themselves_the_counts_leave_something_for_each(
    tmp_path: Path, rows: int, parts: tuple[int, int, int]
) -> None:
    data = task(path=write(tmp_path / "rows.jsonl", gsm8k(rows))).load(0)
    assert (len(data.train), len(data.demonstrations), len(data.eval)) == parts


def test_problems_without_a_solution_are_prompts(tmp_path: Path) -> None:
    rows = [*gsm8k(4), *({"question": f"Is it {n}?", "answer": n} for n in range(16))]
    data = task(path=write(tmp_path / "rows.jsonl", rows), eval=0).load(0)
    assert (len(data.train), len(data.demonstrations)) == (16, 4)
    data = task(path=write(tmp_path / "rows.jsonl", rows), eval=0, train=18).load(0)
    assert (len(data.train), len(data.demonstrations)) == (18, 2)


def test_prompts_and_demonstrations_may_be_the_same_problems(tmp_path: Path) -> None:
    data = task(path=write(tmp_path / "rows.jsonl", gsm8k(20)), shared=True).load(0)
    assert prompts(data.train) == prompts(data.demonstrations)
    assert not prompts(data.train) & prompts(data.eval)
    assert data.notes == ["20 rows: 4 held out, 16 left for both"]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"eval": 10, "demonstrations": 2}, r"eval takes 10 \(10 rows: 10 held out\)(.|\n)*set eval to 2 or less"),
        ({"eval": 7, "train": 0, "demonstrations": 5}, r"3 of the 3 training rows(.|\n)*set eval to 2 or less"),
        ({"eval": 2, "train": 5, "demonstrations": 8}, r"0 problems besides(.|\n)*fix: lower eval or d(.|\n)*shared"),
        ({"eval": 11}, r"10 different problems for eval(.|\n)*set eval to 2, leave it out"),
    ],
)
def test_an_error_names_what_took_the_rows(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        task(path=write(tmp_path / "rows.jsonl", gsm8k(10)), **counts).load(0)
    assert "to 0" not in str(caught.value)


def test_a_table_of_cells(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('\ufeffquestion;answer;unit\n"How ""many""; in\nall?";007;\nAnd 2?;2;km\n', encoding="utf-8")
    data = task(path=str(path), eval=0, demonstrations=0, instruction="").load(0)
    assert {row["prompt"]: (row["answer"], row["unit"]) for row in data.train} == {
        'How "many"; in\nall?': ("007", None),
        "And 2?": ("2", "km"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,answer\na,1,2\n", r"rows\.csv:2: 3 cells in a row, and the header has 2"),
        ("question,question\na,1\n", "names the column 'question' twice"),
        ("question,\na,1\n", "a column without a name"),
        ('question,answer\n"a,1\n', "unexpected end of data"),
        ("question,answer\n", "no rows"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        task(path=str(path)).load(0)
