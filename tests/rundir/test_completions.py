"""The tables of completions go together: a column has its type in every file, whatever is in it there."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posttrain.rundir.completions import read_completions, write_completions

ROLLOUT = {"step": 1, "prompt": "p", "completion": "c", "advantage": 0.5, "reward/a": 1.0, "part/a.x": 0.5,
           "note": "why", "truncated": False, "length": 3, "prompt_source": "s"}  # fmt: skip
ANSWER = {"row": 0, "sample": 1, "prompt": "p", "completion": "c", "passed": True, "score": 0.5, "note": "why",
          "error": "no", "length": 3, "truncated": False, "parsed": "7", "level": 2,
          "prompt_source": "s"}  # fmt: skip


@pytest.mark.parametrize(("name", "row"), [("step-{:06d}", ROLLOUT), ("eval-final-{:06d}", ANSWER)])
def test_files_of_a_kind_go_together(tmp_path, name, row):
    """One with everything, one in which each column is empty or holds whole numbers, and one without rows."""
    of_the_rows = {key: row[key] for key in row if key == "level"}  # the same in every evaluation
    whole = {key: 1 if isinstance(value, float) else None for key, value in row.items()} | of_the_rows
    files = [
        write_completions(tmp_path / f"{name.format(step)}.parquet", rows)
        for step, rows in enumerate([[whole], [row], [dict.fromkeys(row)], []])
    ]
    table = pa.concat_tables(map(pq.read_table, files), promote_options="default")
    assert table.to_pylist() == [whole, row, dict.fromkeys(row)]
    assert pq.read_table(tmp_path).num_rows == 3
    assert {name: str(kind) for name, kind in zip(table.schema.names, table.schema.types, strict=True)} == {
        key: {str: "string", float: "double", bool: "bool", int: "int64"}[type(value)] for key, value in row.items()
    }


def test_a_reward_that_does_not_apply_is_null(tmp_path):
    """TRL has NaN there, which is no number to most who read the files."""
    file = write_completions(tmp_path / "step-000001.parquet", [ROLLOUT | {"reward/a": float("nan")}, ROLLOUT])
    assert pq.read_table(file).column("reward/a").to_pylist() == [None, 1.0]


def test_both_kinds_in_one_folder(tmp_path):
    write_completions(tmp_path / "eval-final-000001.parquet", [ANSWER | {"sample": None, "error": None}])
    write_completions(tmp_path / "step-000001.parquet", [ROLLOUT | {"note": None}])
    assert pq.read_table(tmp_path).column("length").to_pylist() == [3, 3]


def test_what_has_another_type_is_kept_all_the_same(tmp_path):
    file = write_completions(tmp_path / "step-000001.parquet", [ROLLOUT | {"length": "long", "note": {"a": [1]}}])
    (row,) = read_completions(file)
    assert (row["length"], row["note"]) == ("long", '{"a": [1]}')
