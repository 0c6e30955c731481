"""A server that dies or hangs in the middle of a run: an error on every process, and a run that can go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from posttrain.errors import PosttrainError, TrainingError
from posttrain.storage.checkpoints import latest_checkpoint
from tests.distributed.processes import ranks
from tests.vllm.servers import Server
from tests.vllm.test_overlap import assert_same, on_server
from tests.vllm.training import Ran

STEPS = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1}


class AtStep(TrainerCallback):
    """Does something to the server before a step."""

    def __init__(self, step: int, fault: Callable[[], None]):
        self.step, self.fault = step, fault

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            self.fault()


def kill(group: int) -> None:
    os.killpg(group, signal.SIGKILL)


def run(
    folder: Path, model_folder: Path, url: str, processes: int, fault: str | None, group: int, **more: Any
) -> Ran | tuple[str, str, bool, float]:
    """In each of the processes: what the run left, or what kind of error ended it, in words, shared, and when.

    The server, a process group, is killed by the main process in step 3.
    """

    def prepare(trainer: Any) -> None:
        if fault is None or not trainer.accelerator.is_main_process:
            return
        aside, engine = trainer.sft.backward_aside, trainer.vllm_generation.engine.engine

        def while_sampling(*args):
            if trainer.state.global_step == 2:
                kill(group)
            return aside(*args)

        call = engine.api.call_workers

        def while_weights_travel(method, args, deadline):
            if trainer.state.global_step == 2 and method == "posttrain_load_file":
                kill(group)
            return call(method, args, deadline)

        if fault == "while sampling":
            trainer.sft.backward_aside = while_sampling
        else:
            engine.api.call_workers = while_weights_travel

    try:
        return on_server(folder, model_folder, url, processes, before=prepare, **(STEPS | more))
    except PosttrainError as error:
        return type(error).__name__, str(error), error.shared, time.time()


@pytest.mark.slow
def test_a_server_that_hangs_is_waited_for_as_long_as_was_said_and_the_run_goes_on(server, model_folder, tmp_path):
    """The same server goes on as well: what the run had asked for is nobody's any more."""
    whole = on_server(tmp_path / "whole", model_folder, server.url, **STEPS)

    def hang(trainer):
        def stop():
            trainer.vllm_generation.engine.engine.api.time_limit_s = 1.5
            server.hang()

        trainer.add_callback(AtStep(3, stop))

    start = time.monotonic()
    try:
        with pytest.raises(TrainingError, match=r"the vLLM server at .* failed .*: no answer within 1.5 s"):
            on_server(tmp_path / "parts", model_folder, server.url, before=hang, **STEPS)
    finally:
        server.go_on()
    assert time.monotonic() - start < 30
    assert latest_checkpoint(tmp_path / "parts").name == "checkpoint-2"
    resumed = on_server(tmp_path / "parts", model_folder, server.url, resume=True, **STEPS)
    whole.rollouts = whole.rollouts[2:]
    assert_same(resumed, whole)


@pytest.mark.slow
def test_a_server_killed_while_it_samples_ends_both_processes_and_the_run_goes_on_with_another(
    server, model_folder, tmp_path
):
    whole = ranks(2, run, tmp_path / "whole", model_folder, server.url, 2, None, 0, folder=tmp_path / "1")
    assert_both_ended(server, model_folder, tmp_path, "while sampling", fsdp=False)
    server.start()
    resumed = ranks(2, _resumed, tmp_path / "parts", model_folder, server.url, folder=tmp_path / "3")
    for ours, theirs in zip(resumed, whole, strict=True):
        theirs.rollouts = theirs.rollouts[2:]
        assert_same(ours, theirs)


@pytest.mark.slow
def test_a_server_killed_while_weights_travel_ends_both_processes(server, model_folder, tmp_path):
    """The other process is gathering sharded weights at that time, and must not be left alone with it."""
    assert_both_ended(server, model_folder, tmp_path, "while weights travel", fsdp=True)


def assert_both_ended(server: Server, model_folder: Path, tmp_path: Path, fault: str, *, fsdp: bool) -> None:
    assert server.process is not None
    folder, group = tmp_path / "parts", server.process.pid
    ended = ranks(2, run, folder, model_folder, server.url, 2, fault, group, folder=tmp_path / "2", fsdp=fsdp)
    assert ended[0][:3] == ended[1][:3]
    kind, said, shared, _ = ended[0]
    assert (kind, shared) == ("TrainingError", True)
    assert said.startswith(f"rollout.server_base_url: the vLLM server at {server.url} failed (")
    assert "the last checkpoint is whole" in said
    assert abs(ended[0][3] - ended[1][3]) < 10
    assert latest_checkpoint(folder).name == "checkpoint-2"


def _resumed(folder: Path, model_folder: Path, url: str) -> Any:
    return run(folder, model_folder, url, 2, None, 0, resume=True)
