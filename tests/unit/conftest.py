"""A tokenizer and a model small enough to build in a moment, shared by the unit tests."""

from __future__ import annotations

import pytest
import torch

from posttrain.models.load import build_model, train_tokenizer

TEXTS = [f"{a} plus {b} is {a + b}." for a in range(10) for b in range(10)]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def tiny_tokenizer():
    return train_tokenizer(TEXTS, vocab_size=300)


@pytest.fixture
def tiny_model(tiny_tokenizer):
    return build_model(tiny_tokenizer, hidden_size=16, layers=2, heads=2, max_position_embeddings=64)
