"""Out of memory: the settings proposed take the same steps, and the message has the exception's numbers."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
from pathlib import Path

import pytest
import torch

import posttrain
from posttrain.controllers import GRPOOnly
from posttrain.errors import ConfigError, TrainingError
from posttrain.recipe.arithmetic import batch_plan
from posttrain.recipe.contradictions import contradictions
from posttrain.recipe.recipe import Recipe, load_recipe
from posttrain.recipe.step_sizes import same_size_keys
from posttrain.rundir.facts import HARMLESS, flatten
from posttrain.running.out_of_memory import PLACES, WORDS, explanation, part_of, shortage
from posttrain.running.remedies import Shortage, fewer_at_once, remedies, smaller_parts, with_settings

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.32 GiB is free."
    " Process 12 has 77.78 GiB memory in use. Of the allocated memory 70.11 GiB is allocated by PyTorch"
)
BASE = {
    "model": {"name": "a/b"},
    "task": {"name": "knights_knaves"},
    "rollout": {"engine": "transformers"},
    "warmup": {"steps": 10, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 4},
    "hybrid": {
        "steps": 10,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 4,
        "grpo": {"num_generations": 8},
    },
}


def recipe(**changes) -> Recipe:
    """The base recipe with dotted keys changed; `__` stands for a dot."""
    return with_settings(Recipe.model_validate(BASE), {key.replace("__", "."): value for key, value in changes.items()})


def typed(remedy) -> str | None:
    return remedy and remedy.typed()


# ---- what an exception says ----


def test_the_numbers_are_the_exceptions():
    said = shortage(torch.OutOfMemoryError(CUDA))
    assert said == Shortage(CUDA, "2.00 GiB", "1.32 GiB", "79.11 GiB")
    assert said.in_words() == "2.00 GiB asked for, 1.32 GiB free of 79.11 GiB"


@pytest.mark.parametrize(
    ("error", "asked", "free", "total"),
    [
        (RuntimeError(CUDA), "2.00 GiB", "1.32 GiB", "79.11 GiB"),
        (RuntimeError("CUDA error: out of memory"), None, None, None),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), None, None, None),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                "to allocate 4294967296 bytes. Error code 12"
            ),
            "4294967296 bytes", None, None,
        ),
        (
            ValueError(
                "Free memory on device cuda:0 (9.11/79.11 GiB) on startup is less than desired GPU memory utilization "
                "(0.3, 23.73 GiB). Decrease GPU memory utilization"
            ),
            None, "9.11 GiB", "79.11 GiB",
        ),
        (
            ValueError(
                "To serve at least one request with the model's max seq len (8192), (3.5 GiB KV cache is needed, which "
                "is larger than the available KV cache memory (1.2 GiB)."
            ),
            "3.5 GiB", "1.2 GiB", None,
        ),
        (ValueError("No available memory for the cache blocks. Try increasing"), None, None, None),
    ],
)  # fmt: skip
def test_each_kind_is_known(error, asked, free, total):
    said = shortage(error)
    assert said is not None
    assert (said.asked, said.free, said.total) == (asked, free, total)
    outer = ConfigError("vLLM cannot sample from this model here")
    outer.__cause__ = error
    assert shortage(outer) == said, "what another error was raised from counts"


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), ValueError("no"), KeyError("memory"), TrainingError("NaN")]
)
def test_other_errors_are_left_alone(error):
    assert shortage(error) is None
    assert explanation(error, recipe()) is None


def test_every_place_exists():
    """Functions get other names; a place that is gone would be silently overlooked."""
    root = Path(posttrain.__file__).parent.parent
    for file, function, part in PLACES:
        assert part in WORDS
        if file.startswith("posttrain"):
            tree = ast.parse((root / file).read_text())
            names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert not function or function in names, (file, function)
        else:
            package = Path(importlib.util.find_spec(file.split("/")[0]).origin).parent.parent
            assert (package / file).exists(), file


def test_the_optimizer_is_told_by_its_calls(monkeypatch):
    parameter = torch.nn.Parameter(torch.ones(1))
    parameter.grad = torch.ones(1)

    def fails(*args, **kwargs):
        raise torch.OutOfMemoryError(CUDA)

    monkeypatch.setattr(torch, "zeros_like", fails)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.optim.AdamW([parameter]).step()
    assert part_of(caught.value) == "optimizer"


# ---- smaller parts of the same steps ----


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({}, "hybrid.per_device_train_batch_size=4 hybrid.gradient_accumulation_steps=8"),
        (
            {"hybrid__per_device_train_batch_size": 9, "hybrid__grpo__num_generations": 6,
             "hybrid__demonstration_batch_size": 9},
            "hybrid.per_device_train_batch_size=3 hybrid.gradient_accumulation_steps=12 "
            "hybrid.demonstration_batch_size=3",
        ),
        (
            {"hybrid__grpo__steps_per_generation": 8},
            "hybrid.per_device_train_batch_size=4 hybrid.gradient_accumulation_steps=8 "
            "hybrid.grpo.steps_per_generation=16",
        ),
        (
            {"hybrid__demonstration_batch_size": 6},
            "hybrid.per_device_train_batch_size=4 hybrid.gradient_accumulation_steps=8 "
            "hybrid.demonstration_batch_size=3",
        ),
        ({"hybrid__demonstration_batch_size": 3}, None),
        ({"hybrid__per_device_train_batch_size": 1, "hybrid__gradient_accumulation_steps": 8}, None),
        (
            {"warmup__steps": 0, "hybrid__controller": GRPOOnly()},
            "hybrid.per_device_train_batch_size=4 hybrid.gradient_accumulation_steps=8",
        ),
    ],
)  # fmt: skip
def test_the_same_steps_in_smaller_parts(changes, settings):
    before = recipe(**changes)
    remedy = smaller_parts(before, "hybrid")
    assert typed(remedy) == settings


def test_a_step_keeps_its_rows_and_a_run_goes_on():
    """By the plan's own arithmetic, over many sizes; and the run directory takes the change."""
    cut = 0
    for size, count, demonstrations, processes in itertools.product(range(1, 13), (1, 2, 3), (None, 1, 4, 6), (1, 2)):
        before = recipe(
            hybrid__per_device_train_batch_size=size,
            hybrid__gradient_accumulation_steps=count,
            hybrid__demonstration_batch_size=demonstrations,
            hybrid__grpo__num_generations=2,
            warmup__per_device_train_batch_size=size,
        )
        for stage in ("warmup", "hybrid") if not contradictions(before, processes) else ():
            remedy = smaller_parts(before, stage, processes)
            if remedy is None:
                assert size == 1 or stage == "hybrid"
                continue
            cut += 1
            after = with_settings(before, remedy.settings)
            assert not contradictions(after, processes)
            plans = [batch_plan(one, processes, prompts=100, demonstrations=100) for one in (before, after)]
            assert plans[0] == plans[1]
            assert getattr(after, stage).per_device_train_batch_size < size
            was, now = flatten(before.resolved()), flatten(after.resolved())
            assert {key for key in now if was.get(key) != now[key]} <= same_size_keys(was, now)
    assert cut > 200


