"""The house is as its doors, its drawing and CONTRIBUTING say. What may import what is import-linter's: `make lint`."""

from __future__ import annotations

import ast
import functools
import re
import runpy
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import REPOSITORY

PACKAGE = REPOSITORY / "posttrain"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
TOP = 6
"""Files at the top of the package, at the most."""


@functools.cache
def modules() -> dict[str, Path]:
    """Every module by its name from `posttrain.` on; `rewards/` stands beside the package."""
    found = {}
    for folder, prefix in ((PACKAGE, ()), (REPOSITORY / "rewards", ("rewards",))):
        for file in folder.rglob("*.py"):
            parts = (*prefix, *file.relative_to(folder).with_suffix("").parts)
            found[".".join(part for part in parts if part != "__init__")] = file
    return found


@functools.cache
def imported_from_outside() -> dict[str, set[str]]:
    """The modules of each room that other rooms import, by the room."""
    known, found = modules(), {room: set[str]() for room in [*ROOMS, "rewards"]}
    for name, file in known.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("posttrain"):
                continue
            base = (node.module or "").removeprefix("posttrain").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                target = full if full in known else base
                room, _, module = target.partition(".")
                if room in found and module and room != name.partition(".")[0]:
                    found[room].add(module)
    return found


@pytest.mark.parametrize("room", [*ROOMS, "rewards"])
def test_a_door_says_what_other_rooms_import(room):
    file = modules()[room]
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    assert len(said) > 80, "a door says what its room is for, and what never belongs there"
    sentence = re.search(r"Other rooms import: ([^.]*(?:\.\w[^.]*)*)\.$", said, re.MULTILINE)
    assert set(re.findall(r"`([\w.]+)`", sentence[1] if sentence else "")) == imported_from_outside()[room]


def test_every_folder_is_in_the_wheel():
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "packages"
    ]
    folders = {
        ".".join(("posttrain", *file.parent.relative_to(PACKAGE).parts)) for file in PACKAGE.rglob("__init__.py")
    }
    assert folders | {"posttrain.rewards", "posttrain.shipped_recipes"} == set(listed)


def test_hardly_anything_stands_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= TOP


def test_the_drawing_is_of_the_contract():
    script = runpy.run_path(str(REPOSITORY / "docs" / "draw_floors.py"))
    assert (REPOSITORY / "docs" / "floors.svg").read_text(encoding="utf-8") == script["draw"](script["layers"]())


def test_contributing_lists_every_room_once():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)) == sorted([*ROOMS, "rewards"])


def test_a_test_stands_where_what_it_tests_stands():
    crossing = {"benchmarks", "distributed", "docs", "pipeline", "recipes", "vllm"}
    folders = {path.parent.name for path in (REPOSITORY / "tests").glob("*/__init__.py")}
    assert folders - crossing <= {*ROOMS, "rewards"}
