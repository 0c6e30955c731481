from __future__ import annotations

import json

import pyarrow
import pytest
from pyarrow import parquet

from posttrain.errors import DataError
from posttrain.tasks.knights_knaves import KnightsKnaves, generate_rows
from posttrain.tasks.knights_knaves.published import read_published

ROLES = {
    "knight": "pioneer",
    "knave": "laggard",
    "a_knight": "a pioneer",
    "a_knave": "a laggard",
    "Knight": "Pioneer",
    "Knave": "Laggard",
}


def puzzle(**changes):
    """A row as published, with perturbed role words: Cal says Dee is a laggard, Dee says they both are laggards."""
    row = {
        "quiz": "A very special island is inhabited only by pioneers and laggards. Pioneers always tell the truth, and "
        'laggards always lie. You meet 2 inhabitants: Cal, and Dee. Cal noted, "Dee is a laggard". '
        '"Dee is a laggard and Cal is a laggard" - Dee. So who is a pioneer and who is a laggard?',
        "names": ["Cal", "Dee"],
        "knight_knave": ROLES,
        "solution": [True, False],
        "solution_text": "Cal is a pioneer, and Dee is a laggard.",
        "solution_text_format": "(1) Cal is a pioneer\n(2) Dee is a laggard",
        "cot_head": "Head.",
        "cot_repeat_steps": ["First step.", "Second step."],
        "cot_foot": "Foot.",
        "statements": "(('lying', 1), ('and', ('lying', 1), ('lying', 0)))",
        "index": 3,
    }
    row.update(changes)
    return {column: value for column, value in row.items() if value is not None}


