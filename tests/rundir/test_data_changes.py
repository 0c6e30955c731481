"""A data set that changed, told in words from what a run kept of its rows."""

from __future__ import annotations

import json

import pytest

from posttrain.rundir.data_changes import LONGEST_VALUE, ROWS_SHOWN, contents, data_changes

ROWS = [{"prompt": f"Is person {n} a knight?", "answer": f"{n} is a knave", "people": 2} for n in range(20)]


def told(was, now, split="train"):
    kept = json.loads(json.dumps(contents(**{split: was})))  # as from data.json
    return data_changes(kept, contents(**{split: now}))


def changed(rows, number, **values):
    return [*rows[:number], {**rows[number], **values}, *rows[number + 1 :]]


def test_the_same_rows_are_no_change_whatever_the_order_of_their_columns():
    assert told(ROWS, [dict(reversed(row.items())) for row in ROWS]) == []


@pytest.mark.parametrize(
    ("now", "lines"),
    [
        (
            changed(ROWS, 7, answer="7 is a knight"),
            ["data, train: 20 rows; 1 gone, 1 new",
             "data, train, row 7 (from 0, the first that differs): answer: \"7 is a knave\" -> \"7 is a knight\""],
        ),
        (
            ROWS[:15],
            ["data, train: 20 -> 15 rows; 5 gone, 0 new",
             "data, train, row 15 (from 0, the first that differs): prompt: \"Is person 15 a knight?\"; "
             "answer: \"15 is a knave\"; people: 2 -> (absent)"],
        ),
        (
            [*ROWS, {"prompt": "Q"}],
            ["data, train: 20 -> 21 rows; 0 gone, 1 new",
             "data, train, row 20 (from 0, the first that differs): (absent) -> prompt: \"Q\""],
        ),
        (
            [ROWS[1], ROWS[0], *ROWS[2:]],
            ["data, train: 20 rows; the same ones in another order",
             "data, train, row 0 (from 0, the first that differs): prompt: \"Is person 0 a knight?\" -> "
             "\"Is person 1 a knight?\"; answer: \"0 is a knave\" -> \"1 is a knave\""],
        ),
        (
            [{"prompt": row["prompt"], "people": 2, "level": 1} for row in ROWS],
            ["data, train: 20 rows; columns removed: answer; columns added: level; 20 gone, 20 new",
             "data, train, row 0 (from 0, the first that differs): answer: \"0 is a knave\" -> (absent); "
             "level: (absent) -> 1"],
        ),
        (
            [{f"column {n}": n for n in range(9)}],
            ["data, train: 20 -> 1 rows; columns removed: answer, people, prompt; columns added: "
             + ", ".join(f"column {n}" for n in range(9)) + "; 20 gone, 1 new",
             "data, train, row 0 (from 0, the first that differs): prompt: \"Is person 0 a knight?\" -> (absent); "
             "answer: \"0 is a knave\" -> (absent); people: 2 -> (absent); and 9 more columns"],
        ),
    ],
    ids=["a value", "fewer", "more", "order", "columns", "another task"],
)  # fmt: skip
def test_what_changed(now, lines):
    assert told(ROWS, now) == lines


def test_each_split_is_told_apart_and_an_unchanged_one_not_at_all():
    was = contents(train=ROWS[:5], demonstrations=ROWS[5:9], eval=ROWS[9:])
    now = contents(train=ROWS[:5], demonstrations=[], eval=changed(ROWS[9:], 0, people=3))
    assert [line.partition(":")[0] for line in data_changes(was, now)] == [
        "data, demonstrations",
        "data, demonstrations, row 0 (from 0, the first that differs)",
        "data, eval",
        "data, eval, row 0 (from 0, the first that differs)",
    ]
    assert was["fingerprint"] != now["fingerprint"]


def test_long_values_that_begin_alike_are_told_apart():
    (_, line) = told([{"prompt": "long " * 99 + "a"}], [{"prompt": "long " * 99 + "b"}])
    _, was, now = line.replace(" -> ", "prompt: ").split("prompt: ")
    assert was != now
    for text in (was, now):
        assert text.startswith('"long long')
        assert "(498 characters, " in text
        assert len(text) < LONGEST_VALUE + 20


def test_a_row_beyond_those_that_are_shown_is_still_named():
    many = [{"n": n} for n in range(ROWS_SHOWN + 10)]
    _, line = told(many, changed(many, ROWS_SHOWN + 3, n=-1))
    assert line == (
        f"data, train, row {ROWS_SHOWN + 3} (from 0, the first that differs): what it was is not kept beyond row "
        f"{ROWS_SHOWN}"
    )
    assert told(many, many[:-1])[1].endswith("a row -> (absent)")
    assert told(many[:-1], many)[1].endswith("(absent) -> a row")


def test_what_is_kept_of_a_large_data_set_is_small():
    many = [{"prompt": "p" * 500, "n": n} for n in range(50_000)]
    assert len(json.dumps(contents(train=many))) < 600_000


def test_the_fingerprint_sees_order_values_and_which_split_a_row_is_in():
    a, b = {"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}
    prints = [
        contents(train=rows, eval=others)["fingerprint"]
        for rows, others in (
            ([a, b], []),
            ([b, a], []),
            ([a], [b]),
            ([a, {**b, "n": 3}], []),
            ([a, {"prompt": "b"}], []),
        )
    ]
    assert len(set(prints)) == 5
