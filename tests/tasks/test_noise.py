"""`noise_share` of the generators: which demonstrations are wrong, how, and that all else stays as it is."""

from __future__ import annotations

import hashlib
import json
import random

import pytest

from posttrain.errors import DataError
from posttrain.rewards import countdown, json_structure, knights_knaves, table_structure
from posttrain.tasks.countdown import Countdown
from posttrain.tasks.json_structure import JsonStructure
from posttrain.tasks.json_structure.noise import values_by_place, with_wrong_values
from posttrain.tasks.knights_knaves import KnightsKnaves
from posttrain.tasks.knights_knaves.cot import thought
from posttrain.tasks.knights_knaves.logic import parse_statements, solve
from posttrain.tasks.knights_knaves.noise import misread
from posttrain.tasks.mixture import Mixture
from posttrain.tasks.noise import noisy, note, without_noise
from posttrain.tasks.table_structure import TableStructure

COUNTS = {"train": 20, "eval": 10, "demonstrations": 40}
CASES = [
    pytest.param(KnightsKnaves, knights_knaves.score, options, id=f"knights_knaves {number}")
    for number, options in enumerate(
        [{"people": [2], "split": "content", "prompt": "short", "cot": "copy", "think_share": 0.5}, {"people": [3, 5]}]
    )
] + [
    pytest.param(JsonStructure, json_structure.score, options, id=f"json_structure {number}")
    for number, options in enumerate([{}, {"difficulty": [1], "style": "indent", "prompt": "short"}])
] + [
    pytest.param(TableStructure, table_structure.score, options, id=f"table_structure {number}")
    for number, options in enumerate([{}, {"forms": ["latex"], "columns": [2], "kinds": ["flag"], "prompt": "short"}])
] + [
    pytest.param(Countdown, countdown.score, options, id=f"countdown {number}")
    for number, options in enumerate(
        [{"think_share": 0.5}, {"numbers": [2], "operators": ["+"], "target": [2, 150], "prompt": "short"}]
    )
]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "digest"),
    [
        (KnightsKnaves(people=[2, 3], think_share=0.5, train=20, eval=10, demonstrations=30), "c435e668d86a0a7c"),
        (
            KnightsKnaves(
                people=[2], split="content", prompt="short", cot="copy", train=20, eval=10, demonstrations=30
            ),
            "6cd313eda235f020",
        ),
        (JsonStructure(train=20, eval=10, demonstrations=30), "439e870f1568fa5a"),
        (
            JsonStructure(difficulty=[1], style="indent", prompt="short", train=20, eval=10, demonstrations=30),
            "f8dc67c64183e150",
        ),
    ],
)
def test_without_noise_the_rows_are_what_they_were_before_there_was_any(task, digest):
    data = task.load(7)
    assert data.notes == []
    rows = json.dumps([data.train, data.demonstrations, data.eval])
    assert hashlib.sha256(rows.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize(("task", "score", "options"), CASES)
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_as_many_as_asked_for_are_wrong_and_nothing_else_changes(task, score, options, share):
    data, clean = (task(**COUNTS, **options, **more).load(1) for more in ({"noise_share": share}, {}))
    assert data.train == clean.train
    assert data.eval == clean.eval
    right = [score(**row).value == 1 for row in data.demonstrations]
    assert right.count(False) == round(40 * share)
    for row, before, passes in zip(data.demonstrations, clean.demonstrations, right, strict=True):
        assert row["noisy"] is not passes
        assert ("<think>" in row["completion"]) == ("<think>" in before["completion"])  # think_share holds
        same = {key: value for key, value in row.items() if key not in ("noisy", "completion")}
        assert same == {key: value for key, value in before.items() if key != "completion"}
        assert (row["completion"] == before["completion"]) is passes
    (said,) = data.notes
    assert f"{round(40 * share)} of 40 demonstrations are wrong on purpose (noise_share {share:g})" in said
    assert [row["prompt"] for row in without_noise(data.demonstrations)] == [
        row["prompt"] for row, passes in zip(data.demonstrations, right, strict=True) if passes
    ]
    assert task(**COUNTS, **options, noise_share=share).load(1) == data
    others = task(**COUNTS, **options, noise_share=0.3).load(2).demonstrations
    if share < 1:
        assert [row["noisy"] for row in others] != [row["noisy"] for row in data.demonstrations]


@pytest.mark.parametrize(
    ("count", "share", "wrong"), [(10, 0.3, 3), (300, 0.25, 75), (7, 0.5, 4), (3, 0.1, 0), (5, 1, 5)]
)
def test_noise_is_evenly_spread(count, share, wrong):
    for seed in range(5):
        flags = noisy(count, share, random.Random(seed))
        assert sum(flags) == wrong
        for length in range(1, count + 1):
            for start in range(count - length + 1):
                expected = length * wrong / count
                assert abs(sum(flags[start : start + length]) - expected) < 1 + 1e-9
    assert noisy(0, 0.5, random.Random(0)) == []
    assert note([], 0.5, "so") == []
    assert note([{"prompt": ""}], 0.0, "so") == []


def test_a_thought_about_a_misread_claim_is_sound_for_what_was_read():
    task = KnightsKnaves(people=[2, 3], split="content", train=0, eval=0, demonstrations=40, noise_share=1.0)
    rng = random.Random("knights_knaves misread 3")
    for row in task.load(3).demonstrations:
        statements = parse_statements(row["statements"])
        changed, solution = misread(statements, row["solution"], rng)
        assert solve(changed) == [solution]
        assert list(solution) != row["solution"]
        assert sum(a != b for a, b in zip(changed, statements, strict=True)) <= 2
        assert f"<think>{thought('assume', changed, row['names'], row['knight_knave'])}</think>" in row["completion"]


def test_a_puzzle_that_no_one_misreading_makes_wrong():
    # A: if I am a knight, then so is B. B: A is a knight or I am a knave. Whatever one of them says, both are knights.
    statements = (
        ("->", ("telling-truth", 0), ("telling-truth", 1)),
        ("or", ("telling-truth", 0), ("lying", 1)),
    )
    assert solve(statements) == [(True, True)]
    changed, solution = misread(statements, [True, True], random.Random(0))
    assert solve(changed) == [solution] != [(True, True)]
    assert all(a != b for a, b in zip(changed, statements, strict=True))


def test_rows_of_files_without_statements_are_refused(tmp_path):
    file = tmp_path / "puzzles.jsonl"
    rows = KnightsKnaves(people=[2], split="content", train=0, eval=0, demonstrations=4).load(0).demonstrations
    file.write_text("".join(json.dumps({key: row[key] for key in row if key != "statements"}) + "\n" for row in rows))
    counts = {"train": 0, "eval": 0, "demonstrations": 4, "think_share": 0.0, "split": "content"}
    assert len(KnightsKnaves(path=[str(file)], **counts).load(0).demonstrations) == 4
    with pytest.raises(DataError, match="no statements to misread"):
        KnightsKnaves(path=[str(file)], noise_share=0.5, **counts).load(0)


def test_half_of_the_values_are_of_other_texts():
    golds = [{"a": 1, "b": {"c": "x", "d": [True]}}, {"a": 2, "b": {"c": "y"}}, {"a": 1}]
    elsewhere = values_by_place(golds)
    assert elsewhere == {("a",): [1, 2], ("b", "c"): ["x", "y"], ("b", "d", 0): [True]}
    seen = set()
    for seed in range(30):
        wrong = with_wrong_values(golds[0], elsewhere, random.Random(seed))
        assert golds[0] == {"a": 1, "b": {"c": "x", "d": [True]}}
        seen.add(json.dumps(wrong))
    # two of the three leaves: from another text where one has another value, else made up
    assert seen == {
        '{"a": 2, "b": {"c": "y", "d": [true]}}', '{"a": 2, "b": {"c": "x", "d": [false]}}',
        '{"a": 1, "b": {"c": "y", "d": [false]}}',
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gold", "wrong"),
    [(3, 4), (1.5, 2.5), (True, False), ("cat", "catt"), ("", "unknown"), (None, "unknown"), ({}, {"unknown": True}),
     ([], ["unknown"])],
)  # fmt: skip
def test_values_that_are_made_up(gold, wrong):
    assert with_wrong_values(gold, {(): [gold]}, random.Random(0)) == wrong


def test_true_is_no_other_number_than_1():
    assert with_wrong_values({"a": 1}, {("a",): [True, 1.0, 1]}, random.Random(0)) == {"a": 2}


def test_a_mixture_with_noise_in_one_of_its_tasks():
    parts = [
        KnightsKnaves(people=[2], split="content", noise_share=0.5, train=4, eval=4, demonstrations=8),
        Countdown(train=4, eval=4, demonstrations=6),
    ]
    data = Mixture(tasks=parts).load(0)
    assert [row["noisy"] for row in data.demonstrations].count(True) == 4
    assert [row["noisy"] for row in data.demonstrations].count(None) == 6
    assert len(without_noise(data.demonstrations)) == 10
    assert data.notes == [
        "knights_knaves: 4 of 8 demonstrations are wrong on purpose (noise_share 0.5): a claim is misread"
    ]
