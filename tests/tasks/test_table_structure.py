"""The task `table_structure`: its tables, what no two parts share, and what is refused."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset
from pydantic import TypeAdapter, ValidationError

from posttrain.errors import ConfigError, DataError
from posttrain.rewards.majority import score as majority
from posttrain.rewards.table_structure import score
from posttrain.tasks.table_structure import FORMS, TableStructure, generate_rows

COUNTS = {"train": 90, "eval": 30, "demonstrations": 60}


def content(row):
    table = json.loads(row["table"])
    return tuple(table["columns"]), tuple(map(tuple, table["rows"]))


def test_rows_say_what_their_table_holds_and_demonstrations_score_1():
    data = TableStructure(**COUNTS).load(0)
    assert [len(data.train), len(data.eval), len(data.demonstrations)] == [90, 30, 60]
    assert data.notes == []
    sizes = set()
    for row in data.train + data.eval + data.demonstrations:
        columns, rows = content(row)
        sizes.add((len(columns), len(rows)))
        lines = row["text"].split("\n")
        assert len(lines) == len(rows)
        assert len({cells[0] for cells in rows}) == len(rows)
        for line, cells in zip(lines, rows, strict=True):
            assert all(cell in line for cell in cells if cell not in ("yes", "no"))
        assert f"Columns: {', '.join(columns)}\n" in row["prompt"]
        assert row["text"] in row["prompt"]
    assert sizes == {(columns, rows) for columns in (2, 3, 4) for rows in (2, 3, 4)}
    for row in data.demonstrations:
        assert score(**row).value == 1
    for part, count in (("train", 30), ("eval", 10), ("demonstrations", 20)):
        assert {form: sum(row["form"] == form for row in getattr(data, part)) for form in FORMS} == dict.fromkeys(
            FORMS, count
        )
    assert Dataset.from_list(data.demonstrations).to_list() == data.demonstrations


def test_no_held_out_table_is_another_parts_in_whatever_form_and_seeds_differ():
    few = TableStructure(
        **COUNTS, table_rows=[1], columns=[2], domains=["event"], kinds=["text"], vocabulary=8, synonyms=False
    )
    data = few.load(0)
    held_out = {content(row) for row in data.eval}
    others = [content(row) for row in data.train + data.demonstrations]
    assert not held_out & set(others)
    assert len(set(others)) < len(others)  # so there was something to keep apart
    assert len({row["text"] for row in data.train + data.demonstrations + data.eval}) == 180
    assert few.load(0) == data
    assert few.load(1) != data
    more = TableStructure(**{**COUNTS, "train": 10}).load(0)
    whole = TableStructure(**COUNTS).load(0)
    assert (more.eval, more.demonstrations) == (whole.eval, whole.demonstrations)


def test_what_is_asked_for_is_what_there_is():
    data = TableStructure(
        **COUNTS, forms=["latex"], table_rows="1-2", columns=3, kinds=["integer", "flag"], prompt="short",
        domains=["recipe"], synonyms=False,
    ).load(3)  # fmt: skip
    assert {row["form"] for row in data.train} == {"latex"}
    assert {len(content(row)[1]) for row in data.train} == {1, 2}
    others = {name for row in data.train for name in content(row)[0][1:]}
    assert others == {"minutes", "servings", "vegan"}
    assert data.train[0]["prompt"] == f"latex: {', '.join(content(data.train[0])[0])}\n{data.train[0]['text']}\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"table_rows": 7}, "table_rows of a table, from 1 to 6"),
        ({"table_rows": "0-2"}, "table_rows of a table, from 1 to 6"),
        ({"columns": [1]}, "columns of a table, from 2 to 6"),
        ({"columns": 3, "kinds": ["flag"]}, "at most 2"),
        ({"columns": 6, "kinds": ["text", "integer"]}, "at most 5"),
        ({"domains": ["zoo"]}, "zoo"),
    ],
)
def test_what_makes_no_sense_is_refused(options, said):
    with pytest.raises(ConfigError) as refused:
        TableStructure(**options)
    assert said in str(refused.value)


@pytest.mark.parametrize("options", [{"forms": []}, {"forms": ["csv"]}, {"kinds": ["many"]}, {"vocabulary": 5}])
def test_what_no_recipe_takes(options):
    with pytest.raises(ValidationError):
        TypeAdapter(TableStructure).validate_python(options)


def test_too_few_texts_are_said():
    with pytest.raises(DataError, match="no new one was found"):
        generate_rows(["text"], 2000, table_rows=1, columns=2, kinds=["flag"], domains=["sensor"], vocabulary=6)


def test_its_tables_can_be_voted_on():
    row = generate_rows(["html"], 1)[0]
    columns = {name: row[name] for name in ("table", "form")}
    right = row["completion"]
    group = [right, right.replace("<td>", "<TD >"), "no table", right.replace("<td>", "<td>x", 1)]
    said = [majority(one, of="table_structure", group_completions=group, **columns) for one in group]
    assert [each.value for each in said] == [1, 1, 0, 0]
    assert said[0].parts["agreement"] == 0.5
