"""One run of each method, for all that reads runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from posttrain.methods import HPT, LUFFY, RLSD, SRFT, UFT, Escalate, PrefixRFT, ReLIFT
from tests.reading.method_runs import method_run

METHODS = {
    "hpt": HPT(gate=1, coefficient=0.5),
    "luffy": LUFFY(),
    "prefix_rft": PrefixRFT(),
    "uft": UFT(hinted=0.9, high=1.0),
    "relift": ReLIFT(buffer=2),
    "escalate": Escalate(blocks=(2, 2), below=(2,), shares=(0.5,)),
    "ghpo": Escalate(form="ghpo", below=(2, 3), shares=(0.5, 0.75)),
    "rlsd": RLSD(),
    "srft": SRFT(),
}


@pytest.fixture(scope="session")
def run_of(tmp_path_factory):
    """`run_of(name)` is the folder of a run of that method, made once; `run_of(name, folder)` a copy in it."""
    made: dict[str, Path] = {}

    def run(name: str, folder: Path | None = None) -> Path:
        if name not in made:
            made[name] = method_run(tmp_path_factory.mktemp(name) / "run", METHODS[name])
        return made[name] if folder is None else Path(shutil.copytree(made[name], folder / "run"))

    return run