def save(tmp_path, *rows, name="kk.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def only_demonstration(path, **options):
    data = KnightsKnaves(path=[path], train=0, eval=0, demonstrations=1, **options).load(0)
    return data.demonstrations[0]


def test_a_published_row_keeps_its_columns_and_its_chain_of_thought(tmp_path):
    row = only_demonstration(save(tmp_path, puzzle()))
    kept = puzzle()
    assert {column: row[column] for column in kept} == kept
    assert row["people"] == 2
    assert row["prompt"].startswith(kept["quiz"] + "\n")
    reserved = only_demonstration(save(tmp_path, puzzle(task="x", prompt="y", completion="z", unit="km")))
    assert (reserved["prompt"], reserved["completion"], reserved["unit"]) == (row["prompt"], row["completion"], "km")
    assert "task" not in reserved
    assert row["prompt"].endswith("(1) NAME is a pioneer")
    assert row["completion"] == (
        "<think>Head.\nFirst step.\nSecond step.\nFoot.</think>\n"
        "<answer>(1) Cal is a pioneer\n(2) Dee is a laggard</answer>"
    )


def test_our_chain_of_thought_when_there_is_none_or_it_is_asked_for(tmp_path):
    bare = save(tmp_path, puzzle(cot_head=None, cot_repeat_steps=None, cot_foot=None), name="bare.jsonl")
    full = save(tmp_path, puzzle())
    assert "Assume Cal is a pioneer" in only_demonstration(bare)["completion"]
    assert only_demonstration(full, cot="assume")["completion"] == only_demonstration(bare)["completion"]
    short = only_demonstration(full, cot="copy", prompt="short")
    assert short["prompt"] == "Puzzle: Cal says Dee is a laggard. Dee says Dee is a laggard and Cal is a laggard."
    assert short["completion"].startswith(
        "<think>Try Cal pioneer Dee pioneer. Cal pioneer says Dee laggard false = false no."
    )


def test_missing_columns_that_can_be_filled_in(tmp_path):
    quiz = puzzle()["quiz"].replace("pioneer", "knight").replace("laggard", "knave")
    path = save(tmp_path, puzzle(quiz=quiz, knight_knave=None, solution_text_format=None, statements=None))
    (row,) = read_published([path])
    assert row["knight_knave"]["a_knave"] == "a knave"
    assert row["solution_text_format"] == "(1) Cal is a knight\n(2) Dee is a knave"
    assert row["statements"] is None
    assert only_demonstration(path, think_share=0)["completion"].startswith("<answer>")


def test_rows_without_statements_cannot_have_what_needs_them(tmp_path):
    path = save(tmp_path, puzzle(statements=None, cot_repeat_steps=None))
    with pytest.raises(DataError, match="no statements to reason about"):
        only_demonstration(path)
    with pytest.raises(DataError, match="no statements for a short prompt"):
        only_demonstration(path, prompt="short")


def test_json_and_parquet(tmp_path):
    rows = [
        puzzle(),
        puzzle(names=["Cal", "Eli"], quiz=puzzle()["quiz"].replace("Dee", "Eli"), solution_text_format=None),
    ]
    jsonl = save(tmp_path, *rows)
    listed = tmp_path / "kk.json"
    listed.write_text(json.dumps(rows))
    columns = tmp_path / "kk.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), columns)
    expected = read_published([jsonl])
    assert len(expected) == 2
    assert read_published([str(listed)]) == read_published([str(columns)]) == expected


def test_people_select_rows(tmp_path):
    path = save(tmp_path, puzzle(), *generate_rows(3, 5))
    assert [row["people"] for row in read_published([path], [2])] == [2]
    with pytest.raises(DataError, match=r"puzzles of \[2, 3\] people only"):
        read_published([path], [7])


def test_rows_of_several_files_have_the_same_columns(tmp_path):
    rows = read_published([save(tmp_path, *generate_rows(3, 2)), save(tmp_path, puzzle(), name="other.jsonl")])
    assert {frozenset(row) for row in rows} == {frozenset(rows[0])}
    assert rows[0]["cot_repeat_steps"] is None


@pytest.mark.parametrize("split", ["structure", "statements", "content"])
def test_split_of_files_is_disjoint_and_drops_duplicates(tmp_path, split):
    generated = generate_rows("2-3", 300, names=4)
    path = save(tmp_path, *generated, *generated)
    data = KnightsKnaves(path=[path], split=split, train=120, eval=40, demonstrations=30).load(0)
    everything = data.train + data.eval + data.demonstrations
    assert len({(tuple(row["names"]), row["statements"]) for row in everything}) == 190
    if split == "statements":
        held_out = {row["statements"] for row in data.eval}
        assert len(held_out) == 40
        assert not held_out & {row["statements"] for row in data.train + data.demonstrations}
    assert KnightsKnaves(path=[path], split=split, train=120, eval=40, demonstrations=30).load(0) == data
    with pytest.raises(DataError, match="300 different puzzles in the files leave"):
        KnightsKnaves(path=[path], split=split, train=400, eval=40, demonstrations=30).load(0)


@pytest.mark.parametrize(
    ("changes", "column", "message"),
    [
        ({"quiz": None}, "", "no column quiz"),
        ({"names": None}, "", "no column names"),
        ({"solution": None}, "", "no column solution"),
        ({"quiz": "  "}, "quiz", "text of the puzzle"),
        ({"names": ["Cal", "Cal"]}, "names", "different names"),
        ({"names": "Cal, Dee"}, "names", "different names"),
        ({"solution": [True]}, "solution", "2 values"),
        ({"solution": ["knight", "knave"]}, "solution", "2 values"),
        ({"knight_knave": {"knight": "pioneer"}}, "knight_knave", "at least knight and knave"),
        ({"knight_knave": "pioneer"}, "knight_knave", "words for"),
        (
            {"solution_text_format": "(1) Cal is a laggard\n(2) Dee is a laggard"},
            "solution_text_format",
            "Cal is a pioneer",
        ),
        ({"statements": "(('lying', 1),"}, "statements", "not a Python literal"),
        ({"statements": "(('lying', 1), ('lying', 4))"}, "statements", "one person from 0 to 1"),
        ({"statements": "(('lying', 1), ('lying', 0))"}, "statements", "2 solutions"),
        ({"statements": "(('lying', 1), ('telling-truth', 0))"}, "statements", "0 solutions"),
        ({"solution": [False, True], "solution_text_format": None}, "statements", r"published \[False, True\]"),
        ({"cot_repeat_steps": "steps"}, "cot_repeat_steps", "list of texts"),
    ],
)
def test_a_bad_row_is_named_by_line_and_column(tmp_path, changes, column, message):
    path = save(tmp_path, puzzle(), puzzle(**changes))
    with pytest.raises(DataError, match=message) as caught:
        read_published([path])
    place = f"{path}:2 column {column}:" if column else f"{path}:2:"
    assert str(caught.value).startswith(place)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("kk.jsonl", b"", "no rows"),
        ("kk.jsonl", b'{"quiz": "a"\n', "kk.jsonl:1: not JSON"),
        ("kk.jsonl", b"\n[1]\n", "kk.jsonl:2: a list"),
        ("kk.jsonl", b"\xff\xfe\x00", "not UTF-8"),
        ("kk.json", b'{"quiz": "a"}', "a list of puzzles"),
        ("kk.parquet", b"PAR1", "unreadable"),
        ("kk.csv", b"quiz,names", "file type '.csv'"),
        (None, b"", "no such file"),
    ],
)
def test_bad_files(tmp_path, name, text, message):
    path = tmp_path / (name or "absent.jsonl")
    if name:
        path.write_bytes(text)
    with pytest.raises(DataError, match=message) as caught:
        read_published([str(path)])
    assert str(path) in str(caught.value)
