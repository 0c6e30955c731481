"""The example to copy, `recipes/custom_reward/`: its reward is checked, scores a file, and trains a model."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from posttrain import cli, load_recipe, run
from tests.pipeline.light_rewards import brief
from tests.pipeline.runs import forked, lines

FOLDER = Path(__file__).parents[2] / "recipes" / "custom_reward"
SMALL = (
    "model.init={hidden_size: 32, layers: 2, heads: 2, vocab_size: 300, max_position_embeddings: 160}",
    "warmup.steps=2",
    "hybrid.steps=2",
    "hybrid.controller.name=grpo_only",
    "hybrid.per_device_train_batch_size=16",
    "run.dir=run",
)


def test_its_rewards_hold_on_its_rows(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    assert cli.main(["rewards", "check", str(FOLDER / "recipe.yaml"), "--json", str(figures)]) == 0
    found = {record["reward"]: record for record in json.loads(figures.read_text())["rewards"]}
    assert set(found) == {"my_reward", "math_answer"}
    assert all(record["false_positives"] == record["failures"] == 0 for record in found.values())
    none = {name: record["tries"][0]["none"] for name, record in found.items()}
    assert none["math_answer"] == 0 < none["my_reward"]  # where the answer is no number, it does not apply


def test_it_scores_its_own_solutions(tmp_path: Path) -> None:
    out = tmp_path / "scored.jsonl"
    arguments = ["--input", str(FOLDER / "sums.jsonl"), "--completion-column", "solution", "--output", str(out)]
    assert cli.main(["rewards", "score", "--reward", str(FOLDER / "my_reward.py:score"), *arguments]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 120
    for row in rows:
        assert row["score"] == (1.0 if row["level"] == "sum" else None)
        assert row["parts"] == ({"number": 1.0, "right": 1.0} if row["level"] == "sum" else {})


def test_its_recipe_trains(tmp_path: Path) -> None:
    ended = forked(tmp_path, "run", str(FOLDER / "recipe.yaml"), *SMALL)
    assert ended.code == 0, ended.text
    steps = [line for line in lines(tmp_path / "run", "steps.jsonl") if line["stage"] == "hybrid"]
    assert len(steps) == 2
    assert set(steps[-1]["rewards"]) == {"my_reward", "math_answer"}
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert "my_reward" in json.dumps(environment)  # its source is fingerprinted, so that a resume notices a change
    assert list((tmp_path / "run" / "model").glob("*.safetensors"))


def test_the_same_from_python_with_a_function(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(load_recipe(FOLDER / "recipe.yaml", SMALL), rewards=[brief])
    steps = [line for line in lines(result.model.parent, "steps.jsonl") if line["stage"] == "hybrid"]
    assert set(steps[-1]["rewards"]) == {"my_reward", "math_answer", "brief"}
    assert steps[-1]["rewards"]["brief"] > 0
    written = [path for path in (result.model.parent / "completions").iterdir() if "eval" not in path.name]
    assert any("characters" in str(row) for path in written for row in pq.read_table(path).to_pylist())
