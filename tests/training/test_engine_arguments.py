"""What HybridTrainer refuses beside use_vllm, because it would be ignored or make the gradient wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.curricula import DUMP
from posttrain.errors import ConfigError
from posttrain.methods import PrefixRFT
from posttrain.training.ahead_side import check_ahead, comes_another
from posttrain.training.config import check_engine_arguments
from tests.training.conftest import hybrid_args


@pytest.mark.parametrize(
    ("changes", "more", "where"),
    [
        ({"top_p": 0.9}, {}, "vllm_importance_sampling_correction"),
        ({"top_k": 20}, {}, "vllm_importance_sampling_correction"),
        ({"min_p": 0.1}, {}, "vllm_importance_sampling_correction"),
        ({"repetition_penalty": 1.2}, {}, "vllm_importance_sampling_correction"),
        ({"loss_type": "vespo"}, {}, "vllm_importance_sampling_mode"),
        ({"vllm_tensor_parallel_size": 2}, {}, "vllm_tensor_parallel_size"),
        ({"vllm_structured_outputs_regex": "a+"}, {}, "vllm_structured_outputs_regex"),
        ({"vllm_server_port": 8001}, {}, "vllm_server_port"),
        ({"generation_kwargs": {"seed": 1}}, {}, "generation_kwargs"),
        ({}, {"tools": [print]}, "tools"),
    ],
)
def test_refused_with_vllm_only(tmp_path: Path, changes: dict, more: dict, where: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_engine_arguments(hybrid_args(tmp_path, use_vllm=True, **changes), more)
    assert raised.value.where == where
    check_engine_arguments(hybrid_args(tmp_path, **changes), more)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"top_p": 0.9, "vllm_importance_sampling_correction": False},
        {"loss_type": "vespo", "vllm_importance_sampling_mode": "token_mask"},
    ],
)
def test_accepted(tmp_path: Path, changes: dict) -> None:
    check_engine_arguments(hybrid_args(tmp_path, use_vllm=True, **changes), {})


SERVER = {"use_vllm": True, "vllm_mode": "server", "vllm_ahead": 1}


@pytest.mark.parametrize(
    ("changes", "method", "said"),
    [
        ({"vllm_mode": "colocate"}, None, "without a server"),
        ({"use_vllm": False}, None, "without a server"),
        ({"vllm_ahead": 2}, None, "0 or 1"),
        ({"vllm_importance_sampling_correction": False}, None, "without vllm_importance_sampling_correction"),
        ({"refill": {"max_batches": 2}}, None, "with refill"),
        ({"length_budget": {"start": 8}}, None, "with length_budget"),
        ({}, PrefixRFT(), "prefix_rft"),
    ],
)
def test_what_cannot_be_sampled_ahead_is_refused(tmp_path, changes, method, said):
    with pytest.raises(ConfigError, match=said):
        check_ahead(hybrid_args(tmp_path, **{**SERVER, **changes}), method)


def test_a_curriculum_and_a_window_ahead_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="with a curriculum"):
        check_ahead(hybrid_args(tmp_path, **SERVER), None, DUMP())


@pytest.mark.parametrize(
    ("window", "iterations", "opens", "another"),
    [(1, 1, 2, True), (1, 1, 3, False), (2, 1, 0, True), (2, 1, 2, False), (1, 2, 2, False), (2, 2, 0, False)],
)
def test_nothing_is_sampled_for_a_window_that_does_not_come(tmp_path, window, iterations, opens, another):
    args = hybrid_args(tmp_path, max_steps=4, steps_per_generation=window, num_iterations=iterations)
    assert comes_another(args, opens) == another


def test_what_can_be_sampled_ahead(tmp_path):
    check_ahead(hybrid_args(tmp_path, **SERVER), None)
    check_ahead(hybrid_args(tmp_path, vllm_ahead=0, refill={"max_batches": 2}), PrefixRFT())
