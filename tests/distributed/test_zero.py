"""DeepSpeed's ZeRO-2 and ZeRO-3 on two CPU processes against one process without it. Runs where DeepSpeed is installed.

DeepSpeed wants no GPU for this (`DS_ACCELERATOR=cpu`, gloo, torch's Adam), but accelerate asks for one before it starts
several processes, so that it is told otherwise here.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.processes import ranks
from tests.pipeline.runs import lines, write_recipe

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


def environment(stage: int | None) -> dict[str, str]:
    """As `accelerate launch` sets it by zero2.yaml and zero3.yaml, in float32."""
    if stage is None:
        return {}
    return {
        "DS_ACCELERATOR": "cpu", "ACCELERATE_USE_CPU": "false", "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage), "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto",
        "ACCELERATE_GRADIENT_CLIPPING": "auto", "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
        "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true", "ACCELERATE_MIXED_PRECISION": "no",
    }  # fmt: skip


def train(folder: Path, count: int, stage: int | None, changes: dict[str, Any], *, bad_step: int = 0) -> dict[str, Any]:
    """Four steps, SFT and GRPO in turn: their records, and the whole model's parameters in the end."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType
    from datasets import Dataset

    from posttrain.controllers import Alternate
    from posttrain.errors import TrainingError
    from posttrain.models.load import build_model, train_tokenizer
    from posttrain.training.trainer import HybridTrainer
    from tests.training.conftest import ROWS, hybrid_args, reward

    if stage is not None:
        PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_CPU)
    resume = changes.pop("resume", None)
    tokenizer = train_tokenizer([row["prompt"] + row["completion"] for row in ROWS], vocab_size=320)
    trainer = HybridTrainer(
        model=build_model(tokenizer, hidden_size=32, layers=2, heads=2, max_position_embeddings=64),
        reward_funcs=reward,
        args=hybrid_args(
            folder, use_cpu=stage is None, optim="adamw_torch", per_device_train_batch_size=8 // count,
            gradient_accumulation_steps=2, **changes,
        ),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"], "answer": row["answer"]} for row in ROWS]),
        demonstrations=Dataset.from_list(ROWS),
        controller=Alternate(),
        processing_class=tokenizer,
    )  # fmt: skip
    records: list[dict[str, Any]] = []
    finish_step = trainer.finish_step
    trainer.finish_step = lambda: (finish_step(), records.append(trainer.last_record))
    if bad_step:
        begin = trainer._begin_step

        def spoil() -> None:
            begin()
            if trainer.state.global_step + 1 == bad_step:
                trainer.sft.tokens = float("nan")

        trainer._begin_step = spoil
    try:
        trainer.train(resume_from_checkpoint=resume)
    except TrainingError as error:
        return {"error": str(error), "shared": error.shared, "steps": len(records)}
    values = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return {
        "kind": str(trainer.accelerator.distributed_type),
        "records": records,
        "values": {name: value.float().cpu().clone() for name, value in (values or {}).items()},
    }


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One process without DeepSpeed, with the KL measured."""
    folder = tmp_path_factory.mktemp("one")
    return ranks(1, train, folder / "out", 1, None, {"kl_sample": 1.0}, folder=folder)[0]


def under(stage: int, folder: Path, **changes: Any) -> list[dict[str, Any]]:
    bad_step = changes.pop("bad_step", 0)
    return ranks(
        2, _train_with, (folder / "out", 2, stage, changes), bad_step, folder=folder, environment=environment(stage)
    )


def _train_with(arguments: tuple, bad_step: int) -> dict[str, Any]:
    return train(*arguments, bad_step=bad_step)


SAME = ("mix", "sft_norm", "grpo_norm", "sft_loss", "grpo_loss", "grad_norm", "reward", "prompt_cursor")


def assert_same(record: dict[str, Any], other: dict[str, Any], *more: str) -> None:
    for name in (*SAME, *more):
        expected = other[name]
        if isinstance(expected, float):
            expected = pytest.approx(expected, rel=2e-4, abs=2e-6)
        assert record[name] == expected, name


@pytest.mark.parametrize("stage", [2, 3])
def test_two_processes_equal_one(stage, one, tmp_path):
    """Norms are those of one process: DeepSpeed's are read after the step, before clipping, over all processes."""
    kl = {"kl_sample": 1.0} if stage == 2 else {"kl_sample": 0.0}
    first, second = under(stage, tmp_path, save_strategy="steps", save_steps=2, **kl)
    assert first["kind"] == "DistributedType.DEEPSPEED"
    assert [record["grpo_norm"] is None for record in first["records"]] == [True, False, True, False]
    for mine, others, alone in zip(first["records"], second["records"], one["records"], strict=True):
        assert_same(mine, alone, *(["kl"] if stage == 2 else []))
        assert_same(others, mine)
    assert first["values"].keys() == one["values"].keys()
    for name, value in one["values"].items():
        torch.testing.assert_close(first["values"][name], value, rtol=1e-3, atol=2e-5)

    again, _ = under(stage, tmp_path, resume=str(tmp_path / "out" / "checkpoint-2"), **kl)
    assert len(again["records"]) == 2
    for mine, before in zip(again["records"], first["records"][2:], strict=True):
        assert_same(mine, before)
    for name, value in first["values"].items():
        torch.testing.assert_close(again["values"][name], value, rtol=0, atol=0)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_step_whose_gradient_is_not_finite_is_left_out(stage, tmp_path):
    """By DeepSpeed, which reports the norm as infinite; the run counts it as skipped, and goes on."""
    for seen in under(stage, tmp_path, kl_sample=0.0, bad_step=3):
        assert [record["skipped"] for record in seen["records"]] == [False, False, True, False]
        assert seen["records"][2]["grad_norm"] == math.inf
        assert seen["records"][2]["sft_norm"] is None
        assert math.isfinite(seen["records"][3]["grpo_norm"])
        assert all(value.isfinite().all() for value in seen["values"].values())


