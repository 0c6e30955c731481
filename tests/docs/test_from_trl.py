"""The page for those who come from TRL or axolotl: each key that it names is one of ours, or one of theirs."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing

import pytest
from pydantic import BaseModel

from posttrain.recipe.library_fields import DECIDED_ELSEWHERE, library_fields
from posttrain.recipe.mistakes import ELSEWHERE
from posttrain.recipe.recipe import Recipe
from posttrain.tasks.rows import Rows
from tests.docs.pages import DOCS, code_in, tables

PAGE = DOCS / "from-trl.md"
NO_KEY = {"resume_from_checkpoint", "deepspeed", "fsdp", "axolotl preprocess"}
"""What the page says has no key here."""


def exists(key: str) -> bool:
    """Whether a dotted key (or `key: value`) is one of a recipe."""
    at: typing.Any = Recipe
    for part in key.split(":")[0].split("."):
        kinds = [each for each in _kinds(at) if inspect.isclass(each)]
        if part.isdecimal():
            continue
        fields: dict[str, typing.Any] = {}
        for kind in kinds:
            if issubclass(kind, BaseModel):
                fields |= {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
            elif dataclasses.is_dataclass(kind):
                fields |= {field.name: None for field in dataclasses.fields(kind)}
        if part not in fields:
            return False
        at = Rows if part == "task" else fields[part]
    return True


def _kinds(annotation: typing.Any) -> list[typing.Any]:
    """All types that an annotation names, however deep."""
    inside = [kind for each in typing.get_args(annotation) for kind in _kinds(each)]
    return [annotation, *inside]


def test_what_an_unknown_key_is_said_to_be_exists():
    for said in ELSEWHERE.values():
        for key in said.split(",")[0].replace("the weight of each of the ", "").replace(" and ", " or ").split(" or "):
            assert exists(key), said


def rows(heading: str) -> list[list[str]]:
    found = tables(PAGE)[heading]
    assert len(found) > 10
    return found


def test_the_check_can_tell():
    assert exists("hybrid.grpo.beta")
    assert exists("rewards.0.import")
    assert exists("run.tracking.tags")
    assert exists("hybrid.controller: grpo_only")
    assert not exists("hybrid.beta")
    assert not exists("task.val_set_size")
    assert not exists("rewards.0.function")


@pytest.mark.parametrize("heading", ["TRL's keys", "axolotl's keys"])
def test_each_key_of_ours_exists(heading):
    for theirs, ours, *_ in rows(heading):
        keys = code_in(ours)
        assert keys or set(code_in(theirs)) <= NO_KEY, f"{theirs}: nothing of ours"
        assert [key for key in keys if not exists(key)] == [], theirs


def test_each_key_of_trl_exists():
    known = library_fields("trl.GRPOConfig") | library_fields("trl.SFTConfig") | {"reward_funcs", "peft_config"}
    for theirs, *_ in rows("TRL's keys"):
        names = [name for name in code_in(theirs) if not re.search(r"\(\.\.\.\)$", name)]
        assert [name for name in names if name not in known] == []


def test_what_is_refused_in_args_for_a_key_of_ours_is_on_the_page():
    """Those of the table of `args` that name a key of the recipe."""
    named = {name for theirs, *_ in rows("TRL's keys") for name in code_in(theirs)}
    moved = {name for name, place in DECIDED_ELSEWHERE.items() if re.fullmatch(r"run\.[a-z_.]+|evaluate\.every", place)}
    assert moved - named <= {"data_seed", "do_eval", "use_cpu"}
