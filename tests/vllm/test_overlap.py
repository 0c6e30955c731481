"""A server samples the next rollouts while the SFT half of the step is at work: the same run, only sooner."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from posttrain.controllers import SASR, Static
from tests.distributed.processes import ranks
from tests.vllm.test_ranks import PLAIN, assert_equal
from tests.vllm.training import Ran, train

BLEND = Static(sft_share=0.3, mode="blend", match_norms=True)


def on_server(folder: Path, model_folder: Path, url: str, processes: int = 1, lora: dict | None = None, **more) -> Ran:
    """In each of the processes."""
    controller = more.pop("controller", BLEND)
    server = {"vllm_mode": "server", "vllm_server_base_url": url, "vllm_time_limit_s": 60}
    return train(folder, model_folder, controller, processes=processes, lora=lora, **(PLAIN | server | more))


def without_clock(steps: list[dict]) -> list[dict]:
    return [{name: value for name, value in step.items() if name not in ("seconds", "spent")} for step in steps]


def assert_same(ours: Ran, theirs: Ran) -> None:
    """To the last bit."""
    assert ours.rollouts == theirs.rollouts
    assert without_clock(ours.steps) == without_clock(theirs.steps)
    assert all(torch.equal(ours.weights[name], theirs.weights[name]) for name in theirs.weights)


@pytest.mark.slow
def test_with_and_without_overlap_is_the_same_run(server, model_folder, tmp_path):
    order: list[str] = []

    def watch(trainer):
        aside, begin = trainer.sft.backward_aside, trainer.vllm_generation.begin
        trainer.sft.backward_aside = lambda *args: (order.append("sft"), aside(*args))[1]
        trainer.vllm_generation.begin = lambda *args: (order.append("begin"), begin(*args))[1]

    runs = {}
    for overlap in (True, False):
        folder = tmp_path / str(overlap)
        runs[overlap] = on_server(folder, model_folder, server.url, before=watch, vllm_overlap=overlap)
    assert order == ["begin", "sft"] * 3 + ["sft"] * 3
    assert_same(runs[True], runs[False])
    assert all(step["seconds"]["overlapped"] >= step["seconds"]["sft"] for step in runs[True].steps)
    assert not any("overlapped" in step["seconds"] for step in runs[False].steps)
    assert all(step["seconds"]["grpo"] > 0 for step in runs[True].steps)


@pytest.mark.slow
def test_a_refresh_of_the_sft_norm_overlaps_too_and_a_step_of_one_loss_does_not(server, model_folder, tmp_path):
    options = {"controller": SASR(gamma=9.0, refresh_every=2, kl_target=None), "max_steps": 6, "num_generations": 4}
    runs = [
        on_server(tmp_path / str(overlap), model_folder, server.url, vllm_overlap=overlap, **options)
        for overlap in (True, False)
    ]
    assert_same(*runs)
    overlapped = [bool(step["seconds"].get("overlapped")) for step in runs[0].steps]
    both = [step["mix"]["grpo"] > 0 and step["sft_norm"] is not None for step in runs[0].steps]
    assert overlapped == both
    assert set(both) == {True, False}


@pytest.mark.slow
def test_rollouts_begun_for_other_tokens_are_sampled_again(server, model_folder, tmp_path):
    def begin_for_others(trainer):
        begin = trainer.vllm_generation.begin
        trainer.vllm_generation.begin = lambda prompts, group: begin([ids[:-1] for ids in prompts], group)

    plain = on_server(tmp_path / "plain", model_folder, server.url, vllm_overlap=False)
    with pytest.warns(UserWarning, match="begun for other prompts"):
        other = on_server(tmp_path / "other", model_folder, server.url, before=begin_for_others)
    begun, other.rollouts = other.rollouts[::2], other.rollouts[1::2]
    assert begun != plain.rollouts
    assert_same(other, plain)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, {"target_modules": "all-linear"}], ids=["full", "lora"])
def test_two_processes_share_a_server(lora, server, model_folder, tmp_path):
    one = on_server(tmp_path / "one", model_folder, server.url, lora=lora)
    for way, fsdp in {"ddp": False, "fsdp2": True}.items():
        folder = tmp_path / way
        two = ranks(2, on_server, folder / "run", model_folder, server.url, 2, lora, folder=folder, fsdp=fsdp)
        assert_equal(one, *two)
        assert all(step["seconds"]["overlapped"] for step in two[0].steps)
