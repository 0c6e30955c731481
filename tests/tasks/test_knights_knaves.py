from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from posttrain.errors import ConfigError, DataError
from posttrain.storage.files import write_jsonl
from posttrain.tasks.knights_knaves import KnightsKnaves, generate_rows, parse_people, write
from posttrain.tasks.knights_knaves.logic import ATOMS, parse_statements, solve, structure

COLUMNS = {"quiz", "names", "knight_knave", "solution", "solution_text_format", "statements", "people"}


def small(**options):
    counts = {"train": 120, "eval": 30, "demonstrations": 40}
    return KnightsKnaves(**{"people": [2, 3, 4, 8], "depth": 2, **counts, **options})


def content(row):
    return (tuple(row["names"]), row["statements"])


def statements_of(row):
    return parse_statements(row["statements"])


def depth(claim):
    return 0 if claim[0] in ATOMS else 1 + max(depth(part) for part in claim[1:])


def tags(claim):
    return set() if claim[0] in ATOMS else {claim[0]}.union(*(tags(part) for part in claim[1:]))


def test_rows_have_the_columns_counts_and_one_solution():
    data = small().load(0)
    assert [len(data.train), len(data.eval), len(data.demonstrations)] == [120, 30, 40]
    for row in data.train + data.eval:
        assert set(row) == COLUMNS | {"prompt"}
    for row in data.demonstrations:
        assert set(row) == COLUMNS | {"prompt", "completion"}
        assert row["completion"].startswith("<think>")
        assert row["completion"].endswith(f"</think>\n<answer>{row['solution_text_format']}</answer>")
    for row in data.train + data.eval + data.demonstrations:
        assert solve(statements_of(row)) == [tuple(row["solution"])]
        assert row["people"] == len(row["names"]) == len(set(row["names"]))
        assert row["prompt"].startswith(row["quiz"])
        assert json.loads(json.dumps(row)) == row
    for people in (2, 3, 4, 8):
        assert sum(row["people"] == people for row in data.train) == 30


@pytest.mark.parametrize("split", ["structure", "statements", "content"])
def test_no_duplicates_and_disjoint_parts(split):
    # Few names and a small space, so that the same claims come up again and again.
    task = small(people=[2], depth=1, names=4, eval=20, demonstrations=60, train=900, split=split)
    data = task.load(3)
    everything = data.train + data.demonstrations + data.eval
    assert len({content(row) for row in everything}) == len(everything) == 980
    keys = {
        "structure": lambda row: structure(statements_of(row)),
        "statements": lambda row: row["statements"],
        "content": content,
    }
    key = keys[split]
    held_out = {key(row) for row in data.eval}
    assert len(held_out) == 20
    assert not held_out & {key(row) for row in data.train + data.demonstrations}
    if split != "structure":  # the stricter key does overlap here, so the check above could have failed
        assert {structure(statements_of(r)) for r in data.eval} & {structure(statements_of(r)) for r in data.train}


def test_more_train_puzzles_change_nothing_else():
    few, many = small(train=10).load(1), small(train=200).load(1)
    assert few.eval == many.eval
    assert few.demonstrations == many.demonstrations


def test_seeds_differ():
    one, other = small().load(1), small().load(2)
    assert not {content(row) for row in one.eval} & {content(row) for row in other.eval}


def test_same_rows_in_every_process():
    code = (
        "import hashlib, json, dataclasses\n"
        "from posttrain.tasks.knights_knaves import KnightsKnaves\n"
        "data = KnightsKnaves(people='2-4', depth=2, train=50, eval=20, demonstrations=20, think_share=0.5).load(7)\n"
        "print(hashlib.sha256(json.dumps(dataclasses.asdict(data)).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("0", "1", "4242")
    }
    task = KnightsKnaves(people=[2, 3, 4], depth=2, train=50, eval=20, demonstrations=20, think_share=0.5)
    here = hashlib.sha256(json.dumps(dataclasses.asdict(task.load(7))).encode()).hexdigest()
    assert digests == {here}


@pytest.mark.parametrize(("most", "words"), [(1, ["iff"]), (2, ["and", "not"]), (3, ["or", "if"])])
def test_depth_and_connectives_are_kept_to(most, words):
    data = small(people=[4, 5], depth=most, connectives=words, train=60, eval=5, demonstrations=5).load(0)
    claims = [claim for row in data.train for claim in statements_of(row)]
    assert max(depth(claim) for claim in claims) == most
    spelled = {"and": "and", "or": "or", "not": "not", "if": "->", "iff": "<=>"}
    assert set().union(*(tags(claim) for claim in claims)) == ({spelled[word] for word in words})


def test_nobody_speaks_only_of_themselves():
    bare = 0
    for row in small(people=[3, 4, 5]).load(0).train:
        for speaker, claim in enumerate(statements_of(row)):
            inner = claim[1] if claim[0] == "not" else claim
            if inner[0] in ATOMS:
                assert inner[1] != speaker
                bare += 1
    assert bare > 50


