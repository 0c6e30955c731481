"""Two processes with vLLM equal one with the same global batch: an engine in each of them, DDP and FSDP2."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType

from posttrain.controllers import Static
from posttrain.errors import ConfigError, PosttrainError
from posttrain.storage.checkpoints import latest_checkpoint
from posttrain.training.config import check_model
from tests.distributed.processes import ranks
from tests.vllm.training import Ran, train

FLOAT32 = 1e-4
"""How far apart two implementations of the same float32 model may be, per token, as a log-probability."""

POLICIES = {
    "full, tied": ("model_folder", None),
    "full, untied": ("untied_folder", None),
    "lora, tied": ("model_folder", {"target_modules": "all-linear"}),
    "lora, untied by the adapter": ("model_folder", {"target_modules": ["q_proj", "embed_tokens"]}),
}


# Not Adam: where a gradient is zero but for rounding, its step is the learning rate in a direction of chance
PLAIN = {"optim": "sgd", "learning_rate": 0.3, "max_steps": 3}


def run(folder: Path, model_folder: Path, lora: dict | None, processes: int, way: str = "auto") -> Ran:
    """In each of the processes."""
    controller = Static(sft_share=0.3, mode="blend", match_norms=True)
    return train(folder, model_folder, controller, processes=processes, lora=lora, **PLAIN, vllm_lora=way)


@pytest.mark.parametrize("policy", POLICIES)
def test_two_processes_equal_one(policy, request, tmp_path):
    name, lora = POLICIES[policy]
    model_folder = request.getfixturevalue(name)
    one = ranks(1, run, tmp_path / "one", model_folder, lora, 1, folder=tmp_path / "1")[0]
    for way, fsdp in {"ddp": False, "fsdp2": True}.items():
        folder = tmp_path / way
        assert_equal(one, *ranks(2, run, folder / "run", model_folder, lora, 2, folder=folder, fsdp=fsdp))


def test_two_processes_equal_one_with_the_adapter_alone(model_folder, tmp_path):
    """Of shards, too, of which the adapter's alone are gathered after the first time."""
    lora, alone = {"target_modules": "all-linear"}, "adapter"
    one = ranks(1, run, tmp_path / "one", model_folder, lora, 1, alone, folder=tmp_path / "1")[0]
    assert max(one.gaps) < FLOAT32
    for way, fsdp in {"ddp": False, "fsdp2": True}.items():
        folder = tmp_path / way
        assert_equal(one, *ranks(2, run, folder / "run", model_folder, lora, 2, alone, folder=folder, fsdp=fsdp))


def assert_equal(one: Ran, first: Ran, second: Ran) -> None:
    """Rollouts and mixes exactly, norms and weights up to the order of sums."""
    assert [a + b for a, b in zip(first.rollouts, second.rollouts, strict=True)] == one.rollouts
    assert len(one.rollouts) == one.loads == len(one.steps) > 1
    for ours, theirs in zip(first.steps, one.steps, strict=True):
        assert (ours["mix"], ours["reason"]) == (theirs["mix"], theirs["reason"])
        for name in ("sft_norm", "grpo_norm", "grad_norm", "sft_loss", "reward"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name
    assert list(first.weights) == list(second.weights) == list(one.weights)
    for name, weight in one.weights.items():
        assert torch.equal(first.weights[name], second.weights[name]), name
        assert torch.allclose(first.weights[name], weight, atol=2e-5), name
    moved = len({tuple(map(tuple, rows)) for rows in one.rollouts})
    assert moved == len(one.rollouts)
    assert max(one.gaps + first.gaps + second.gaps) < FLOAT32


# ---- an engine that fails on one of them ----


def failing(folder: Path, model_folder: Path, fault: str | None, **more: Any) -> Ran | tuple[str, str, bool]:
    """In each of two processes; the engine of the second fails in step 3."""

    def prepare(trainer: Any) -> None:
        if fault is None or trainer.accelerator.is_main_process:
            return
        llm = trainer.vllm_generation.engine.engine._llm
        step, call = llm.llm_engine.step, llm.collective_rpc

        def dies_sampling():
            if trainer.state.global_step == 2:
                raise RuntimeError("no memory left on the device")
            return step()

        def dies_loading(method, args=()):
            if trainer.state.global_step == 2 and method == "posttrain_load":
                next(args[0])
                raise RuntimeError("no memory left on the device")
            return call(method, args=args)

        if fault == "sampling":
            llm.llm_engine.step = dies_sampling
        else:
            llm.collective_rpc = dies_loading

    controller = Static(sft_share=0.3, mode="blend", match_norms=True)
    settings = PLAIN | {"save_strategy": "steps", "save_steps": 1, "vllm_probe_every": 0} | more
    try:
        return train(folder, model_folder, controller, processes=2, before=prepare, **settings)
    except PosttrainError as error:
        return type(error).__name__, str(error), error.shared


@pytest.mark.parametrize(("fault", "fsdp"), [("sampling", False), ("loading", True)], ids=["sampling", "loading"])
def test_an_engine_that_fails_in_one_process_ends_both_and_the_run_goes_on(fault, fsdp, model_folder, tmp_path):
    """Loading sharded weights is collective: the other process is in the middle of gathering them."""
    ended = ranks(2, failing, tmp_path / "run", model_folder, fault, folder=tmp_path / "1", fsdp=fsdp, time_limit_s=120)
    assert ended[0] == ended[1]
    kind, said, shared = ended[0]
    assert (kind, shared) == ("TrainingError", True)
    assert "failed: RuntimeError: no memory left on the device" in said
    assert latest_checkpoint(tmp_path / "run").name == "checkpoint-2"
    resumed = ranks(2, resumed_run, tmp_path / "run", model_folder, folder=tmp_path / "2", fsdp=fsdp)
    assert [step["step"] for step in resumed[0].steps] == [1, 2, 3]


def resumed_run(folder: Path, model_folder: Path) -> Any:
    return failing(folder, model_folder, None, resume=True)


# ---- what shards the weights out of reach ----


@pytest.mark.parametrize(
    ("kind", "plugin", "refused"),
    [
        (DistributedType.FSDP, {"fsdp_version": 1}, "FSDP1"),
        (DistributedType.FSDP, {"fsdp_version": 2}, None),
        (DistributedType.DEEPSPEED, {"zero_stage": 3}, "ZeRO-3"),
        (DistributedType.DEEPSPEED, {"zero_stage": 2}, None),
        (DistributedType.MULTI_GPU, {}, None),
    ],
)
@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_vllm_is_refused_where_no_engine_can_get_the_weights(kind, plugin, refused, mode):
    """Neither DeepSpeed nor FSDP1 runs here: their trainers are told by what accelerate says of them."""
    state = SimpleNamespace(fsdp_plugin=SimpleNamespace(**plugin), deepspeed_plugin=SimpleNamespace(**plugin))
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(state=state, distributed_type=kind, num_processes=2),
        args=SimpleNamespace(use_vllm=True, vllm_mode=mode),
        is_fsdp_enabled=kind == DistributedType.FSDP,
        is_deepspeed_enabled=kind == DistributedType.DEEPSPEED,
        aux_loss_enabled=False,
        _is_vlm=False,
        model=SimpleNamespace(parameters=list),
    )
    with (
        pytest.raises(ConfigError, match=f"use_vllm: vLLM with weights sharded by .*{refused}")
        if refused
        else (nullcontext())
    ):
        check_model(trainer, measures_kl=False)