def test_one_process_that_cannot_be_cut():
    """8 rows on one process are one group of 8: they can be trained in halves, not sampled in halves."""
    one_group = recipe(hybrid__gradient_accumulation_steps=1)
    assert typed(smaller_parts(one_group, "hybrid")).startswith("hybrid.per_device_train_batch_size=4")
    assert fewer_at_once(one_group) is None


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({}, "hybrid.grpo.steps_per_generation=2"),
        ({"hybrid__grpo__steps_per_generation": 2}, "hybrid.grpo.steps_per_generation=1"),
        (
            {"hybrid__per_device_train_batch_size": 32, "hybrid__gradient_accumulation_steps": 1},
            "hybrid.per_device_train_batch_size=16 hybrid.gradient_accumulation_steps=2 "
            "hybrid.grpo.steps_per_generation=1",
        ),
        ({"hybrid__grpo__num_iterations": 2}, None),
    ],
)
def test_fewer_completions_at_once(changes, settings):
    before = recipe(**changes)
    remedy = fewer_at_once(before)
    assert typed(remedy) == settings
    if remedy:
        after = with_settings(before, remedy.settings)
        assert not contradictions(after)
        plans = [batch_plan(one, prompts=100, demonstrations=100) for one in (before, after)]
        assert plans[1].generation_batch * 2 == plans[0].generation_batch
        assert plans[1].completions_per_step == plans[0].completions_per_step
        assert plans[1].demonstrations_per_step == plans[0].demonstrations_per_step
        assert remedy.flag == "--accept-changes", "other rollouts are drawn"


