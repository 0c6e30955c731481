"""`posttrain run` on two processes: it equals the run on one, goes on where it was stopped, and fails as one.

Exact between runs on as many processes: everything (`assert_same_run`). Exact between two processes and one: decisions,
cursors, sampled texts, evaluations; to float32 round-off: losses, norms, the KL, parameters (`assert_equal_run`).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from tests.distributed.processes import output
from tests.distributed.runs import ONE_EQUALS_TWO, after_step, assert_equal_run, on_rank, on_ranks
from tests.pipeline.runs import (
    ONE_THREAD,
    assert_same_run,
    at_step,
    in_evaluation,
    interrupt,
    lines,
    while_saving,
)

LORA = ("lora.r=4",)
FOUR_BIT = (*LORA, "model.load_in_4bit=true", "model.init.hidden_size=64")
SAMPLES = ("evaluate.k=[1,3]", "evaluate.samples=3", "evaluate.batch_size=4", "task.eval=9")
BLEND = ("hybrid.controller.mode=blend", "hybrid.controller.match_norms=true", "hybrid.kl.offload=true")
PHI = ("warmup.sft_weight=phi", "hybrid.sft_weight=phi")
TWICE = ("warmup.gradient_accumulation_steps=2", "hybrid.gradient_accumulation_steps=2")
FOUR_TIMES = ("warmup.gradient_accumulation_steps=4", "hybrid.gradient_accumulation_steps=4")
DDP = Path(__file__).parents[2] / "recipes" / "accelerate" / "ddp.yaml"


# ---- two equal one ----


@pytest.mark.parametrize(
    "overrides",
    [(), LORA, FOUR_BIT, SAMPLES, BLEND, PHI],
    ids=["full", "lora", "four-bit", "samples", "blend", "phi"],
)
def test_two_processes_equal_one(whole_run, overrides):
    one, two = whole_run(1, *ONE_EQUALS_TWO, *overrides), whole_run(2, *overrides)
    assert_equal_run(one, two)
    mixes = [line["mix"]["sft"] for line in lines(two, "steps.jsonl") if line["stage"] == "hybrid"]
    assert len(set(mixes)) > 1, "both kinds of steps"
    assert [line["stage"] for line in lines(two, "eval.jsonl")] == ["start", "warmup", "hybrid", "hybrid", "final"]
    if overrides is SAMPLES:
        assert lines(two, "eval.jsonl")[-1]["pass@k"].keys() == {"1", "3"}


@pytest.mark.parametrize("overrides", [(), LORA, PHI], ids=["full", "lora", "phi"])
def test_two_processes_with_shards_equal_one(whole_run, overrides):
    assert_equal_run(whole_run(1, *ONE_EQUALS_TWO, *overrides), whole_run(2, *overrides, fsdp=True))


def test_pass_rates_that_order_no_prompts(folder):
    """Both measure their share, one writes; what an untrained model never solves is an error of both."""
    overrides = ("hybrid.curriculum.samples=4", "task.train=7", "warmup.steps=0", "hybrid.controller={name: grpo_only}")
    ended = on_ranks(folder, *overrides, codes=[2, 2])
    assert "none of the 7 prompts was ever solved" in ended[0].text
    assert "error" not in ended[1].text
    assert len(lines(folder / "run", "pass_rates.jsonl")) == 7


GAIN = "hybrid.curriculum={name: gain_rl, std: 3, n: 2, adj_max: 3, round: 2}"


def test_angles_of_hidden_states_are_those_of_one_process(whole_run):
    """Both measure their share of the batches, and the window moves alike."""
    settings = (GAIN, "task.train=7", "hybrid.controller={name: grpo_only}", "evaluate.batch_size=2")
    one, two = whole_run(1, *ONE_EQUALS_TWO, *settings), whole_run(2, *settings)
    assert_equal_run(one, two)
    angles = [lines(run, "angles.jsonl") for run in (one, two)]
    assert len(angles[0]) == 7
    assert angles[0] == angles[1]
    drawn = [
        [line["curriculum"] for line in lines(run, "steps.jsonl") if line["stage"] == "hybrid"] for run in (one, two)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0][-1]["windows"][-1]["round"] > 0


GRADIENTS = ("warmup.curriculum={name: exp3, source: people, held_out: 2}", "task.people=[2,3]", "hybrid.steps=1")


@pytest.mark.parametrize("adapter", [(), LORA], ids=["head", "adapter"])
def test_sources_by_gradients_are_drawn_as_by_one_process(whole_run, adapter):
    """Each takes its share of the passes, and both have the same cosines and chances."""
    one, two = whole_run(1, *ONE_EQUALS_TWO, *GRADIENTS, *adapter), whole_run(2, *GRADIENTS, *adapter)
    assert_equal_run(one, two)
    told = [
        [line["curriculum"] for line in lines(run, "steps.jsonl") if line["stage"] == "warmup"] for run in (one, two)
    ]
    for mine, theirs in zip(*told, strict=True):
        (window,), (also,) = mine["windows"], theirs["windows"]
        assert window["rows"] == also["rows"]
        for name, chance in window["chances"].items():
            assert chance["p"] == pytest.approx(also["chances"][name]["p"], abs=1e-4)
    measured = [window["measured"][0] for line in told[1][1:] for window in line["windows"]]
    assert [each["rows"] for each in measured] == [8 + 4] * 4, "a step's, and two of both sources"


def test_gradients_of_shards_are_refused(folder):
    ended = on_ranks(folder, *GRADIENTS, codes=[2, 2], fsdp=True)
    assert "compares gradients, and this start cuts weights up" in ended[0].text


# ---- the launcher itself ----


def launched(folder: Path, *overrides: str) -> subprocess.Popen:
    """`accelerate launch` with the shipped DDP configuration, whose workers find no GPU and talk over gloo."""
    accelerate = Path(sys.executable).with_name("accelerate")
    command = [str(accelerate), "launch", "--config_file", str(DDP), "--num_processes", "2"]
    return subprocess.Popen(
        [*command, "-m", "posttrain", "run", "recipe.yaml", *overrides],
        cwd=folder,
        env={**os.environ, **ONE_THREAD, "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_accelerate_launch_and_a_scheduler_that_ends_it(folder, whole_run):
    """Fresh interpreters, bf16 in the launcher's file, float32 in the recipe; SIGTERM to the launcher, then resumed."""
    process = launched(folder)
    file = folder / "run" / "steps.jsonl"
    while process.poll() is None and not (file.exists() and file.read_bytes().count(b"\n") >= 7):
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert said.count("stopping after this step, then saving") == 1, said
    assert said.count("To go on: launch it as before, with --resume at the end (... posttrain run") == 1, said
    stopped = lines(folder / "run", "steps.jsonl")[-1]
    assert (folder / "run" / "checkpoints" / stopped["stage"] / f"checkpoint-{stopped['step']}").is_dir()
    process = launched(folder, "--resume")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert said.count("done: model in") == 1
    assert_same_run(whole_run(2), folder / "run")


