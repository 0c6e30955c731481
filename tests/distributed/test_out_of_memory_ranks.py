"""Out of memory on one process of two: that one says so, with settings that work, and both end with an error."""

from __future__ import annotations

from tests.distributed.runs import on_rank, on_ranks
from tests.pipeline.runs import write_recipe
from tests.pipeline.test_out_of_memory_run import SAID, in_backward

WITHOUT_EVALUATIONS = ("evaluate.at_start=false", "evaluate.every=0", "run.process_timeout_s=60")


def test_the_rank_that_ran_out_says_so(tmp_path):
    folder = write_recipe(tmp_path / "run")
    # Rank 0 must not end by itself before it learns of it: the other's gradient is missing in the same step
    first, second = on_ranks(folder, *WITHOUT_EVALUATIONS, fault=on_rank(1, in_backward(4)), codes=[1, 1])
    assert f"rank 1: out of memory in an SFT step of the warm-up: {SAID}" in second.text
    settings = "warmup.per_device_train_batch_size=2 warmup.gradient_accumulation_steps=2"
    assert "checkpoint-2 is whole; to go on: " in second.text
    assert settings in second.text
    assert "Traceback" not in second.text
    assert "lost contact with another process of this run" in first.text
