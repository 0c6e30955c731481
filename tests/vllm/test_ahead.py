"""A server samples the next window's rollouts, from the policy as it is, while this window is trained on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from posttrain.controllers import SASR, GRPOOnly
from posttrain.models.policy_weights import named_weights
from posttrain.rollouts.vllm_server import ServerEngine
from tests.distributed.processes import ranks
from tests.vllm.test_overlap import BLEND, assert_same, on_server, without_clock
from tests.vllm.test_ranks import assert_equal
from tests.vllm.training import Ran

pytestmark = pytest.mark.slow
MODES = {"vllm_importance_sampling_mode": "token_truncate"}
"""No row is masked for being too far from what it was sampled by: every step moves the weights."""


def ahead(folder: Path, model_folder: Path, url: str, processes: int = 1, lora: dict | None = None, **more) -> Ran:
    return on_server(folder, model_folder, url, processes, lora, **{"vllm_ahead": 1, **MODES, **more})


class Sent:
    """The weights that each request for a group's completions was made under, and what came of it."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.asked: list[tuple[Any, ...]] = []

    def __call__(self, trainer) -> None:
        engine = trainer.vllm_generation.engine
        load, begin = engine.load, engine.begin
        weights: dict[str, torch.Tensor] = {}

        def loaded(model):
            self.order.append("load")
            weights.clear()
            weights.update({name: tensor.clone() for name, tensor in named_weights(model)})
            load(model)

        def begun(prompt_ids, seeds, sampling, *more, **named):
            collect = begin(prompt_ids, seeds, sampling, *more, **named)
            if sampling.n == 1:
                return collect
            self.order.append("begin")
            self.asked.append((dict(weights), prompt_ids, seeds, sampling))
            return lambda: (self.order.append("collect"), collect())[1]

        engine.load, engine.begin = loaded, begun
        trainer.add_callback(Stepped(self.order))


class Stepped(TrainerCallback):
    def __init__(self, order: list[str]):
        self.order = order

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.order.append("step")


def test_a_window_is_sampled_from_the_policy_before_the_update_that_comes_between(server, model_folder, tmp_path):
    sent = Sent()
    ran = ahead(tmp_path / "run", model_folder, server.url, before=sent, controller=GRPOOnly(), max_steps=4)
    first, between = ["load", "begin", "collect", "begin", "step"], ["collect", "load", "begin", "step"]
    assert sent.order == [*first, *between * 2, "collect", "step"]  # nothing is begun that nothing is trained on
    assert [step["sampling"]["stale_steps"] for step in ran.steps] == [0, 1, 1, 1]
    assert [step["sampling"]["ratio_max"] < 1.001 for step in ran.steps] == [True, False, False, False]
    assert len(ran.rollouts) == 4

    engine = ServerEngine(server.url, eos_token_ids=[0], time_limit_s=60)
    before: dict[str, torch.Tensor] = {}
    for number, (weights, prompt_ids, seeds, sampling) in enumerate(sent.asked):
        # Windows 0 and 1 are of the first policy, each later one of the next
        same = all(torch.equal(weights[name], before[name]) for name in before)
        assert same == (number < 2)
        before = weights
        engine.load(list(weights.items()))
        # The ends of a request are the engine's: that of the trainer's is known by what it was given
        again = engine.sample(prompt_ids, seeds, sampling)
        for ours, theirs in zip([one.token_ids for group in again for one in group], ran.rollouts[number], strict=True):
            shared = min(len(ours), len(theirs))
            assert ours[:shared] == theirs[:shared]
    engine.close()


