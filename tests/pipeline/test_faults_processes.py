"""What else can happen to a run's processes and files: workers killed, an engine that fails, two runs at once."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from pathlib import Path
from threading import Thread

import pyarrow.parquet as pq
import pytest

from tests.pipeline.runs import assert_same_run, at_step, interrupt, kill, lines, train, write_recipe

GRPO = ("hybrid.controller.name=grpo_only",)

# The first completion that meets the file `hold` says which process scores it, and waits there to be killed
HELD = """

def held(completion, *, hold, **row):
    import os, time
    if os.path.exists(hold):
        try:
            descriptor = os.open(hold + ".pid", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            pass
        else:
            os.write(descriptor, str(os.getpid()).encode())
            time.sleep(60)
    return min(1.0, len(set(completion)) / 20)
"""


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def hybrid_lines(run):
    steps = run / "steps.jsonl"
    return [line for line in lines(run, "steps.jsonl") if line["stage"] == "hybrid"] if steps.exists() else []


def test_a_reward_worker_that_is_killed_costs_the_completion_it_scored(folder):
    """From outside, by its pid, in the middle of a step; the step before and what was sampled in it are as ever."""
    source, hold = folder / "rewards.py", folder / "hold"
    source.write_text(source.read_text() + HELD)
    overrides = (*GRPO, f"rewards=[{{path: rewards.py:held, kwargs: {{hold: {hold}}}}}]", "scoring.workers=2")
    overrides += ("scoring.time_limit_s=50", "run.dir=undisturbed")
    assert train(folder, *overrides).code == 0

    def kill_a_worker(process):
        until(lambda: len(hybrid_lines(folder / "run")) >= 3)
        hold.touch()
        pid = folder / "hold.pid"
        until(lambda: pid.exists() and pid.read_text())
        hold.unlink()
        os.kill(int(pid.read_text()), signal.SIGKILL)

    ended = train(folder, *overrides[:-1], meanwhile=kill_a_worker)
    assert ended.code == 0, ended.text
    failures = [json.loads(line) for line in (folder / "run" / "errors.jsonl").read_text().splitlines()]
    assert len({(line["prompt"], line["completion"]) for line in failures}) == 1
    assert {line["error"] for line in failures} == {"ended its worker process (SIGKILL, perhaps for lack of memory)"}
    (step,) = {line["step"] for line in failures}
    assert step >= 4
    assert f"rewards failed {len(failures)} times in this run: see run/errors.jsonl" in ended.text
    assert len(hybrid_lines(folder / "run")) == 10

    # Until that step the run is the undisturbed one, and in it but for the lost completion
    assert hybrid_lines(folder / "run")[: step - 1] == hybrid_lines(folder / "undisturbed")[: step - 1]
    name = f"completions/step-{step:06d}.parquet"
    hit, clean = (pq.read_table(folder / run / name).to_pylist() for run in ("run", "undisturbed"))
    lost = [place for place, row in enumerate(hit) if row["note"]]
    assert len(lost) == len(failures)
    for place, (one, other) in enumerate(zip(hit, clean, strict=True)):
        assert (one["prompt"], one["completion"]) == (other["prompt"], other["completion"])
        if place not in lost:
            assert one["reward/held"] == other["reward/held"] is not None


def failing_engine(calls):
    """vLLM raises inside its engine at a certain forward pass."""
    return partial(_failing_engine, calls)


def _failing_engine(calls):
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    original, seen = GPUModelRunner.execute_model, []

    def execute(self, *args, **kwargs):
        seen.append(1)
        if len(seen) == calls:
            raise RuntimeError("the device is lost")
        return original(self, *args, **kwargs)

    GPUModelRunner.execute_model = execute


@pytest.mark.slow
def test_an_engine_that_fails_in_the_middle_of_a_run(tmp_path):
    pytest.importorskip("vllm")
    settings = (
        "rollout.engine=vllm", "rollout.time_limit_s=120", "model.init.hidden_size=64", *GRPO, "hybrid.steps=4",
        "hybrid.save_steps=1", "evaluate.at_start=false", "evaluate.every=0",
    )  # fmt: skip
    whole, folder = write_recipe(tmp_path / "whole"), write_recipe(tmp_path / "failing")
    assert train(whole, *settings).code == 0
    ended = train(folder, *settings, fault=failing_engine(60))
    assert ended.code == 1, ended.text
    assert "Traceback" not in ended.text.split("error: ")[-1]
    assert "rollout.engine: sampling " in ended.text
    assert "completions failed: RuntimeError: the device is lost" in ended.text.replace("\n", " ")
    assert "start again, the last checkpoint is whole" in ended.text
    done = len(hybrid_lines(folder / "run"))
    assert 0 < done < 4
    ended = train(folder, *settings, "--resume")
    assert ended.code == 0, ended.text
    assert f"hybrid after step {done} of 4" in ended.text
    assert_same_run(whole / "run", folder / "run")


def test_runs_started_at_the_same_moment_in_one_directory(folder, reference):
    """One of them trains, undisturbed; the others say who does."""
    go, ends = folder / "go", {}

    def start(number):
        ends[number] = train(folder, fault=partial(until, go.exists), log_name=f"log-{number}.txt")

    threads = [Thread(target=start, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(list(folder.glob("log-*.txt"))) == 3)
    go.touch()
    for thread in threads:
        thread.join()
    assert sorted(ended.code for ended in ends.values()) == [0, 1, 1], ends
    for ended in ends.values():
        if ended.code:
            assert "is at work in this directory" in ended.text
            assert "Traceback" not in ended.text
    assert_same_run(reference(), folder / "run")


def killed_after_moving():
    from posttrain.rundir import rundir

    original = rundir._move_aside

    def move(path):
        original(path)
        kill()

    rundir._move_aside = move


def test_killed_in_a_restart(folder, reference):
    """The old run has its new name already, whole; the next start begins the new one."""
    assert train(folder, fault=at_step("hybrid", 5)).code < 0
    before = lines(folder / "run", "steps.jsonl")
    assert train(folder, "--restart", fault=killed_after_moving).code == -signal.SIGKILL
    assert not (folder / "run").exists()
    ended = train(folder)
    assert ended.code == 0, ended.text
    assert "starting run" in ended.text
    assert_same_run(reference(), folder / "run")
    assert lines(folder / "run.1", "steps.jsonl") == before
    assert sorted(path.name for path in folder.glob("run*")) == ["run", "run.1"]


def test_a_broken_line_in_the_middle_of_the_steps(folder, reference):
    assert train(folder, fault=at_step("hybrid", 5)).code < 0
    file = folder / "run" / "steps.jsonl"
    content = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*content[:2], content[2][:30] + b"\n", *content[3:]]))
    ended = train(folder)
    assert ended.code == 2
    assert "run/steps.jsonl: line 3 is not a JSON object" in ended.text
    assert "delete that line: the ones after it are whole" in ended.text
    assert "Traceback" not in ended.text
    file.write_bytes(b"".join([*content[:2], *content[3:]]))
    ended = train(folder)
    assert ended.code == 0, ended.text
    whole = reference()
    assert (folder / "run/model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()


def interrupted_twice_while_saving():
    from posttrain.storage import checkpoints

    original = checkpoints.seal

    def seal(checkpoint, *files):
        if checkpoint.name == "checkpoint-4" and "hybrid" in str(checkpoint):
            interrupt()
            interrupt()
        original(checkpoint, *files)

    checkpoints.seal = seal


def test_interrupted_at_once_in_the_middle_of_a_checkpoint(folder, reference):
    ended = train(folder, fault=interrupted_twice_while_saving)
    assert ended.code == 130, ended.text
    checkpoints = folder / "run" / "checkpoints" / "hybrid"
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-2"], "and no staging folder"
    ended = train(folder)
    assert ended.code == 0, ended.text
    assert "hybrid after step 2 of 10" in ended.text
    assert_same_run(reference(), folder / "run")


def test_a_clock_that_was_set_back_does_not_make_the_newest_checkpoint_the_oldest(folder):
    keep = ("hybrid.save_total_limit=2",)
    assert train(folder, *keep, fault=at_step("hybrid", 7)).code < 0
    checkpoints = folder / "run" / "checkpoints" / "hybrid"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-4", "checkpoint-6"]
    tomorrow = time.time() + 86_400
    for checkpoint in checkpoints.iterdir():
        os.utime(checkpoint, (tomorrow, tomorrow))
    assert train(folder, *keep).code == 0
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-10", "checkpoint-8"]


# ---- a data set that changed ----

MATH = """
model: {init: {hidden_size: 32, layers: 1, heads: 2, vocab_size: 300, max_position_embeddings: 96}}
task:
  {name: math, path: problems.jsonl, eval_path: held_out.jsonl, instruction: "", train: 6, demonstrations: 8, eval: 2}
warmup: {steps: 2, per_device_train_batch_size: 8}
hybrid:
  steps: 4
  per_device_train_batch_size: 4
  save_steps: 1
  controller: grpo_only
  grpo: {num_generations: 4, max_completion_length: 8}
rollout: {engine: transformers}
scoring: {workers: 0}
evaluate: {batch_size: 16, at_start: false}
run: {dir: run, device: cpu, threads: 1}
"""


def write_problems(folder: Path, *, answer: int = 9) -> None:
    problems = [{"question": f"What is {i} + {7 - i}?", "answer": "It is 7.\n#### 7"} for i in range(8)]
    problems += [{"problem": f"What is {i} + {i} now?", "answer": str(2 * i)} for i in range(5)]
    problems += [{"problem": "What is 4 + 5 now?", "answer": str(answer)}]
    held_out = [{"question": f"What is {i} and {7 - i}?", "answer": "7"} for i in range(2)]
    for name, rows in (("problems", problems), ("held_out", held_out)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_data_set_that_changed_is_refused_with_the_difference_or_accepted(tmp_path):
    (tmp_path / "recipe.yaml").write_text(MATH)
    write_problems(tmp_path)
    assert train(tmp_path, fault=at_step("hybrid", 3)).code < 0
    before = lines(tmp_path / "run", "steps.jsonl")
    write_problems(tmp_path, answer=10)
    ended = train(tmp_path)
    assert ended.code == 1
    assert "started differently (was -> is):\n    data, train: 6 rows; 1 gone, 1 new\n" in ended.text
    assert 'the first that differs): answer: "9" -> "10"\n' in ended.text
    assert "fingerprint" not in ended.text
    assert "--accept-changes" in ended.text
    assert "Traceback" not in ended.text
    assert lines(tmp_path / "run", "steps.jsonl") == before, "nothing was touched"
    assert train(tmp_path).code == 1, "a refusal is not remembered as an acceptance"

    ended = train(tmp_path, "--accept-changes", fault=at_step("hybrid", 4))
    assert "changed since the last start: data, train: 6 rows; 1 gone, 1 new" in ended.text
    assert ended.code < 0
    ended = train(tmp_path)
    assert ended.code == 0, "the accepted data set is the run's from then on"
    assert "changed" not in ended.text
