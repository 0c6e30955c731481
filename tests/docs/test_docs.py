"""Every block of docs/ is run, or parsed as far as can be without a GPU or a network; links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from posttrain.cli import _parser
from posttrain.recipe.contradictions import check
from posttrain.recipe.recipe import load_recipe
from posttrain.study.study import Study
from tests.docs.pages import DOCS, PAGES, REPOSITORY, Block, anchors, blocks, inline_commands, links, prose
from tests.docs.parsed import check_parsed, parsed
from tests.docs.workplace import Ended, posttrain, python, shell

NAMES = [
    "README",
    "controllers",
    "curricula",
    "from-trl",
    "gpus",
    "idea",
    "methods",
    "own-data",
    "packing",
    "questions",
    "recipes",
    "rewards",
    "runs",
    "studies",
    "toolbox",
]
REASONS = {"GPU", "hub", "network", "server", "slow"}
"""Why a block may be parsed only."""


def test_the_pages_are_these():
    assert [page.stem for page in PAGES] == NAMES


def test_no_block_is_overlooked():
    for page in PAGES:
        fences = sum(line.lstrip().startswith("```") for line in page.read_text().splitlines())
        assert len(blocks(page)) * 2 == fences, page.name
        for block in blocks(page):
            assert block.language in ("sh", "yaml", "python"), f"{block.where}: {block.language} is not run by any test"
            assert block.how.get("because", "GPU") in REASONS, f"{block.where}: {block.how}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page, workplace, runs_here):
    for block in blocks(page):
        if "needs" in block.how:
            assert block.how["needs"] == "run", block.where
            runs_here()
        ended = {"sh": _shell, "yaml": _yaml, "python": _python}[block.language](block, workplace)
        for one in ended:
            assert one.code == int(block.how.get("exit", 0)), f"{block.where} ended with {one.code}:\n{one.text}"
            assert block.how.get("says", "") in one.text, f"{block.where} says\n{one.text}"


def _shell(block: Block, folder: Path) -> list[Ended]:
    assert block.commands(), f"{block.where}: no command"
    if "parse-only" in block.how:
        for command in block.commands():
            try:
                check_parsed(folder, command)
            except Exception as error:
                raise AssertionError(f"{block.where}: {command}: {error}") from error
        return []
    return [_command(command, folder) for command in block.commands()]


def _command(command: str, folder: Path) -> Ended:
    words = shlex.split(command, comments=True)
    return posttrain(folder, *words[1:]) if words[0] == "posttrain" else shell(folder, command)


def _yaml(block: Block, folder: Path) -> list[Ended]:
    """A recipe, or a part of one, which then is the quickstart's; or a study."""
    if re.search(r"^arms:", block.text, re.MULTILINE):
        (folder / block.how["file"]).write_text(block.text)
        Study(folder / block.how["file"])
        return []
    whole = re.search(r"^extends:", block.text, re.MULTILINE) or (
        re.search(r"^model:", block.text, re.MULTILINE) and re.search(r"^task:", block.text, re.MULTILINE)
    )
    file = folder / block.how.get("file", f"block-{block.line}.yaml")
    file.write_text(block.text if whole else f"extends: recipes/quickstart.yaml\n{block.text}")
    try:
        check(load_recipe(file))
    except Exception as error:
        raise AssertionError(f"{block.where}: {error}") from error
    return []


def _python(block: Block, folder: Path) -> list[Ended]:
    assert "parse-only" not in block.how, f"{block.where}: Python is run"
    if "file" in block.how:
        (folder / block.how["file"]).write_text(block.text)
    return [python(folder, block.text, block.where)]


def test_commands_in_the_text_are_understood():
    found = [(page, line, command) for page in PAGES for line, command in inline_commands(page)]
    assert found
    for page, line, command in found:
        words = shlex.split(command)[1:]
        if words in [[name] for name in _commands()]:  # a command's name, not a use of it
            continue
        try:
            parsed(words)
        except AssertionError as error:
            raise AssertionError(f"{page.name}:{line}: {error}") from error


def test_every_command_is_shown():
    text = "\n".join(block.text for page in PAGES for block in blocks(page))
    for command in _commands():
        assert re.search(rf"posttrain {command}\b", text), f"no page shows `posttrain {command}`"


def _commands() -> list[str]:
    return list(_parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "README.md"], ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_links_lead_somewhere(page):
    for line, target in links(page):
        if re.match(r"https://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        where = f"{page.name}:{line}: {target}"
        assert file.exists(), where
        assert file.is_relative_to(REPOSITORY), where
        assert not anchor or anchor in anchors(file), f"{where}: {sorted(anchors(file))}"


def test_the_readme_is_short_and_its_pictures_are_small():
    readme = REPOSITORY / "README.md"
    assert len(readme.read_text().splitlines()) <= 110
    assert {"docs/terminal.svg", "docs/report.png"} <= {target for _, target in links(readme)}
    assert (DOCS / "report.png").stat().st_size <= 150_000
    assert (DOCS / "terminal.svg").stat().st_size <= 50_000
    assert not re.search(r"(href|src|url)\W+https?:", (DOCS / "terminal.svg").read_text()), "loaded from elsewhere"


def test_files_that_are_named_exist():
    named = 0
    for page in PAGES:
        for number, line in prose(page):
            for path in re.findall(r"`((?:recipes|tests|benchmarks|posttrain)/[\w./-]*)`", line):
                named += 1
                assert (REPOSITORY / path).exists(), f"{page.name}:{number}: {path}"
    assert named > 5


def test_the_index_names_every_page():
    named = {target for _, target in links(DOCS / "README.md")}
    assert {page.name for page in PAGES} - {"README.md"} <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_form(page):
    for number, line in prose(page):
        assert line.count("$") % 2 == 0 or line.strip() == "$$", f"{page.name}:{number}: an equation without its end"
        assert len(line) <= 120 or line.startswith("|"), f"{page.name}:{number}: {len(line)} characters"
        assert "/tmp" not in line, f"{page.name}:{number}: a path of one machine"
