"""Real engines on models of a few thousand weights, made here. Two engines serve all tests: tied and untied."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from posttrain.models.load import build_model
from posttrain.rollouts.engines import open_engine
from posttrain.rollouts.for_trl import engine_settings
from posttrain.rollouts.vllm import InProcessEngine
from tests.training.conftest import demonstrations, hybrid_args, prompts, tokenizer  # noqa: F401 - fixtures
from tests.vllm.servers import Server

ENDS = list(range(6))
PROMPTS = [[50 + place, 60, 70 + place % 3] for place in range(6)]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


def tiny(*, tied: bool, seed: int = 0, **options: Any) -> Any:
    """A model whose distribution is far from uniform, so that wrong weights show."""
    torch.manual_seed(seed)
    shape = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128}
    config = Qwen2Config(**(shape | heads | {"tie_word_embeddings": tied, "initializer_range": 0.1} | options))
    return AutoModelForCausalLM.from_config(config).eval()


def with_lora(model: Any, **options: Any) -> Any:
    """An adapter with effect from the start."""
    config = LoraConfig(**({"r": 4, "lora_alpha": 8, "init_lora_weights": False} | options))
    return get_peft_model(model, config).eval()


def change(model: nn.Module, seed: int) -> None:
    """What an optimizer step does, only more of it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def process_state() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "set_num_threads": torch.set_num_threads,
        "torch generator": torch.get_rng_state().tolist(),
        "numpy generator": np.random.get_state()[1].tolist(),
        "python generator": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "excepthook": sys.excepthook,
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "environment": {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")},
    }


@pytest.fixture(scope="session")
def built():
    """Both engines, and the state of this process before and after they were built."""
    models = {tied: tiny(tied=tied) for tied in (True, False)}
    before = process_state()
    engines = {
        tied: InProcessEngine(model, eos_token_ids=ENDS, max_num_seqs=32, time_limit_s=120)
        for tied, model in models.items()
    }
    after = process_state()
    yield engines, before, after
    for engine in engines.values():
        engine.close()


@pytest.fixture
def tied_engine(built) -> InProcessEngine:
    return built[0][True]


@pytest.fixture
def untied_engine(built) -> InProcessEngine:
    return built[0][False]


@pytest.fixture(scope="session")
def model_folder(tokenizer, tmp_path_factory) -> Path:  # noqa: F811 - the fixture
    """A policy for the addition table whose LM head is its embedding; heads of 32, the smallest that vLLM takes."""
    folder = tmp_path_factory.mktemp("model")
    build_model(tokenizer, hidden_size=64, layers=2, heads=2, max_position_embeddings=64).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def untied_folder(tokenizer, tmp_path_factory) -> Path:  # noqa: F811 - the fixture
    """The same with an LM head of its own."""
    folder = tmp_path_factory.mktemp("untied")
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    size = len(tokenizer) + 1  # a tokenizer that is loaded beside a Qwen2 model has that family's <|endoftext|>, too
    tiny(tied=False, vocab_size=size, max_position_embeddings=64, **ends).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(model_folder, tokenizer, tmp_path_factory):  # noqa: F811 - the fixture
    """For a trainer of the addition table, in this process."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    args = hybrid_args(tmp_path_factory.mktemp("engine"))
    opened = open_engine(model, [tokenizer.eos_token_id], **engine_settings(args))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def one_server(model_folder, tmp_path_factory) -> Iterator[Server]:
    server = Server(model_folder, tmp_path_factory.mktemp("server") / "log")
    yield server
    server.kill()


@pytest.fixture
def server(one_server) -> Server:
    """A running server of the policy in `model_folder`; a test may kill it, as the next starts it again."""
    one_server.start()
    return one_server
