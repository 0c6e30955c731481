"""A run with a curriculum: pass rates measured once, prompts that were never solved left out, the rest in order."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.pipeline.runs import at_step, train

RECIPE = """
model: {init: {hidden_size: 32, layers: 1, heads: 2, vocab_size: 300, max_position_embeddings: 96}}
task:
  {name: math, path: problems.jsonl, eval_path: held_out.jsonl, instruction: "", train: 6, demonstrations: 8, eval: 2}
warmup: {steps: 40, learning_rate: 2.0e-2, per_device_train_batch_size: 8, save_steps: null}
hybrid:
  steps: 3
  learning_rate: 1.0e-4
  per_device_train_batch_size: 4
  save_steps: 1
  controller: grpo_only
  grpo: {num_generations: 4, max_completion_length: 16}
  curriculum: {model: warmup, samples: 4}
rollout: {engine: transformers}
scoring: {workers: 0}
evaluate: {batch_size: 16, at_start: false}
run: {dir: run, device: cpu, threads: 1, save_completions_every: 1}
"""


def write_problems(folder: Path) -> None:
    """Every demonstration says 7, so that this is what the warmed-up model says to all of them."""
    sevens = [{"question": f"What is {i} + {7 - i}?", "answer": "It is 7.\n#### 7"} for i in range(8)]
    more = [{"problem": f"What is {i} + {n - i} now?", "answer": str(n)} for n in (7, 9) for i in range(5)]
    held_out = [{"question": f"What is {i} and {7 - i}?", "answer": "7"} for i in range(2)]
    for name, rows in (("problems", [*sevens, *more]), ("held_out", held_out)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curriculum")
    (folder / "recipe.yaml").write_text(RECIPE)
    write_problems(folder)
    killed = train(folder, fault=at_step("hybrid", 2))
    assert killed.code == -9, killed.text
    ended = train(folder)
    assert ended.code == 0, ended.text
    return folder, ended.text


def test_rollouts_go_through_the_solved_prompts_in_the_order_of_their_rates(finished):
    folder, said = finished
    lines = [json.loads(line) for line in (folder / "run" / "pass_rates.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    kept = [line["prompt"] for line in sorted(lines, key=lambda line: -line["pass_rate"]) if line["pass_rate"]]
    assert 0 < len(kept) < 6, lines
    assert f"curriculum: {len(kept)} of 6 prompts" in said
    drawn = [
        row["prompt"].lower()
        for step in (1, 2, 3)
        for row in pq.read_table(folder / "run" / "completions" / f"step-{step:06d}.parquet").to_pylist()
    ]
    assert drawn == [kept[step % len(kept)] for step in range(3) for _ in range(4)]


def test_a_resumed_run_measures_nothing_anew(finished):
    _, said = finished
    assert "resuming" in said
    assert "pass rates" not in said
