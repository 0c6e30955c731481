"""The advice that names an extra is one that works where the package is."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from posttrain import extras


@pytest.fixture(autouse=True)
def activated(monkeypatch):
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)


def test_in_a_checkout_it_is_the_checkout(monkeypatch, tmp_path):
    root = Path(extras.__file__).parents[1]
    assert (root / "pyproject.toml").is_file()
    monkeypatch.chdir(root)
    assert extras.install("vllm") == "pip install -e '.[vllm]'"
    monkeypatch.chdir(root.parent)
    assert extras.install("vllm") == f"pip install -e './{root.name}[vllm]'", "else pip takes it for a name"
    monkeypatch.chdir(tmp_path)
    assert extras.install("gguf") == f"pip install -e '{root}[gguf]'"


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        (None, "pip install 'posttrain[vllm]'"),
        ("{torn", "pip install 'posttrain[vllm]'"),
        ({"url": "file:///src/a%20b", "dir_info": {}}, "pip install '/src/a b[vllm]'"),
        ({"url": "file:///a.whl", "archive_info": {}}, "pip install 'posttrain[vllm] @ file:///a.whl'"),
    ],
)
def test_elsewhere_it_is_where_pip_took_it_from(monkeypatch, tmp_path, origin, said):
    text = origin if isinstance(origin, str) or origin is None else json.dumps(origin)
    monkeypatch.setattr(extras, "CHECKOUT", tmp_path)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: SimpleNamespace(read_text=lambda _: text))
    assert extras.install("vllm") == said


def test_an_environment_that_is_not_activated_is_named(monkeypatch):
    monkeypatch.delenv("VIRTUAL_ENV")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(sys, "executable", str(Path.cwd() / ".venv" / "bin" / "python"))
    assert extras.install("vllm").startswith(".venv/bin/python -m pip install ")
