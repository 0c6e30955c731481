"""A warm-up by a curriculum that goes by validation losses, on several processes: the rows and numbers of one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.distributed.runs import ONE_EQUALS_TWO, after_step, assert_equal_run, on_rank, on_ranks
from tests.pipeline.runs import assert_same_run, lines

CURRICULUM = (
    "warmup.curriculum={name: aioli, source: people, sweeps: 1, probe_steps: 1, update_steps: 3, held_out: 3, eta: 4}",
    "task={name: knights_knaves, people: [2, 3], demonstrations: 16, train: 8, eval: 4}",
    "task.split=statements", "task.names=4", "task.prompt=short", "task.cot=copy", "hybrid.steps=1",
    "evaluate={at_start: false, batch_size: 8}",
)  # fmt: skip


def windows(run: Path) -> list[dict]:
    return [line["curriculum"]["windows"][0] for line in lines(run, "steps.jsonl") if line["stage"] == "warmup"]


@pytest.mark.parametrize("fsdp", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_draw_and_measure_as_one(whole_run, fsdp):
    one, two = whole_run(1, *ONE_EQUALS_TWO, *CURRICULUM), whole_run(2, *CURRICULUM, fsdp=fsdp)
    assert_equal_run(one, two)
    for mine, theirs in zip(windows(one), windows(two), strict=True):
        assert [mine[name] for name in ("rows", "drawn", "sources", "probe")] == [
            theirs[name] for name in ("rows", "drawn", "sources", "probe")
        ]
        for left, right in zip(mine.get("measured", ()), theirs.get("measured", ()), strict=True):
            assert left["values"] == pytest.approx(right["values"], rel=1e-5)
            assert (left["rows"], left["tokens"]) == (right["rows"], right["tokens"])
    assert [len(window.get("measured", ())) for window in windows(two)] == [1, 1, 1, 1, 1]
    assert len({tuple(window["mix"].values()) for window in windows(two)}) > 1


def test_a_killed_run_goes_on_as_if_it_had_not_been(folder, whole_run):
    codes = [1, -signal.SIGKILL]
    on_ranks(folder, *CURRICULUM, fault=on_rank(1, after_step("warmup", 3)), codes=codes)
    on_ranks(folder, *CURRICULUM)
    assert_same_run(whole_run(2, *CURRICULUM), folder / "run")
    assert windows(whole_run(2, *CURRICULUM)) == windows(folder / "run")