def test_share_of_demonstrations_that_think():
    rows = small(think_share=0.25).load(0).demonstrations
    direct = [row for row in rows if row["completion"].startswith("<answer>")]
    assert len(direct) == 30
    assert all(row["completion"] == f"<answer>{row['solution_text_format']}</answer>" for row in direct)
    flags = [row["completion"].startswith("<think>") for row in rows]
    assert flags != sorted(flags, reverse=True)


def test_short_prompt_and_copy_form():
    task = small(prompt="short", cot="copy", people=[2], depth=1, split="statements")
    row = task.load(0).demonstrations[0]
    ann, bob = row["names"]
    assert row["prompt"].startswith(f"Puzzle: {ann} says ")
    assert f". {bob} says " in row["prompt"]
    assert row["completion"].startswith(f"<think>Try {ann} knight {bob} knight. {ann} knight says ")
    assert "  " not in row["prompt"] + row["completion"]


def test_other_role_words():
    data = small(knight_knave={"knight": "pioneer", "knave": "laggard"}).load(0)
    row = data.demonstrations[0]
    assert row["knight_knave"]["a_knight"] == "a pioneer"
    assert row["solution_text_format"].startswith(
        f"(1) {row['names'][0]} is a {'pioneer' if row['solution'][0] else 'l'}"
    )
    assert "knight" not in row["prompt"] + row["completion"]


def test_too_small_a_space_is_a_clear_error():
    with pytest.raises(DataError) as caught:
        small(people=[2], depth=1, eval=300).load(0)
    assert "of 300 eval puzzles" in str(caught.value)
    assert "less strict split" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "people"), [(3, [3]), ("2-4", [2, 3, 4]), ("8", [8]), ("2,5-6", [2, 5, 6]), ([4, 2, 4], [4, 2])]
)
def test_people_spellings(value, people):
    assert parse_people(value) == people
    assert TypeAdapter(KnightsKnaves).validate_python({"people": value}).people == people


@pytest.mark.parametrize("value", [1, 9, "2-9", "", "two", [], [2, "x"], None, 2.5, True])
def test_people_out_of_bounds(value):
    with pytest.raises(ConfigError, match="numbers from 2 to 8"):
        parse_people(value)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"poeple": [2]}, "poeple"),
        ({"people": [12]}, "numbers from 2 to 8"),
        ({"people": [5], "names": 4}, "at least one name per person"),
        ({"connectives": ["xor"]}, "connectives"),
        ({"connectives": ["not"]}, "at least one besides not"),
        ({"connectives": []}, "at least one besides not"),
        ({"depth": 5}, "depth"),
        ({"depth": 0}, "depth"),
        ({"think_share": 1.5}, "think_share"),
        ({"train": -1}, "train"),
        ({"knight_knave": {"knight": "saint"}}, "at least knight and knave"),
        ({"knight_knave": {"knight": "saint", "knave": "Saint"}}, "both roles"),
        ({"knight_knave": {"knight": "saint", "knave": "sinner", "saint": "x"}}, "saint"),
    ],
)
def test_recipe_errors(recipe, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(KnightsKnaves).validate_python({"name": "knights_knaves", **recipe})


def test_a_resolved_recipe_reads_back():
    adapter = TypeAdapter(KnightsKnaves)
    task = small(path=["some.jsonl"], knight_knave={"knight": "saint", "knave": "sinner"})
    assert adapter.validate_python(adapter.dump_python(task)) == task
    assert task.path == ["some.jsonl"]


def test_default_people():
    assert KnightsKnaves().people == [2, 3, 4]
    assert KnightsKnaves(path=["a.jsonl"]).people == [2, 3, 4, 5, 6, 7, 8]


def test_written_rows_read_back(tmp_path):
    out = tmp_path / "new" / "kk.jsonl"
    assert write(out, "2-4", 60, seed=5, depth=2, cot="copy", prompt="short") == 60
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows == generate_rows("2-4", 60, seed=5, depth=2, cot="copy", prompt="short")
    assert [path.name for path in out.parent.iterdir()] == ["kk.jsonl"]
    data = KnightsKnaves(path=[str(out)], train=20, eval=10, demonstrations=10, cot="copy", prompt="short").load(0)
    written = {row["prompt"]: row["completion"] for row in rows}
    assert all(written[row["prompt"]] == row["completion"] for row in data.demonstrations)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"people": "2-9"}, "numbers from 2 to 8"),
        ({"count": -1}, "count"),
        ({"depth": 9}, "depth"),
        ({"cot": "x"}, "cot"),
    ],
)
def test_generate_rows_names_the_bad_argument(arguments, message):
    with pytest.raises(ConfigError, match=message):
        generate_rows(**{"people": 3, "count": 5, **arguments})


def test_a_failed_write_leaves_the_old_file(tmp_path):
    out = tmp_path / "kk.jsonl"
    write_jsonl(out, [{"a": 1}])

    def rows():
        yield {"a": 2}
        yield {"a": object()}

    with pytest.raises(TypeError):
        write_jsonl(out, rows())
    assert out.read_text() == '{"a": 1}\n'
    assert list(tmp_path.iterdir()) == [out]
