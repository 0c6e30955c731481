"""A run whose rows are of two sources, each with a reward of its own: what the record, its readers and pages tell."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
import pytest

from posttrain.cli import main
from posttrain.storage.files import read_lines
from tests.pipeline.runs import at_step, train

RECIPE = """
model: {init: {hidden_size: 32, layers: 1, heads: 2, vocab_size: 300, max_position_embeddings: 96}}
task: {name: rows, path: rows.jsonl, eval_path: held.jsonl, slice_by: kind}
rewards:
  - {path: own.py:letters, sources: [letters], weight: 0.5}
  - {path: own.py:short, sources: [short]}
warmup: {steps: 2, learning_rate: 1.0e-2, per_device_train_batch_size: 4}
hybrid:
  steps: 3
  learning_rate: 1.0e-3
  per_device_train_batch_size: 8
  save_steps: 1
  controller: grpo_only
  grpo: {num_generations: 2, max_completion_length: 8}
rollout: {engine: transformers}
evaluate: {batch_size: 16, at_start: false, reward: [{path: own.py:short}]}
run: {dir: run, device: cpu, threads: 1, save_completions_every: 1}
"""
REWARDS = """def letters(completion, *, word):
    assert word is not None
    return min(1.0, len(set(completion)) / 20)


def short(completion, **row):
    return float(len(completion) % 2)
"""


def write(folder: Path) -> None:
    rows = [
        {"prompt": f"Say {n} of {kind}.", "completion": f"{n}", "source": source, "kind": kind,
         "word": "w" if source == "letters" else None}
        for n in range(8) for source, kind in (("letters", "a"), ("short", "b"))
    ]  # fmt: skip
    for name, some in (("rows", rows), ("held", [{**row, "prompt": f"Held: {row['prompt']}"} for row in rows])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    (folder / "own.py").write_text(REWARDS)
    (folder / "recipe.yaml").write_text(RECIPE)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write(folder)
    killed = train(folder, fault=at_step("hybrid", 2))
    assert killed.code == -9, killed.text
    ended = train(folder)
    assert ended.code == 0, ended.text
    return folder / "run"


def test_each_step_has_the_scores_of_each_source_as_its_completions_have_them(finished):
    lines = [line for line in read_lines(finished / "steps.jsonl") if line["stage"] == "hybrid"]
    assert len(lines) == 3
    for line in lines:
        rows = pq.read_table(finished / "completions" / f"step-{line['step']:06d}.parquet").to_pylist()
        assert {row["prompt_source"] for row in rows} == set(line["by_source"]) <= {"letters", "short"}
        for source, seen in line["by_source"].items():
            own = [row for row in rows if row["prompt_source"] == source]
            other = "short" if source == "letters" else "letters"
            assert all(row[f"reward/{other}"] is None for row in own), "a reward of another source"
            mean = fmean(row[f"reward/{source}"] for row in own)
            assert seen["completions"] == len(own)
            assert seen["rewards"] == {source: pytest.approx(mean)}
            assert math.isclose(seen["reward"], mean * (0.5 if source == "letters" else 1.0), rel_tol=1e-6)
    assert set().union(*(line["by_source"] for line in lines)) == {"letters", "short"}


def test_an_evaluation_is_told_apart_by_source_beside_the_tasks_own_column(finished):
    line = read_lines(finished / "eval.jsonl")[-1]
    assert set(line["by"]) == {"kind", "source"}
    by = line["by"]["source"]
    assert {name: part["n"] for name, part in by.items()} == {"letters": 8, "short": 8}
    assert sum(part["pass@1"] for part in by.values()) / 2 == pytest.approx(line["pass@1"])
    rows = pq.read_table(finished / "completions" / "eval-final-000003.parquet").to_pylist()
    passed = [row["passed"] for row in rows if row["prompt_source"] == "short"]
    assert by["short"]["pass@1"] == fmean(passed)
    low, high = by["short"]["ci95"]
    assert low <= by["short"]["pass@1"] <= high


def test_view_tells_and_filters_by_source(finished, capsys):
    assert main(["view", str(finished), "--jsonl", "--source", "short", "--limit", "100"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.split("\n") if line]
    assert rows
    assert {row["prompt_source"] for row in rows} == {"short"}
    assert main(["view", str(finished), "--eval", "final", "--source", "letters", "--limit", "1"]) == 0
    assert "source" in capsys.readouterr().out
    assert main(["view", str(finished), "--source", "letter"]) == 2
    assert "one of: letters, short" in capsys.readouterr().err


def test_pages_and_comparisons_have_the_sources(finished, tmp_path, capsys):
    page = (finished / "report.html").read_text()
    assert "Reward of each source" in page
    assert "pass@1 by source" in page
    assert "At the start: leaks: " in page
    leaks = json.loads((finished / "data.json").read_text())["leaks"]
    assert (leaks["rows"], leaks["of_trained"]) == (16, 32)
    other = tmp_path / "other"
    other.mkdir()
    write(other)
    assert train(other, "hybrid.steps=1").code == 0
    assert main(["compare", str(finished), str(other / "run"), "--json"]) == 0
    by = json.loads(capsys.readouterr().out)["differences"][0]["by"]
    assert set(by) == {"kind", "source"}
    for part in by["source"].values():
        assert part["n"] == 8
        assert part["lo"] <= part["difference"] <= part["hi"]
    assert main(["compare", str(finished), str(other / "run")]) == 0
    assert "source letters" in capsys.readouterr().out
