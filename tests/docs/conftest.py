"""Two tiny runs that the blocks of all pages share, and a folder for each page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.workplace import furnish, posttrain


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A furnished folder with `runs/quickstart`, SASR's, and `runs/sft-only`, of the same recipe."""
    folder = furnish(tmp_path_factory.mktemp("prepared"))
    for overrides in ((), ("hybrid.controller=sft_only", "run.dir=runs/sft-only")):
        ended = posttrain(folder, "run", "recipes/quickstart.yaml", *overrides)
        assert ended.code == 0, ended.text
    assert any("step-" in file.name for file in (folder / "runs/quickstart/completions").iterdir()), "no GRPO step"
    return folder


@pytest.fixture
def workplace(tmp_path) -> Path:
    return furnish(tmp_path)


@pytest.fixture
def runs_here(workplace, request):
    """Puts copies of the prepared runs into the folder, where there are none yet."""

    def put() -> None:
        prepared = request.getfixturevalue("prepared")  # not made for pages that do without
        for run in (prepared / "runs").iterdir():
            if not (workplace / "runs" / run.name).exists():
                shutil.copytree(run, workplace / "runs" / run.name)

    return put
