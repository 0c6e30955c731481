"""`posttrain launch` for real: the processes that it starts, the signals that reach them, the exit code in the end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.pipeline.forking import Started, forking
from tests.pipeline.runs import ONE_THREAD, write_recipe

SHORT = ("evaluate.every=0", "evaluate.at_start=false", "task.eval=2", "hybrid.kl.sample=0", "hybrid.controller=static")
LAUNCH = [sys.executable, "-P", "-m", "posttrain", "launch", "recipe.yaml", "--cpu", "--processes"]


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_recipe(tmp_path)


def environment() -> dict[str, str]:
    return {**os.environ, **ONE_THREAD, "PATH": "/usr/bin:/bin"}  # without accelerate: the printed command needs none


def start(folder: Path, *command: str) -> subprocess.Popen:
    with (folder / "said.txt").open("w") as said:
        return subprocess.Popen(command, cwd=folder, env=environment(), stdout=said, stderr=subprocess.STDOUT)


def ended(folder: Path, *command: str) -> tuple[int, str]:
    return start(folder, *command).wait(200), (folder / "said.txt").read_text()


def stopped(folder: Path, process: subprocess.Popen | Started) -> tuple[int, str]:
    """The exit code of a launch that gets SIGTERM in the middle of the hybrid stage, and what was said."""
    try:
        in_the_hybrid_stage(folder, process)
        process.send_signal(signal.SIGTERM)
        return process.wait(100), (folder / "said.txt").read_text()
    finally:
        process.kill()


def start_forked(folder: Path, *arguments: str) -> Started:
    """The launcher forked, and by it the processes that it starts."""
    return Started(folder, *arguments, fault=forking, log_name="said.txt")


def in_the_hybrid_stage(folder: Path, process: subprocess.Popen | Started) -> None:
    """Wait until a run has done a step of it."""
    deadline, steps = time.monotonic() + 200, folder / "run" / "steps.jsonl"
    while not (steps.exists() and '"stage":"hybrid"' in steps.read_text().replace(" ", "")):
        assert process.poll() is None, (folder / "said.txt").read_text()
        assert time.monotonic() < deadline, (folder / "said.txt").read_text()
        time.sleep(0.1)


def children(process: Started) -> list[int]:
    """The workers of a launcher."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found if b"posttrain" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def hybrid_steps(folder: Path) -> list[int]:
    records = [json.loads(line) for line in (folder / "run" / "steps.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if record["stage"] == "hybrid"]


def test_a_scheduler_stops_two_processes_and_the_printed_command_goes_on(folder):
    """SIGTERM: both save and end with 0, and so does the launcher. `accelerate launch` as printed finishes the run."""
    code, said = stopped(folder, start_forked(folder, *LAUNCH[4:], "2", *SHORT, "hybrid.steps=2000"))
    assert code == 0, said
    assert "stopped as asked, and saved" in said
    again = f"To go on: posttrain launch recipe.yaml --cpu --processes 2 {' '.join(SHORT)} hybrid.steps=2000 --resume"
    assert again in said
    assert "Traceback" not in said
    done = hybrid_steps(folder)
    assert done == list(range(1, len(done) + 1))
    assert len(done) < 2000

    assert "signal" not in said  # torch's launcher tells of each that it got and sent
    printed = said.splitlines()[1].replace("hybrid.steps=2000", f"hybrid.steps={len(done) + 2}")
    assert re.search(r"-m accelerate.commands.launch --config_file \S+ddp\.yaml --num_processes 2 ", printed)
    code, said = ended(folder, "bash", "-c", f"{printed} --accept-changes")
    assert code == 0, said
    assert "missing keys" not in said  # the head's, which are the embedding's
    assert hybrid_steps(folder) == list(range(1, len(done) + 3))
    assert said.count("done: model in run/model") == 1  # two processes of one run, not two runs
    assert json.loads((folder / "run" / "environment.json").read_text())["processes"] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_killed_ranks_and_launchers(folder):
    """A killed rank: the launcher says what that often is, and what to go on from. A killed launcher: the ranks, which
    nobody looks after any more, save and end."""
    given = (*LAUNCH[4:], "2", *SHORT, "hybrid.steps=2000")
    process = start_forked(folder, *given)
    try:
        in_the_hybrid_stage(folder, process)
        while not list((folder / "run" / "checkpoints" / "hybrid").glob("checkpoint-*")):
            time.sleep(0.1)
        os.kill(children(process)[1], signal.SIGKILL)
        assert process.wait(100) == 137
    finally:
        process.kill()
    said = (folder / "said.txt").read_text()
    last = said.splitlines()[-1]
    assert re.search(r"process 1 .* by SIGKILL \(often the kernel's.*goes on from run/checkpoints/hybrid/check", last)
    assert "error (rank 0): lost contact with another process" in said
    assert "Traceback" not in said
    assert "failed (exitcode" not in said

    before = hybrid_steps(folder)[-1]
    process, workers = start_forked(folder, *given), []
    try:
        while hybrid_steps(folder)[-1] < before + 2:
            assert process.poll() is None, (folder / "said.txt").read_text()
            time.sleep(0.1)
        workers = children(process)
        assert len(workers) == 2
        process.kill()
        process.wait()
        until = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < until, (folder / "said.txt").read_text()
            time.sleep(0.1)
    finally:
        for pid in [process.pid, *workers]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    said = (folder / "said.txt").read_text()
    assert "stopped as asked, and saved" in said
    assert (folder / "run" / "checkpoints" / "hybrid" / f"checkpoint-{hybrid_steps(folder)[-1]}").is_dir()


def test_a_scheduler_stops_one_process(folder):
    """There accelerate would keep the signal to itself, and leave its child running."""
    code, said = stopped(folder, start(folder, *LAUNCH, "1", *SHORT, "hybrid.steps=2000"))
    assert code == 0, said
    assert "To go on: posttrain launch recipe.yaml --cpu --processes 1 " in said


@pytest.mark.parametrize("processes", [1, 2])
def test_the_exit_code_is_the_workers_own_and_no_file_in_the_working_folder_ran(processes, folder):
    """A numpy.py beside a downloaded recipe is no library: not in the launcher, not in its processes."""
    for name in ("numpy", "torch", "accelerate", "logging"):
        (folder / f"{name}.py").write_text("open('it-ran', 'w').close()\nraise SystemExit(99)\n")
    (folder / "empty").mkdir()
    code, said = ended(folder, *LAUNCH, str(processes), *SHORT, "model={name: ./empty}")
    assert code == 2, said
    assert "the model './empty' cannot be loaded" in said
    assert bool(re.search(r"process \d was the first to fail, with exit code 2", said)) == (processes == 2)
    assert "Traceback" not in said
    assert not (folder / "it-ran").exists()
