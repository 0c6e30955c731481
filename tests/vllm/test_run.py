"""Whole runs of the tiny recipe with vLLM's rollouts and evaluations."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from posttrain.recipe.recipe import load_recipe
from posttrain.running.pipeline import _settled
from tests.distributed.runs import ONE_EQUALS_TWO, assert_equal_run, on_ranks
from tests.pipeline.runs import assert_same_run, at_step, lines, train, write_recipe

# The smallest heads that vLLM's CPU attention takes; a mix in which both kinds of step are sure to happen
VLLM = (
    "rollout.engine=vllm", "rollout.probe_every=1", "rollout.time_limit_s=120", "model.init.hidden_size=64",
    "hybrid.controller.name=alternate", "hybrid.controller.sft_steps=1", "hybrid.controller.grpo_steps=2",
)  # fmt: skip


@pytest.mark.slow
def test_killed_and_resumed_equals_never_killed(tmp_path: Path) -> None:
    whole, folder = write_recipe(tmp_path / "whole"), write_recipe(tmp_path / "killed")
    ended = train(whole, *VLLM)
    assert ended.code == 0, ended.text
    ended = train(folder, *VLLM, fault=at_step("hybrid", 6))
    assert ended.code == -signal.SIGKILL, ended.text
    ended = train(folder, *VLLM, "--resume")
    assert ended.code == 0, ended.text
    assert_same_run(whole / "run", folder / "run")
    assert [line["stage"] for line in lines(folder / "run", "eval.jsonl")][-1] == "final"
    steps = [json.loads(line) for line in (folder / "run" / "steps.jsonl").read_text().splitlines()]
    sampled = [line for line in steps if line["stage"] == "hybrid" and line["mix"]["grpo"]]
    assert sampled
    for line in sampled:
        assert 0.0 < line["sampling"]["logp_difference"] < 1e-3, "the engine's against the trainer's, in float32"
        assert 0.0 < line["sampling"]["probe_mean"] <= line["sampling"]["probe_max"] < 5e-3


@pytest.mark.slow
@pytest.mark.parametrize("modules", ["all-linear", "[q_proj,embed_tokens]"], ids=["tied", "untied-by-the-adapter"])
def test_an_adapter_with_a_reference(tmp_path: Path, modules: str) -> None:
    """LoRA and a KL penalty: the reference adapter that TRL adds is no part of what vLLM gets.

    An adapter on the embedding parts it from the LM head, with which it was one in the first evaluation's engine.
    """
    folder = write_recipe(tmp_path)
    ended = train(
        folder, *VLLM, "lora.r=4", f"lora.target_modules={modules}", "hybrid.grpo.beta=0.1",
        "hybrid.learning_rate=1.0e-2", "hybrid.steps=6",
    )  # fmt: skip
    assert ended.code == 0, ended.text
    assert "vLLM gets whole weights with the adapter added: " in ended.text


@pytest.mark.slow
def test_an_adapter_that_travels_alone(tmp_path: Path) -> None:
    """With a reference adapter beside it, and an engine that was started for a base without any."""
    folder = write_recipe(tmp_path)
    ended = train(
        folder, *VLLM, "lora.r=4", "rollout.lora=adapter", "hybrid.grpo.beta=0.1", "hybrid.learning_rate=1.0e-2",
        "hybrid.steps=6",
    )  # fmt: skip
    assert ended.code == 0, ended.text
    assert "vLLM gets the adapter alone (rank 4), and its base once" in ended.text
    steps = [line for line in lines(folder / "run", "steps.jsonl") if line["stage"] == "hybrid"]
    sampled = [line for line in steps if line["mix"]["grpo"]]
    assert sampled
    assert all(0.0 < line["sampling"]["logp_difference"] < 1e-3 for line in sampled)


def test_a_base_in_four_bits_is_sampled_from_as_it_is_trained(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path)
    few = ("warmup.steps=2", "hybrid.steps=3", "evaluate.at_start=false", "evaluate.every=0")
    ended = train(folder, *VLLM, *few, "model.load_in_4bit=true", "lora.r=4", "hybrid.grpo.beta=0.1")
    assert ended.code == 0, ended.text
    steps = [json.loads(line) for line in (folder / "run" / "steps.jsonl").read_text().splitlines()]
    sampled = [line["sampling"] for line in steps if line["stage"] == "hybrid" and line["mix"]["grpo"]]
    assert sampled
    # 4 bits move log-probabilities of this model by hundredths
    assert all(0.0 < gap["logp_difference_max"] < 1e-4 and gap["probe_max"] < 1e-4 for gap in sampled)


@pytest.mark.slow
@pytest.mark.parametrize(("lora", "fsdp"), [((), False), (("lora.r=4",), True)], ids=["full-ddp", "lora-fsdp2"])
def test_a_run_on_two_processes_equals_the_run_on_one(tmp_path: Path, lora: tuple[str, ...], fsdp: bool) -> None:
    """An engine in each process, for rollouts and evaluations."""
    blend = ("hybrid.controller={name: static, mode: blend, sft_share: 0.4, match_norms: true}",)
    few = ("hybrid.steps=4", "warmup.steps=3", "evaluate.at_start=false", "evaluate.every=0")
    settings = (*VLLM[:4], *blend, *lora, *few)
    one, two = write_recipe(tmp_path / "one"), write_recipe(tmp_path / "two")
    on_ranks(one, *settings, *ONE_EQUALS_TWO, count=1)
    on_ranks(two, *settings, fsdp=fsdp)
    assert_equal_run(one / "run", two / "run")
    assert [line["stage"] for line in lines(two / "run", "eval.jsonl")][-1] == "final"


def test_a_run_is_not_resumed_on_another_engine(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path)
    recipe = load_recipe(folder / "recipe.yaml", ["rollout.engine=auto"])
    settled = _settled(recipe, None)
    assert settled.rollout.engine == "vllm"  # it is installed
    assert _settled(load_recipe(folder / "recipe.yaml"), None).rollout.engine == "transformers"


def test_an_adapter_that_cannot_be_sent_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path)
    ended = train(folder, *VLLM, "lora.r=4", "lora.args={use_dora: true}", "evaluate.at_start=false")
    assert ended.code == 2, ended.text
    assert "cannot be added to its weight" in ended.text
    assert not (folder / "run" / "steps.jsonl").exists()


def test_what_vllm_cannot_run_is_said_before_training(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path)
    ended = train(folder, *VLLM[:1], "model.init.hidden_size=32", "evaluate.at_start=true")
    assert ended.code == 2, ended.text
    assert "vLLM cannot sample from this model here" in ended.text
    assert "rollout.engine: transformers" in ended.text


@pytest.mark.slow
def test_auto_falls_back_where_vllm_cannot_serve_the_model_and_the_run_stays_on_what_it_came_to(tmp_path: Path) -> None:
    """Heads of 16 are below what vLLM's attention takes on a CPU."""
    auto = ("rollout.engine=auto", "hybrid.controller=grpo_only")
    folder = write_recipe(tmp_path)
    ended = train(folder, *auto, fault=at_step("hybrid", 6))
    assert ended.code == -signal.SIGKILL, ended.text
    assert ended.text.count("rollout.engine is auto, so transformers samples instead") == 1, ended.text
    assert "vLLM cannot sample from this model here: " in ended.text
    assert load_recipe(folder / "run" / "recipe.yaml").rollout.engine == "transformers"
    ended = train(folder, *auto, "--resume")
    assert ended.code == 0, ended.text
    assert "instead" not in ended.text, "it does not try again"
    assert "sampling with transformers" in ended.text
    ended = train(write_recipe(tmp_path / "other"), "rollout.engine=vllm", "hybrid.controller=grpo_only")
    assert ended.code == 2, "what was asked for by name is no guess"
