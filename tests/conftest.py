"""What all tests start from."""

from __future__ import annotations

import signal

import pytest

from tests.importing import one_server
from tests.sparing import spare

one_server()

TEXTS = [f"{a} plus {b} is {a + b}." for a in range(10) for b in range(10)]

# Of a test run in the background the shell has Ctrl-C ignored, and so would all that the tests start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """All tests are imported now, and with them all that they need."""
    spare()


@pytest.fixture(autouse=True)
def as_wide_as_a_pipe(monkeypatch):
    """What commands print is as wide as without a terminal, whatever the environment or an earlier test says."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tests run side by side."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def tiny_tokenizer():
    """A tokenizer made in a moment."""
    from posttrain.models.load import train_tokenizer

    return train_tokenizer(TEXTS, vocab_size=300)


@pytest.fixture
def tiny_model(tiny_tokenizer):
    """A model small enough to build in a moment."""
    from posttrain.models.load import build_model

    return build_model(tiny_tokenizer, hidden_size=16, layers=2, heads=2, max_position_embeddings=64)
