"""Folders with the tiny recipe, and one uninterrupted run of each variant to compare with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.runs import on_ranks
from tests.pipeline.runs import write_recipe


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_recipe(tmp_path)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """`whole_run(count, *overrides, fsdp=)` is the directory of an uninterrupted run, made once."""
    made: dict[tuple, Path] = {}

    def run(count: int, *overrides: str, fsdp: bool = False) -> Path:
        key = (count, overrides, fsdp)
        if key not in made:
            folder = write_recipe(tmp_path_factory.mktemp("whole"))
            on_ranks(folder, *overrides, count=count, fsdp=fsdp)
            made[key] = folder / "run"
        return made[key]

    return run