# ---- the choice ----


def test_at_the_end_of_the_batch_come_other_means():
    small = {"hybrid__per_device_train_batch_size": 1, "hybrid__gradient_accumulation_steps": 32}
    on_gpu = remedies(recipe(**small), "grpo")
    assert [one.typed() for one in on_gpu] == [
        "hybrid.kl.offload=true", "hybrid.grpo.max_completion_length=256", "lora.r=16",
    ]  # fmt: skip
    without = remedies(recipe(**small, hybrid__args__gradient_checkpointing=False), "grpo")
    assert without[0].typed() == "hybrid.args.gradient_checkpointing=true"
    assert without[0].flag == ""
    assert HARMLESS.match("hybrid.args.gradient_checkpointing")


def test_an_engine_beside_the_trainer_gives_way():
    engine = {"rollout__engine": "vllm"}
    found = [one.typed() for one in remedies(recipe(**engine), "grpo")]
    assert found[:2] == [
        "hybrid.per_device_train_batch_size=4 hybrid.gradient_accumulation_steps=8", "rollout.enable_sleep_mode=true",
    ]  # fmt: skip
    asleep = remedies(recipe(**engine, rollout__enable_sleep_mode=True, rollout__gpu_memory_utilization=0.5), "grpo")
    assert asleep[1].typed() == "rollout.gpu_memory_utilization=0.35"


def test_what_vllm_can_have():
    vllm = recipe(rollout__engine="vllm")
    said = shortage(ValueError(
        "Free memory on device cuda:0 (20.0/80.0 GiB) on startup is less than desired GPU memory utilization (0.3, 24)"
    ))  # fmt: skip
    assert remedies(vllm, "vllm", said=said)[0].typed() == "rollout.gpu_memory_utilization=0.23"
    said = shortage(ValueError("No available memory for the cache blocks."))
    assert remedies(vllm, "vllm", said=said)[0].typed() == "rollout.gpu_memory_utilization=0.45"
    assert [one.typed() for one in remedies(vllm, "vllm", said=said)][1] == "rollout.enable_sleep_mode=true"


@pytest.mark.parametrize(
    ("part", "changes", "first"),
    [
        ("evaluation", {}, "evaluate.batch_size=32"),
        ("evaluation", {"evaluate__batch_size": 1}, "evaluate.max_completion_length=256"),
        ("warmup", {}, "warmup.per_device_train_batch_size=4 warmup.gradient_accumulation_steps=8"),
        ("warmup", {"warmup__per_device_train_batch_size": 1}, "warmup.max_length=512"),
        (
            "kl",
            {"hybrid__per_device_train_batch_size": 1, "hybrid__grpo__num_generations": 4},
            "hybrid.kl.offload=true",
        ),
        ("snapshot", {"hybrid__kl__offload": True}, "hybrid.kl.sample=0"),
        ("optimizer", {"hybrid__kl__sample": 0.0}, "lora.r=16"),
        ("loading", {"hybrid__kl__offload": True}, "lora.r=16"),
    ],
)
def test_each_part_has_its_own_means(part, changes, first):
    assert remedies(recipe(**changes), part)[0].typed() == first


