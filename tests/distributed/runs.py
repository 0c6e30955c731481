"""Whole runs of the tiny recipe on several processes, and in what they must equal a run on one.

`on_ranks` runs `posttrain run` in each of several forked processes. What two runs share to the last bit is compared
exactly; norms, losses and parameters are sums over rows in another order, and are compared to float32 round-off.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors.torch import load_file

from tests.distributed.processes import output, ranks
from tests.pipeline.runs import Ended, kill, lines

ONE_EQUALS_TWO = ("warmup.gradient_accumulation_steps=2", "hybrid.gradient_accumulation_steps=2")
"""What makes one process take the rows of two."""

EXACT = ("stage", "step", "prompt_cursor", "demonstration_cursor", "rollouts", "skipped")
ROUNDED = (
    "p",
    "sft_loss",
    "sft_trained_loss",
    "grpo_loss",
    "sft_norm",
    "grpo_norm",
    "grad_norm",
    "kl",
    "reward",
    "reward_std",
    "learning_rate",
)


def on_ranks(
    folder: Path,
    *overrides: str,
    count: int = 2,
    fault: Callable[[], None] | None = None,
    codes: list[int] | None = None,
    fsdp: bool = False,
    time_limit_s: float = 120.0,
) -> list[Ended]:
    """`posttrain run recipe.yaml OVERRIDES` in `count` processes; how each of them ended, as `codes` says it must."""
    logs = folder / "logs"
    ranks(
        count, _posttrain, folder, ("run", "recipe.yaml", *overrides), fault,
        folder=logs, expected=codes, fsdp=fsdp, time_limit_s=time_limit_s,
    )  # fmt: skip
    return [Ended(code, output(logs, rank)) for rank, code in enumerate(codes or [0] * count)]


def _posttrain(folder: Path, arguments: tuple[str, ...], fault: Callable[[], None] | None) -> None:
    os.chdir(folder)
    sys.argv = ["posttrain", *arguments]
    from posttrain.cli import main

    if fault:
        fault()
    code = main(arguments)
    if code:
        raise SystemExit(code)


# ---- faults: as those of tests/pipeline/runs.py, but of one process ----


def on_rank(rank: int, fault: Callable[[], None]) -> Callable[[], None]:
    """The fault, in one process only."""
    return partial(_on_rank, rank, fault)


def _on_rank(rank: int, fault: Callable[[], None]) -> None:
    if os.environ.get("RANK", "0") == str(rank):
        fault()


def after_step(stage: str, step: int, action: Callable[[], None] = kill) -> Callable[[], None]:
    """Act when a step is done, before the processes agree on whether to stop and before anything is saved."""
    return partial(_after_step, stage, step, action)


def _after_step(stage: str, step: int, action: Callable[[], None]) -> None:
    from posttrain.running.callbacks import StopWhenAsked

    original = StopWhenAsked.on_step_end

    def on_step_end(self: StopWhenAsked, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if (Path(args.output_dir).name, state.global_step) == (stage, step):
            action()
        original(self, args, state, control, **kwargs)

    StopWhenAsked.on_step_end = on_step_end  # type: ignore[method-assign]


# ---- what two runs must share ----


def assert_equal_run(one: Path, other: Path, *, within: float = 5e-5) -> None:
    """The same decisions, cursors, completions and evaluations; the same norms and parameters to round-off.

    Args:
        one, other: Run directories.
        within: The relative difference that round-off may grow to over the run's steps.
    """
    left, right = lines(one, "steps.jsonl"), lines(other, "steps.jsonl")
    assert len(left) == len(right)
    for mine, theirs in zip(left, right, strict=True):
        at = f"{mine['stage']} step {mine['step']}"
        for name in EXACT:
            assert mine.get(name) == theirs.get(name), f"{at}: {name}"
        for half in ("sft", "grpo"):  # 0 or 1 but in a blend, whose shares follow from norms
            _assert_near(mine["mix"][half], theirs["mix"][half], within, f"{at}: {half}")
        for name in ROUNDED:
            _assert_near(mine.get(name), theirs.get(name), within, f"{at}: {name}")
    assert lines(one, "eval.jsonl") == lines(other, "eval.jsonl")
    tables = sorted(path.name for path in (one / "completions").iterdir())
    assert tables == sorted(path.name for path in (other / "completions").iterdir())
    for name in tables:
        mine, theirs = (pq.read_table(run / "completions" / name).to_pylist() for run in (one, other))
        assert [_without_floats(row) for row in mine] == [_without_floats(row) for row in theirs], name
    for stage in ("warmup", "model"):
        files = sorted(path.name for path in (one / stage).glob("*.safetensors"))
        assert files == sorted(path.name for path in (other / stage).glob("*.safetensors"))
        assert files, f"{stage}: no weights"
        for name in files:
            mine, theirs = load_file(one / stage / name), load_file(other / stage / name)
            assert mine.keys() == theirs.keys()
            for key, tensor in mine.items():
                # By the norm: where a gradient is round-off itself, Adam moves an element by up to a learning rate
                apart = (tensor - theirs[key]).norm() / tensor.norm()
                assert apart <= within, f"{stage}/{name}: {key} is {apart:.1e} apart"


def _assert_near(one: float | None, other: float | None, within: float, what: str) -> None:
    if one is None or other is None:
        assert one is other is None, f"{what}: {one} and {other}"
    else:
        assert math.isclose(one, other, rel_tol=within, abs_tol=within / 10), f"{what}: {one} and {other}"


def _without_floats(row: dict[str, Any]) -> dict[str, Any]:
    """What is compared exactly: an advantage divides by a standard deviation, which round-off reaches."""
    return {name: value for name, value in row.items() if name != "advantage"}