def test_too_many_of_them_end_the_run(tmp_path):
    for seen in under(2, tmp_path, kl_sample=0.0, max_skipped_steps=0, bad_step=3):
        assert "the gradient was not finite 1 steps in a row" in seen["error"]
        assert seen["shared"]
        assert seen["steps"] == 2


def run(folder: Path, stage: int | None, *overrides: str) -> list[dict[str, Any]]:
    """`posttrain run` of the tiny recipe: warm-up, hybrid stage, evaluations during and after them."""
    import os

    from accelerate import PartialState
    from accelerate.utils import DistributedType
    from transformers import TrainingArguments

    from posttrain.cli import main

    if stage is not None:
        begin, check = PartialState.__init__, TrainingArguments.__post_init__

        def on_gpus(self: PartialState, cpu: bool = False, **more: Any) -> None:
            begin(self, cpu=False, **more)

        def no_cpu(self: TrainingArguments) -> None:
            self.use_cpu, self.optim = False, "adamw_torch"
            check(self)

        PartialState.__init__, TrainingArguments.__post_init__ = on_gpus, no_cpu
        PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_CPU)
    os.chdir(folder)
    assert main(["run", "recipe.yaml", *overrides]) == 0
    return lines(folder / "run", "steps.jsonl")


def test_a_whole_run_under_zero_3(tmp_path):
    """Models that are loaded after a ZeRO-3 trainer was made are whole; policies that are cut up are evaluated."""
    common = ("hybrid.kl.sample=0", "hybrid.controller.kl_target=null", "hybrid.steps=5", "evaluate.every=3")
    sizes = ("hybrid.per_device_train_batch_size=8", "warmup.per_device_train_batch_size=4")
    halves = ("hybrid.per_device_train_batch_size=4", "warmup.per_device_train_batch_size=2")
    one, two = write_recipe(tmp_path / "one"), write_recipe(tmp_path / "two")
    (alone,) = ranks(1, run, one, None, *common, *sizes, folder=one)
    seen, _ = ranks(2, run, two, 3, *common, *halves, folder=two, environment=environment(3))
    assert [line["stage"] for line in seen] == ["warmup"] * 5 + ["hybrid"] * 5
    for mine, other in zip(seen, alone, strict=True):
        assert mine["mix"] == other["mix"]
        for name in ("sft_norm", "grpo_norm", "sft_loss"):
            expected = other.get(name)
            assert mine.get(name) == (expected if expected is None else pytest.approx(expected, rel=2e-4))
    evaluations = [lines(folder / "run", "eval.jsonl") for folder in (one, two)]
    assert [[line["pass@1"] for line in each] for each in evaluations] == [[0.0] * 4] * 2