def test_without_updates_it_is_the_same_run(server, model_folder, tmp_path):
    options = {"controller": BLEND, "learning_rate": 0.0, **MODES}
    plain = on_server(tmp_path / "plain", model_folder, server.url, **options)
    ours = ahead(tmp_path / "ahead", model_folder, server.url, **options)
    assert ours.rollouts == plain.rollouts
    own = ("probe_mean", "probe_max", "stale_steps")  # compared at other transfers of the same weights
    for step, theirs in zip(without_clock(ours.steps), without_clock(plain.steps), strict=True):
        for one in (step, theirs):
            one["sampling"] = {name: value for name, value in one["sampling"].items() if name not in own}
            one.pop("prompt_cursor")  # of what is drawn, one window earlier
        assert step == theirs
    assert all(torch.equal(ours.weights[name], plain.weights[name]) for name in plain.weights)


def test_sft_steps_between_make_rollouts_older(server, model_folder, tmp_path):
    options = {"controller": SASR(gamma=3.0, kl_target=None), "max_steps": 8}
    ran = ahead(tmp_path / "run", model_folder, server.url, **options)
    grpo = [step["step"] for step in ran.steps if step["mix"]["grpo"]]
    assert 2 < len(grpo) < 8
    stale = [step["sampling"]["stale_steps"] for step in ran.steps if step["mix"]["grpo"]]
    assert stale == [0, *(after - before for before, after in pairwise(grpo))]


@pytest.mark.parametrize("window", [1, 2], ids=["every step", "windows of two steps"])
def test_resuming_equals_never_stopping(window, server, model_folder, tmp_path):
    options = {
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 3,
        "steps_per_generation": window,
        "per_device_train_batch_size": 8,
    }
    options |= {"gradient_accumulation_steps": 1, "num_generations": 4, "controller": GRPOOnly()}
    whole = ahead(tmp_path / "whole", model_folder, server.url, **options)
    ahead(tmp_path / "parts", model_folder, server.url, callbacks=[StopAt(3)], **options)
    resumed = ahead(tmp_path / "parts", model_folder, server.url, resume=True, **options)
    resumed.rollouts = whole.rollouts  # the second part has only its own
    assert_same_but_probes(resumed, whole)


def assert_same_but_probes(ours: Ran, theirs: Ran) -> None:
    for ran in (ours, theirs):
        for step in ran.steps:
            step["sampling"] = {n: v for n, v in (step["sampling"] or {}).items() if not n.startswith("probe")}
    assert_same(ours, theirs)


class StopAt(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


def test_an_evaluation_in_between_changes_nothing(server, model_folder, tmp_path):
    """It sends newer weights and samples by them; what was begun is waited for."""
    options = {"controller": GRPOOnly(), "max_steps": 4}
    plain = ahead(tmp_path / "plain", model_folder, server.url, **options)
    evaluated: list[int] = []

    class Evaluates(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            engine = ServerEngine(server.url, eos_token_ids=[0], time_limit_s=60) if not evaluated else held[0]
            held[:] = [engine]
            trainer = trainers[0]
            trainer.vllm_generation.engine.engine.load(trainer.model)
            evaluated.append(state.global_step)

    held: list[ServerEngine] = []
    trainers: list[Any] = []
    other = ahead(
        tmp_path / "other", model_folder, server.url, before=trainers.append, callbacks=[Evaluates()], **options
    )
    held[0].close()
    assert evaluated == [1, 2, 3, 4]
    assert_same(other, plain)


@pytest.mark.parametrize("lora", [None, {"target_modules": "all-linear"}], ids=["full", "lora"])
def test_two_processes_equal_one(lora, server, model_folder, tmp_path):
    one = ahead(tmp_path / "one", model_folder, server.url, lora=lora)
    one.loads = len(one.steps)  # it was one less: nothing follows the last window
    for way, fsdp in {"ddp": False, "fsdp2": True}.items():
        folder = tmp_path / way
        two = ranks(2, ahead, folder / "run", model_folder, server.url, 2, lora, folder=folder, fsdp=fsdp)
        for ran in (one, *two):
            ran.gaps = ran.gaps[:1]  # the later ones are what an update made of the policy
        assert_equal(one, *two)
