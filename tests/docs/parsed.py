"""Commands that are not run here: how far they can be checked without a GPU, a network or hours of time."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

from posttrain.cli import parse
from posttrain.recipe.contradictions import check
from posttrain.recipe.recipe import load_recipe
from posttrain.study.study import Study
from tests.docs.pages import REPOSITORY
from tests.docs.workplace import posttrain

_VARIABLE = re.compile(r"[A-Z_]+=\S*")


def check_parsed(folder: Path, command: str) -> None:
    """Hand a command to the parser that it is for, and load and check the recipe that it names.

    Raises:
        AssertionError: It would not be understood, or nothing here can tell.
    """
    words = shlex.split(command, comments=True)
    while words and (_VARIABLE.fullmatch(words[0]) or words[0] == "srun"):
        words = words[1:]
    kind, rest = words[0], words[1:]
    if kind == "posttrain":
        _ours(folder, rest)
    elif (kind, rest[:1]) == ("accelerate", ["launch"]):
        _accelerate(folder, rest[1:])
    elif (kind, rest[:1]) == ("pip", ["install"]):
        _pip(rest[1:])
    elif kind == "make":
        assert re.search(rf"^{rest[0]}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE), f"no target {rest[0]}"
    else:
        raise AssertionError(f"{kind!r} can neither be run nor parsed here")


def parsed(words: list[str]) -> Any:
    """The arguments of one of our commands."""
    try:
        return parse(words)
    except SystemExit as error:
        raise AssertionError(f"posttrain {shlex.join(words)} is not understood") from error


def _ours(folder: Path, words: list[str]) -> None:
    args = parsed(words)
    if args.name == "launch":
        ended = posttrain(folder, *words, "--dry-run")
        assert ended.code == 0, ended.text
    elif args.name == "study":
        assert len(Study(folder / args.study).arms) > 1
    elif hasattr(args, "recipe"):
        check(load_recipe(folder / args.recipe, args.overrides))


def _accelerate(folder: Path, words: list[str]) -> None:
    from accelerate.commands.launch import launch_command_parser

    args = launch_command_parser().parse_args(words)
    assert (folder / args.config_file).is_file(), args.config_file
    assert args.module
    assert args.training_script == "posttrain"
    _ours(folder, args.training_script_args)


def _pip(names: list[str]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    checkout = names[:1] == ["-e"]
    for name in names[checkout:]:
        extra = re.fullmatch(r"\.\[(\w+)\]" if checkout else r"posttrain\[(\w+)\]", name)
        assert extra or re.fullmatch(r"[a-z]+", name), name
        assert not extra or extra[1] in project["optional-dependencies"], f"there is no {name}"
