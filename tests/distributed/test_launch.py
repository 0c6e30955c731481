"""`posttrain launch` for real: the processes that it starts, the signals that reach them, the exit code in the end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipeline.runs import ONE_THREAD, write_recipe

SHORT = ("evaluate.every=0", "evaluate.at_start=false", "task.eval=2", "hybrid.kl.sample=0", "hybrid.controller=static")
LAUNCH = [sys.executable, "-m", "posttrain", "launch", "recipe.yaml", "--cpu", "--processes"]


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_recipe(tmp_path)


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where accelerate is
    return {**os.environ, **ONE_THREAD, "PATH": path}


def start(folder: Path, *command: str) -> subprocess.Popen:
    with (folder / "said.txt").open("w") as said:
        return subprocess.Popen(command, cwd=folder, env=environment(), stdout=said, stderr=subprocess.STDOUT)


def ended(folder: Path, *command: str) -> tuple[int, str]:
    return start(folder, *command).wait(200), (folder / "said.txt").read_text()


def stopped(folder: Path, processes: int, *overrides: str) -> tuple[int, str]:
    """The exit code of a launch that gets SIGTERM in the middle of the hybrid stage, and what was said."""
    process = start(folder, *LAUNCH, str(processes), *overrides)
    try:
        deadline, steps = time.monotonic() + 200, folder / "run" / "steps.jsonl"
        while not (steps.exists() and '"stage":"hybrid"' in steps.read_text().replace(" ", "")):
            assert process.poll() is None, (folder / "said.txt").read_text()
            assert time.monotonic() < deadline, (folder / "said.txt").read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        return process.wait(100), (folder / "said.txt").read_text()
    finally:
        process.kill()


def hybrid_steps(folder: Path) -> list[int]:
    records = [json.loads(line) for line in (folder / "run" / "steps.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if record["stage"] == "hybrid"]


def test_a_scheduler_stops_two_processes_and_the_printed_command_goes_on(folder):
    """SIGTERM: both save and end with 0, and so does the launcher. `accelerate launch` as printed finishes the run."""
    code, said = stopped(folder, 2, *SHORT, "hybrid.steps=300")
    assert code == 0, said
    assert "stopped as asked, and saved" in said
    again = f"To go on: posttrain launch recipe.yaml --cpu --processes 2 {' '.join(SHORT)} hybrid.steps=300 --resume"
    assert again in said
    assert "Traceback" not in said
    done = hybrid_steps(folder)
    assert done == list(range(1, len(done) + 1))
    assert len(done) < 300

    printed = said.splitlines()[0].replace("hybrid.steps=300", f"hybrid.steps={len(done) + 2}")
    assert re.search(r"accelerate launch --config_file \S+ddp\.yaml --num_processes 2 ", printed)
    code, said = ended(folder, "bash", "-c", f"{printed} --accept-changes")
    assert code == 0, said
    assert hybrid_steps(folder) == list(range(1, len(done) + 3))
    assert said.count("done: model in run/model") == 1  # two processes of one run, not two runs
    assert json.loads((folder / "run" / "environment.json").read_text())["processes"] == 2


def test_a_scheduler_stops_one_process(folder):
    """There accelerate would keep the signal to itself, and leave its child running."""
    code, said = stopped(folder, 1, *SHORT, "hybrid.steps=2000")
    assert code == 0, said
    assert "To go on: posttrain launch recipe.yaml --cpu --processes 1 " in said


def test_the_exit_code_is_the_workers_own(folder):
    code, said = ended(folder, *LAUNCH, "2", *SHORT, "task={name: math, path: absent.jsonl, train: 4, eval: 2}")
    assert code == 2, said
    assert "absent.jsonl" in said
    assert re.search(r"process \d was the first to fail, with exit code 2", said)
    assert "Traceback" not in said