# ---- stopped, killed, and resumed ----


@pytest.mark.parametrize(("stage", "step", "of"), [("warmup", 3, 5), ("hybrid", 5, 10)], ids=["warmup", "hybrid"])
@pytest.mark.parametrize("receivers", ["both", "one"])
def test_a_scheduler_asks_for_the_machines_back(folder, whole_run, stage, step, of, receivers):
    """SIGTERM: saved, exit code 0, and how to go on said once, even where it reached only rank 1."""
    fault = after_step(stage, step, terminate)
    ended = on_ranks(folder, fault=fault if receivers == "both" else on_rank(1, fault))
    assert "To go on: launch it as before, with --resume at the end (... posttrain run recipe.yaml" in ended[0].text
    assert "To go on" not in ended[1].text
    assert (folder / "run" / "checkpoints" / stage / f"checkpoint-{step}").is_dir()
    assert f"{stage} after step {step} of {of}" in on_ranks(folder, "--resume")[0].text
    assert_same_run(whole_run(2), folder / "run")


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_ctrl_c_on_several_processes(folder):
    """The terminal's signal and the launcher's own are one request."""
    ended = on_ranks(folder, fault=on_rank(1, after_step("hybrid", 3, twice)), codes=[130, 130])
    assert ended[0].text.count("stopped as asked, and saved") == 1
    assert (folder / "run" / "checkpoints" / "hybrid" / "checkpoint-3").is_dir()


def twice() -> None:
    interrupt()
    interrupt()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("stage", ["start", "hybrid"])
def test_a_stop_abandons_an_evaluation(folder, whole_run, stage, count):
    """Of its batches only the first is sampled; nothing is recorded of it, and the step before it is saved."""
    small = ("evaluate.batch_size=2",)
    on_ranks(folder, *small, count=count, fault=on_rank(count - 1, in_evaluation(stage, terminate)))
    stages = [line["stage"] for line in lines(folder / "run", "eval.jsonl")] if stage != "start" else []
    assert stage not in stages
    assert (stage == "start") != (folder / "run" / "checkpoints" / "hybrid" / "checkpoint-4").exists()
    on_ranks(folder, *small, count=count)
    assert_same_run(whole_run(count, *small), folder / "run")


