"""Whole runs of a tiny recipe, each in a process of its own that can be killed, and what two runs must share.

Importing torch and TRL takes far longer than such a run does, so most processes are forked from a server that has
imported them already. `command` starts a fresh interpreter: the reference runs use it, so that nothing which differs
from process to process (the hashes of strings, say) can hide behind the fork.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.sparing import spare

REWARD = '''
def score(completion, *, people, **row):
    """Dense on purpose, so that an untrained model's groups differ."""
    return min(1.0, len(set(completion)) / 20)


def sometimes(completion, **row):
    if not len(completion) % 2:
        raise ValueError("an even number of characters")
    return min(1.0, len(set(completion)) / 30)


def never(completion, **row):
    raise ZeroDivisionError("no completion is good enough")


def only_demonstrations(completion, **row):
    if not completion.endswith("</answer>"):
        raise ZeroDivisionError("no completion is good enough")
    return 1.0


def absent_column(completion, *, answer):
    return 0.0
'''

RECIPE = """
rollout: {engine: transformers}
model:
  init: {hidden_size: 32, layers: 2, heads: 2, vocab_size: 300, max_position_embeddings: 160}
task:
  {name: knights_knaves, people: [2], split: statements, names: 4, prompt: short, cot: copy, think_share: 0.2,
   train: 10, eval: 8, demonstrations: 12}
rewards: [{path: rewards.py:score}]
warmup: {steps: 5, learning_rate: 1.0e-2, per_device_train_batch_size: 4, save_steps: 2}
hybrid:
  steps: 10
  learning_rate: 1.0e-3
  per_device_train_batch_size: 8
  save_steps: 2
  save_total_limit: null
  controller: {name: sasr, kl_target: 0.1}
  grpo: {num_generations: 2, max_completion_length: 12}
evaluate: {batch_size: 8, every: 4}
run: {dir: run, device: cpu, threads: 1, save_completions_every: 1}
"""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@dataclass
class Ended:
    """How a command ended: its status (minus the signal that killed it) and all it said."""

    code: int
    text: str


def write_recipe(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rewards.py").write_text(REWARD)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def command(folder: Path, *arguments: str) -> Ended:
    """`posttrain ARGUMENTS` in a fresh interpreter, in `folder`."""
    done = subprocess.run(
        [sys.executable, "-m", "posttrain", *arguments],
        cwd=folder, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout + done.stderr)


def forked(
    folder: Path,
    *arguments: str,
    fault: Callable[[], Any] | None = None,
    meanwhile: Callable[[multiprocessing.process.BaseProcess], None] | None = None,
    log_name: str = "log.txt",
) -> Ended:
    """`posttrain ARGUMENTS` in a process forked ready for it.

    `fault` is called there first, and what it returns, if anything, at the end; `meanwhile` is called here.
    """
    log = folder / log_name
    process = begin(folder, arguments, log, fault)
    if meanwhile:
        meanwhile(process)
    process.join()
    return Ended(process.exitcode or 0, log.read_text() if log.exists() else "")


def begin(
    folder: Path, arguments: Sequence[str], log: Path, fault: Callable[[], Any] | None
) -> multiprocessing.process.BaseProcess:
    """The process of `forked`, begun."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_child, args=(folder, arguments, log, fault))
    log.unlink(missing_ok=True)
    process.start()
    return process


def train(folder: Path, *overrides: str, **how: Any) -> Ended:
    """`posttrain run recipe.yaml OVERRIDES`, forked; `how` as for `forked`."""
    return forked(folder, "run", "recipe.yaml", *overrides, **how)


def _child(folder: Path, arguments: Sequence[str], log: Path, fault: Callable[[], Any] | None) -> None:
    spare()
    os.chdir(folder)
    os.environ.update(ONE_THREAD)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.argv = ["posttrain", *arguments]
    from posttrain.cli import main

    after = fault() if fault else None
    code = main(arguments)
    if after:
        after()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# ---- faults: called in the child before the run begins; each makes something happen at one certain place ----


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def no_room() -> None:
    """From here on the kernel refuses to let a file grow past what a line of JSON needs."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))


def at_step(stage: str, step: int, action: Callable[[], None] = kill) -> Callable[[], None]:
    """Act when a step has been recorded: after the optimizer, before anything is saved."""
    return partial(_at_step, stage, step, action)


def _at_step(stage: str, step: int, action: Callable[[], None]) -> None:
    from posttrain.rundir.rundir import RunDir

    original = RunDir.step

    def record(self: RunDir, line: dict[str, Any]) -> None:
        original(self, line)
        if (line["stage"], line["step"]) == (stage, step):
            action()

    RunDir.step = record  # type: ignore[method-assign, assignment]


def both(*faults: Callable[[], Any]) -> Callable[[], Any]:
    """Several faults in one run; the last of them may return what is to be done after the run."""
    return partial(_both, faults)


def _both(faults: Sequence[Callable[[], Any]]) -> Any:
    return [fault() for fault in faults][-1]


def nan_gradient(stage: str, *steps: int) -> Callable[[], None]:
    """In these steps a parameter's gradient is NaN, by a hook of torch's."""
    return partial(_in_steps, stage, steps, _NaNGradient)


def infinite_weight(stage: str, *steps: int) -> Callable[[], None]:
    """During these steps a weight is infinite; after each it is what it was."""
    return partial(_in_steps, stage, steps, _InfiniteWeight)


def _in_steps(stage: str, steps: Sequence[int], kind: type) -> None:
    from transformers import Trainer, TrainerCallback

    class During(TrainerCallback):
        ends: Callable[[], None] | None = None

        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step + 1 in steps:
                self.ends = kind(next(p for p in model.parameters() if p.requires_grad)).end

        def on_step_end(self, args, state, control, **kwargs):
            if self.ends:
                self.ends()
            self.ends = None

    original = Trainer.__init__

    def init(self: Trainer, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if (type(self).__name__ == "HybridTrainer") == (stage == "hybrid"):
            self.add_callback(During())

    Trainer.__init__ = init  # type: ignore[method-assign, assignment]


class _NaNGradient:
    def __init__(self, parameter: Any):
        self.end = parameter.register_hook(lambda gradient: gradient * math.nan).remove


class _InfiniteWeight:
    def __init__(self, parameter: Any):
        self._weights = parameter.data
        self._was = self._weights.clone()
        self._weights[:] = math.inf

    def end(self) -> None:
        self._weights.copy_(self._was)


def in_evaluation(stage: str, action: Callable[[], None] = kill) -> Callable[[], None]:
    """Act when an evaluation has its completions, of which nothing is written yet."""
    return partial(_in_evaluation, stage, action)


def _in_evaluation(stage: str, action: Callable[[], None]) -> None:
    from posttrain.watching.progress import Progress

    original = Progress.track

    def track(self: Progress, label: str) -> Callable[[int, int], None]:
        if label == f"eval {stage}":
            return lambda done, total: action()
        return original(self, label)

    Progress.track = track  # type: ignore[method-assign]


def before_line_of_evaluation(stage: str) -> Callable[[], None]:
    """A kill between the completions of an evaluation and its line in eval.jsonl."""
    return partial(_before_line, stage)


def _before_line(stage: str) -> None:
    from posttrain.rundir import completions as records

    original = records.write_completions

    def write(path: Path, rows: list[dict[str, Any]]) -> None:
        original(path, rows)
        if path.name.startswith(f"eval-{stage}-"):
            kill()

    records.write_completions = write  # type: ignore[assignment]


def while_saving(name: str) -> Callable[[], None]:
    """A kill when a folder (`model`, `warmup` or `checkpoint-N`) is half written."""
    return partial(_while_saving, name)


def _while_saving(name: str) -> None:
    import posttrain.storage.checkpoints

    original = posttrain.storage.checkpoints.seal

    def seal(checkpoint: Path, *files: Any) -> None:
        if checkpoint.name == name:
            largest = max((file for file in checkpoint.iterdir()), key=lambda file: file.stat().st_size)
            os.truncate(largest, largest.stat().st_size // 2)
            kill()
        original(checkpoint, *files)

    posttrain.storage.checkpoints.seal = seal


# ---- what two runs must share ----


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    """The records of a JSON-lines file, clock times apart, and probes: a new session's engine is probed anew."""
    with (run / name).open() as file:
        records = [
            {key: value for key, value in json.loads(line).items() if key not in ("seconds", "spent")} for line in file
        ]
    for record in records:
        if gap := record.get("sampling"):
            record["sampling"] = {key: value for key, value in gap.items() if not key.startswith("probe_")} or None
    return records


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit the same: models, steps (with both cursors and the controller), evaluations, completions."""
    assert lines(one, "steps.jsonl") == lines(other, "steps.jsonl")
    assert lines(one, "eval.jsonl") == lines(other, "eval.jsonl")
    assert [(run / "alarms.jsonl").exists() for run in (one, other)] in ([True] * 2, [False] * 2)
    if (one / "alarms.jsonl").exists():
        assert lines(one, "alarms.jsonl") == lines(other, "alarms.jsonl")
    tables = sorted(path.name for path in (one / "completions").iterdir())
    assert tables == sorted(path.name for path in (other / "completions").iterdir())
    for name in tables:
        assert pq.read_table(one / "completions" / name).equals(pq.read_table(other / "completions" / name)), name
    for stage in ("warmup", "model"):
        weights = [path.name for path in (one / stage).glob("*.safetensors")]
        assert weights or not (one / stage).exists()
        for name in weights:
            assert (one / stage / name).read_bytes() == (other / stage / name).read_bytes(), f"{stage}/{name}"
