"""Folders with the tiny recipe, and one uninterrupted run of each variant to compare with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.runs import command, train, write_recipe


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_recipe(tmp_path)


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """`reference(*overrides)` is the run directory of an uninterrupted run, made once; the plain one by the command."""
    made: dict[tuple[str, ...], Path] = {}

    def run(*overrides: str) -> Path:
        if overrides not in made:
            folder = write_recipe(tmp_path_factory.mktemp("reference"))
            ended = train(folder, *overrides) if overrides else command(folder, "run", "recipe.yaml")
            assert ended.code == 0, ended.text
            made[overrides] = folder / "run"
        return made[overrides]

    return run