@pytest.mark.parametrize(
    ("rank", "fault"),
    [
        (1, after_step("warmup", 3)),
        (1, after_step("hybrid", 5)),
        (0, at_step("hybrid", 7)),
        (0, while_saving("warmup")),
        (1, in_evaluation("final")),
    ],
    ids=["warmup-rank1", "hybrid-rank1", "hybrid-rank0", "saving-rank0", "evaluation-rank1"],
)
def test_a_killed_process_ends_the_other_and_the_run_goes_on(folder, whole_run, rank, fault):
    codes = [1, 1]
    codes[rank] = -signal.SIGKILL
    started = time.monotonic()
    ended = on_ranks(folder, fault=on_rank(rank, fault), codes=codes)
    assert time.monotonic() - started < 60, "process_timeout_s is 1800"
    text = ended[1 - rank].text
    assert "lost contact with another process of this run, which has ended, or hangs" in text
    assert "then go on by --resume" in text
    assert "Traceback" not in text
    on_ranks(folder, "--resume")
    assert_same_run(whole_run(2), folder / "run")


def test_shards_are_resumed(folder, whole_run):
    ended = on_ranks(folder, fault=on_rank(1, after_step("hybrid", 5)), codes=[1, -signal.SIGKILL], fsdp=True)
    assert "checkpoints/hybrid/checkpoint-4 is whole" in ended[0].text
    on_ranks(folder, "--resume", fsdp=True)
    assert_same_run(whole_run(2, fsdp=True), folder / "run")


def test_a_process_that_hangs_ends_the_others_within_the_limit(folder):
    """Rank 1 is stopped by SIGSTOP, which no connection notices."""
    said: list[float] = []

    def watch() -> None:
        logs, pid = folder / "logs", folder / "stopped"
        while not pid.exists():
            time.sleep(0.02)
        since = time.monotonic()
        while "has ended, or hangs" not in output(logs, 0) and time.monotonic() - since < 60:
            time.sleep(0.02)
        said.append(time.monotonic() - since)
        os.kill(int(pid.read_text()), signal.SIGKILL)

    watcher = threading.Thread(target=watch)
    watcher.start()
    fault = on_rank(1, after_step("hybrid", 3, stop_here))
    on_ranks(folder, "run.process_timeout_s=5", fault=fault, codes=[1, -signal.SIGKILL])
    watcher.join()
    assert 4 < said[0] < 15


def stop_here() -> None:
    Path("stopped.part").write_text(str(os.getpid()))
    Path("stopped.part").rename("stopped")
    os.kill(os.getpid(), signal.SIGSTOP)


# ---- another number of processes ----


@pytest.mark.parametrize(
    ("first", "then"), [((2, TWICE), 1), ((1, FOUR_TIMES), 2)], ids=["two-then-one", "one-then-two"]
)
@pytest.mark.parametrize("place", [("warmup", 3), ("hybrid", 5)], ids=["warmup", "hybrid"])
def test_resumed_on_another_number_of_processes(folder, whole_run, first, then, place):
    count, overrides = first
    on_ranks(folder, *overrides, count=count, fault=after_step(*place, terminate))
    ended = on_ranks(folder, *overrides, "--resume", count=then)
    rows = {1: 4, 2: 2}[then]
    assert (
        f"started on {count} processes, going on with {then}: the same rows a step, by gradient_accumulation_steps "
        f"{rows} (warmup) and {rows} (hybrid)" in ended[0].text
    )
    assert_equal_run(whole_run(count, *overrides), folder / "run")


def test_inside_a_generation_window_on_another_number_of_processes(folder, whole_run):
    window = (*TWICE, "hybrid.controller.name=grpo_only", "hybrid.grpo.steps_per_generation=8", "hybrid.save_steps=1")
    on_ranks(folder, *window, fault=after_step("hybrid", 6, terminate))
    on_ranks(folder, *window, count=1)
    assert_equal_run(whole_run(2, *window), folder / "run")


def test_a_number_of_processes_that_cannot_take_the_same_rows(folder):
    on_ranks(folder, count=1, fault=after_step("warmup", 3, terminate))
    ended = on_ranks(folder, "--resume", codes=[1, 1])
    assert "the run was started on 1 processes, with warmup.gradient_accumulation_steps 1" in ended[0].text
    assert "expected: 1 process\n" in ended[0].text
    assert "error" not in ended[1].text


# ---- failing as one ----


