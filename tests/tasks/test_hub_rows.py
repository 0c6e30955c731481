"""A folder in the hub's form gives its rows' values as they stand in the files; what cannot be told is refused."""

from __future__ import annotations

import json

import pytest
from datasets import load_dataset

from posttrain.errors import DataError
from posttrain.tasks.hub_rows import read_hub
from posttrain.tasks.row_files import read_files

ROWS = [{"q": "a", "answer": text} for text in ("007", "null", 42, "[1, 2]", "x", None, 1.5, "true")]
ANSWERS = [row["answer"] for row in ROWS]


def answers(rows) -> list:
    return [row.columns["answer"] for row in rows]


@pytest.fixture(autouse=True)
def cached_here(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("name", ["train.jsonl", "data/train-00000-of-00001.jsonl", "train.json"])
def test_texts_that_are_json_stay_texts(tmp_path, name):
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    file.write_text(lines if file.suffix == ".jsonl" else json.dumps(ROWS))
    file.with_name(file.name.replace("train", "test")).with_suffix(".jsonl").write_text(
        '{"q": "held out", "answer": "7"}\n{"q": "more"}\n'
    )
    rows = read_hub(str(tmp_path / "mine"), None, ["train"])
    assert answers(rows) == answers(read_files([str(file)])) == ANSWERS
    assert answers(read_hub(str(tmp_path / "mine"), None, ["test"])) == ["7", None], "columns as in a table"
    assert load_dataset(str(tmp_path / "mine"), split="train")["answer"] != ANSWERS, "what this is about"


def test_what_only_datasets_reads_is_refused_where_it_would_change(tmp_path):
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with pytest.raises(DataError, match=r"the column 'answer' has values of several kinds(.|\n)*`path`"):
        read_hub(str(tmp_path / "mine"), None, ["train[:4]"])
    file.write_text("".join(json.dumps({"answer": f"00{i}", "meta": {f"k{i}": i}}) + "\n" for i in range(4)))
    assert answers(read_hub(str(tmp_path / "mine"), None, ["train[:2]"])) == ["000", "001"]