def test_every_remedy_can_be_typed(tmp_path):
    """As overrides of a recipe's file each is a recipe without contradictions, whatever the part."""
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(BASE))
    for part in WORDS:
        for engine in ("transformers", "vllm"):
            before = load_recipe(file, [f"rollout.engine={engine}"])
            for remedy in remedies(before, part, on_gpu=False):
                after = load_recipe(file, [f"rollout.engine={engine}", *remedy.typed().split()])
                assert not contradictions(after), remedy
                assert flatten(after.resolved()) != flatten(before.resolved()), remedy


# ---- the message ----


def test_the_message(tmp_path):
    told = explanation(
        torch.OutOfMemoryError(CUDA), recipe(), rank=3, checkpoint=tmp_path / "checkpoint-6",
        go_on="posttrain run r.yaml --resume",
    )  # fmt: skip
    text = str(told)
    assert text.startswith("rank 3: out of memory in the run: 2.00 GiB asked for, 1.32 GiB free of 79.11 GiB\n")
    settings = "hybrid.per_device_train_batch_size=4 hybrid.gradient_accumulation_steps=8"
    assert f"expected: the recipe to fit, as with {settings} (the same steps, half of the rows at a time)" in text
    assert f"checkpoint-6 is whole; to go on: posttrain run r.yaml --resume {settings};" in text
    assert "or, instead or besides: evaluate.batch_size=32" in text


def test_what_changes_the_run_needs_a_flag():
    one = {"hybrid__per_device_train_batch_size": 1, "hybrid__grpo__num_generations": 4, "evaluate__batch_size": 1}
    lora = str(explanation(torch.OutOfMemoryError(CUDA), recipe(**one), go_on="posttrain run r.yaml --resume"))
    assert "to go on: posttrain run r.yaml --restart lora.r=16" in lora
    assert "--resume" not in lora


def test_an_error_of_another_rank_stays_that_ranks():
    error = TrainingError(f"OutOfMemoryError: {CUDA}", where="rank 1")
    error.shared = True
    told = explanation(error, recipe(), rank=0)
    assert str(told).startswith("rank 1: out of memory")
    assert told.shared


# ---- going on ----


@pytest.mark.parametrize(
    ("was", "now", "same"),
    [
        ({}, {"warmup__per_device_train_batch_size": 4, "warmup__gradient_accumulation_steps": 8}, True),
        ({}, {"warmup__per_device_train_batch_size": 4}, False),
        ({}, {"hybrid__per_device_train_batch_size": 4, "hybrid__gradient_accumulation_steps": 8}, True),
        ({}, {"hybrid__per_device_train_batch_size": 4, "hybrid__gradient_accumulation_steps": 4}, False),
        ({"hybrid__demonstration_batch_size": 8}, {"hybrid__per_device_train_batch_size": 4,
          "hybrid__gradient_accumulation_steps": 8, "hybrid__demonstration_batch_size": 8}, False),
        ({"hybrid__grpo__steps_per_generation": 4}, {"hybrid__grpo__steps_per_generation": None}, True),
        ({}, {"hybrid__grpo__steps_per_generation": 8}, False),
        ({"hybrid__grpo__loss_type": "bnpo"}, {"hybrid__grpo__loss_type": "bnpo",
          "hybrid__per_device_train_batch_size": 4, "hybrid__gradient_accumulation_steps": 8}, False),
    ],
)  # fmt: skip
def test_which_sizes_a_run_goes_on_under(was, now, same):
    before, after = (flatten(recipe(**changes).resolved()) for changes in (was, now))
    differing = {key for key in after if before.get(key) != after[key]}
    assert (differing <= same_size_keys(before, after)) == same