@pytest.mark.parametrize(
    ("overrides", "code", "said"),
    [
        (("hybrid.stepz=1",), 2, "stepz"),
        (("hybrid.grpo.num_generations=5",), 2, "does not hold whole groups of 5"),
        (("rewards=[{path: nowhere.py:score}]",), 2, "nowhere.py"),
        (("model.init=null", "model.name=./nowhere"), 2, "there is no folder './nowhere'"),
        (("--resume",), 1, "there is no run to resume"),
    ],
    ids=["key", "contradiction", "reward", "model", "resume"],
)
def test_what_is_wrong_for_all_is_said_once(folder, overrides, code, said):
    ended = on_ranks(folder, *overrides, codes=[code, code])
    assert said in ended[0].text
    assert len(re.findall("^error", ended[0].text, re.MULTILINE)) == 1
    assert "error" not in ended[1].text


@pytest.mark.parametrize("missing", ["recipe.yaml", "rewards.py"])
def test_what_one_process_lacks_all_say(folder, missing):
    """Its machine has another copy of the folder, without the file."""
    ended = on_ranks(folder, fault=on_rank(1, partial(elsewhere, missing)), codes=[2, 2])
    assert len(re.findall(r"^error \(rank 1\): ", ended[0].text, re.MULTILINE)) == 1
    assert missing in ended[0].text
    assert "error" not in ended[1].text


def elsewhere(missing: str | None = None, changed: tuple[str, str] = ("", "")) -> None:
    copy = Path("elsewhere")
    copy.mkdir()
    for name in ("recipe.yaml", "rewards.py"):
        if name != missing:
            (copy / name).write_text(Path(name).read_text().replace(*changed) if changed[0] else Path(name).read_text())
    os.chdir(copy)


def test_a_directory_that_the_other_does_not_see(folder):
    fault = on_rank(1, partial(elsewhere, None))
    ended = on_ranks(folder, "rewards=[knights_knaves]", fault=fault, codes=[2, 2])
    assert "rank 1 does not see what rank 0 writes into" in ended[0].text
    assert not list((folder / "run").glob(".seen*"))


def test_recipes_that_differ_are_told_apart(folder):
    fault = on_rank(1, partial(elsewhere, None, ("learning_rate: 1.0e-3", "learning_rate: 2.0e-3")))
    ended = on_ranks(folder, "rewards=[knights_knaves]", fault=fault, codes=[1, 1])
    assert "hybrid.learning_rate: 0.001 (rank 0), 0.002 (rank 1)" in ended[0].text
    assert not (folder / "run").exists()


ON_RANK_1 = """

def on_rank_1(completion, **row):
    import os
    return 1.0 if completion.endswith("</answer>") else 1 / (1 - int(os.environ["RANK"]))
"""


def test_a_reward_that_fails_on_one_process_only(folder):
    with (folder / "rewards.py").open("a") as file:
        file.write(ON_RANK_1)
    overrides = ("rewards=[{path: rewards.py:on_rank_1}]", "hybrid.controller={name: grpo_only}")
    ended = on_ranks(folder, *overrides, codes=[1, 1])
    assert "16 of the last 32 completions could not be scored" in ended[0].text
    assert "ZeroDivisionError" in ended[0].text
    assert "rewards failed" not in ended[0].text
    assert "error" not in ended[1].text.lower()
    failures = lines(folder / "run", "errors.jsonl")
    assert {line["step"] for line in failures} == {1, 2}  # the third step's 24 of its own are 16 of 32 already
    assert [line["failures_in_step"] for line in failures] == [8] * 16


def test_a_sharded_evaluation_that_fails_on_one_process(folder):
    started = time.monotonic()
    ended = on_ranks(folder, fault=on_rank(1, sampling_fails), codes=[1, 1], fsdp=True)
    assert time.monotonic() - started < 60, "process_timeout_s is 1800"
    assert "RuntimeError: no room for a batch" in ended[1].text
    assert "another process of this run" in ended[0].text
    assert lines(folder / "run", "steps.jsonl")[-1]["step"] == 4


def sampling_fails() -> None:
    from posttrain.rollouts import transformers

    original = transformers.generate

    def generate(*args, **kwargs):
        if kwargs["synced"]:
            raise RuntimeError("no room for a batch")
        return original(*args, **kwargs)

    transformers.generate = generate


def test_what_the_main_process_cannot_write_all_say(folder):
    ended = on_ranks(folder, fault=on_rank(0, after_write_fails), codes=[1, 1])
    assert len(re.findall("^error", ended[0].text, re.MULTILINE)) == 1
    assert "No space left on device" in ended[0].text
    assert "error" not in ended[1].text


def after_write_fails() -> None:
    from posttrain.errors import CheckpointError
    from posttrain.rundir.rundir import RunDir

    original = RunDir.step

    def step(self, record):
        if (record["stage"], record["step"]) == ("hybrid", 3):
            raise CheckpointError("could not be written: No space left on device", where="steps.jsonl")
        original(self, record)

    RunDir.step = step
