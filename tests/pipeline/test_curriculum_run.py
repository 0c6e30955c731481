"""A run with a curriculum: pass rates measured once, prompts that were never solved left out, the rest in order."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from posttrain.cli import main
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


def said_by(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_the_run_says_why_a_prompt_was_drawn_and_draws_it_again(finished, capsys):
    folder, _ = finished
    run = str(folder / "run")
    said = said_by(capsys, "explain", run, "--step", "2")
    assert "The curriculum easy_to_hard drew 1 prompts" in said
    assert "number 2 of" in said
    assert "from easy to hard, with a pass rate of" in said
    assert "all 3 prompts of 3 steps are drawn as in the run" in said_by(capsys, "replay", run)


@pytest.fixture(scope="module")
def by_answer(finished, tmp_path_factory):
    """A run whose sources are the answers, 7 and 9."""
    folder = tmp_path_factory.mktemp("dump")
    (folder / "recipe.yaml").write_text(RECIPE)
    write_problems(folder)
    ended = train(folder, "hybrid.curriculum={name: dump, source: answer}", "hybrid.steps=4", "warmup.steps=10")
    assert ended.code == 0, ended.text
    return folder / "run"


def test_draws_by_source_are_told_replayed_and_reported(by_answer, capsys):
    run = str(by_answer)
    said = said_by(capsys, "explain", run, "--step", "1")
    assert "drawn with p = 0." in said
    assert "Shares of the sources by quarter: " in said_by(capsys, "explain", run)
    said = said_by(capsys, "replay", run, "curriculum.temperature=100")
    assert "all 4 prompts of 4 steps are drawn as in the run" in said
    assert "Source 7: " in said
    told = json.loads(said_by(capsys, "replay", run, "curriculum={name: bots}", "--json"))
    assert told["prompts"] == 4
    assert told["sources"]["7"]["replay"] + told["sources"].get("9", {"replay": 0})["replay"] == 4
    page = (by_answer / "report.html").read_text()
    assert "Share of each source" in page
    assert "Prompts that the curriculum drew" in page
    assert main(["replay", run, "curriculum.temperature=1", "controller.name=grpo_only"]) == 2
    assert "together with" in capsys.readouterr().err


def test_a_record_that_was_changed_is_seen(by_answer, capsys):
    lines = [json.loads(line) for line in (by_answer / "steps.jsonl").read_text().splitlines()]
    whole = (by_answer / "steps.jsonl").read_text()
    window = lines[-1]["curriculum"]["windows"][0]
    window["rows"] = [(window["rows"][0] + 1) % 6]
    (by_answer / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    try:
        assert main(["replay", str(by_answer)]) == 1
        assert "does NOT draw as recorded at 1 of 4 steps, first at step 4" in capsys.readouterr().out
    finally:
        (by_answer / "steps.jsonl").write_text(whole)


def test_columns_that_the_rows_lack_are_named_before_a_model_loads(finished, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    write_problems(tmp_path)
    arguments = ["plan", str(tmp_path / "recipe.yaml"), "--cpu"]
    main([*arguments, "hybrid.curriculum={name: dump, source: people}"])
    said = " ".join("".join(capsys.readouterr()).split())
    assert "the prompts have no column 'people'" in said
    assert "hybrid.curriculum" in said
    main([*arguments, "hybrid.curriculum={name: dump, source: answer}"])
    said = " ".join(capsys.readouterr().out.split())
    assert "curriculum dump: sources by the column answer: " in said


def test_a_resumed_run_measures_nothing_anew(finished):
    _, said = finished
    assert "resuming" in said
    assert "pass rates" not in said


GAIN = "hybrid.curriculum={name: gain_rl, std: 2, n: 2, adj_max: 3, round: 2, source: answer}"


@pytest.fixture(scope="module")
def by_angles(tmp_path_factory):
    """A run by the angles of hidden states, killed within a round and resumed."""
    folder = tmp_path_factory.mktemp("gain")
    (folder / "recipe.yaml").write_text(RECIPE)
    write_problems(folder)
    settings = (GAIN, "hybrid.steps=6", "warmup.steps=10")
    killed = train(folder, *settings, fault=at_step("hybrid", 4))
    assert killed.code == -9, killed.text
    ended = train(folder, *settings)
    assert ended.code == 0, ended.text
    return folder / "run", killed.text, ended.text


def test_angles_are_measured_once_and_their_cost_is_said(by_angles, capsys):
    run, first, second = by_angles
    lines = [json.loads(line) for line in (run / "angles.jsonl").read_text().splitlines()]
    tokens = sum(line["tokens"] for line in lines)
    assert len(lines) == 6
    assert tokens >= 6 * 5
    said = f"curriculum: 6 prompts passed through the model once, {tokens} tokens in "
    assert said in first
    assert said in second, "what the run took, also where it was before"
    told = json.loads((run / "curriculum.json").read_text())
    assert told["passes"]["tokens"] == tokens
    assert told["angles"] == [[line[name] for name in ("within", "between", "whole")] for line in lines]
    assert f"passed through the model once, {tokens} tokens" in said_by(capsys, "explain", str(run))


def test_a_window_that_moves_is_told_and_drawn_again(by_angles, capsys):
    run = by_angles[0]
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    windows = [window for line in steps if line["stage"] == "hybrid" for window in line["curriculum"]["windows"]]
    assert [window["round"] for window in windows] == [0, 0, 1, 1, 2, 2]
    means = [window["mean"] for window in windows]
    assert means[0] == means[1] == 0.0
    assert means == sorted(means)
    assert "by angle concentration, with the weight" in said_by(capsys, "explain", str(run), "--step", "3")
    said = said_by(capsys, "replay", str(run), "curriculum.std=100")
    assert "all 6 prompts of 6 steps are drawn as in the run" in said
    told = json.loads(said_by(capsys, "replay", str(run), "curriculum.round=1", "--json"))
    assert told["same"] < told["prompts"] == 6
    assert main(["replay", str(run), "curriculum={name: rif}"]) == 2
    assert "pass rates of the prompts are not known" in capsys.readouterr().err


def test_a_run_without_angles_replays_none(by_answer, capsys):
    assert main(["replay", str(by_answer), "curriculum={name: gain_rl}"]) == 2
    assert "angles of the prompts' hidden states are not known" in capsys.readouterr().err


def test_plan_says_what_is_measured_first(finished, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    write_problems(tmp_path)
    main(["plan", str(tmp_path / "recipe.yaml"), "--cpu", "hybrid.curriculum=gain_rl"])
    said = " ".join(capsys.readouterr().out.split())
    assert "curriculum: 6 prompts pass through the model once first, about" in said
    assert "a round of 256 takes each of the 6 prompts" in said


def test_a_warm_up_by_gradients_says_its_cost_and_goes_on_where_it_was_killed(finished, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    write_problems(tmp_path)
    settings = (
        "warmup.curriculum={name: ucb1, source: level, held_out: 1, batch: 2}", "warmup.steps=4",
        "warmup.save_steps=1", "warmup.per_device_train_batch_size=2", "hybrid.steps=1", "hybrid.curriculum=null",
    )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    levels = [{**row, "level": "low" if number % 2 else "high"} for number, row in enumerate(rows)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in levels))
    main(["plan", str(tmp_path / "recipe.yaml"), "--cpu", *settings])
    said = " ".join(capsys.readouterr().out.split())
    # Before the first step two of both sources beside the target's two, after each but the last a step's two and these
    assert "curriculum ucb1, with 18 passes of demonstrations, trained and held out, for their gradients" in said
    killed = train(tmp_path, *settings, fault=at_step("warmup", 3))
    assert killed.code == -9, killed.text
    ended = train(tmp_path, *settings)
    assert ended.code == 0, ended.text
    steps = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    warmup = [line for line in steps if line["stage"] == "warmup"]
    measured = [of for line in warmup for window in line["curriculum"]["windows"] for of in window["measured"]]
    assert [line["step"] for line in warmup] == [1, 2, 3, 4]
    assert sum(of["rows"] for of in measured) == 18
    assert "Gradient of each source against the target" in (tmp_path / "run" / "report.html").read_text()
    run = str(tmp_path / "run")
    assert "whose bound was the highest at this row: a mean cosine of" in said_by(
        capsys, "explain", run, "--warmup-step", "2"
    )
    for other in ("batch=9", "target=[low]", "held_out=2"):
        said = said_by(capsys, "replay", run, f"warmup.curriculum.{other}")
        assert "all 8 demonstrations of 4 steps are drawn as in the run" in said
    said_by(capsys, "replay", run, "warmup.curriculum={name: exp3, source: level, held_out: 1}")
    assert "all 8 demonstrations of 4 steps are drawn as in the run" in said_by(capsys, "replay", run)
    assert "It measured gradients 4 times, which took 18 passes" in said_by(capsys, "explain", run)
    main(["plan", str(tmp_path / "recipe.yaml"), "--cpu", "hybrid.curriculum={name: exp3, source: level}"])
    said = " ".join("".join(capsys.readouterr()).split())
    assert "goes by gradients of demonstrations, measured while they train, and draws no prompts" in said
