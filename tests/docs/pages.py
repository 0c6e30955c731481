"""What a page of docs/ consists of: fenced blocks with what is said of their test, commands in the text, headings,
links and tables. No Markdown library: the pages keep to a few forms, and what is in no such form fails a test.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.glob("*.md"))

_FENCE = re.compile(r"^```(\w*)$")
_DIRECTIVE = re.compile(r"^<!-- test: (.*) -->$")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_KEYS = {"needs", "file", "exit", "says", "parse-only", "because"}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Where it is.
        line: Of its opening fence, from 1.
        language: What stands behind the fence.
        text: What is in it.
        how: What the comment before it says of its test: `needs=run` (the prepared runs), `file=NAME` (kept under that
            name for the blocks that follow), `exit=N` and `says=TEXT` (how its command ends), and
            `parse-only because=WHY` (not run here).
    """

    page: Path
    line: int
    language: str
    text: str
    how: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"

    def commands(self) -> list[str]:
        """The commands of a block of shell, without comments, continued lines put together."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    lines = page.read_text().splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if not opening:
            assert not lines[number].lstrip().startswith("```"), f"{page.name}:{number + 1}: a fence of another form"
            number += 1
            continue
        end = lines.index("```", number + 1)
        how = _how(lines[number - 1] if number else "", f"{page.name}:{number}")
        found.append(Block(page, number + 1, opening[1], "\n".join(lines[number + 1 : end]) + "\n", how))
        number = end + 1
    return found


def _how(line: str, where: str) -> dict[str, str]:
    said = _DIRECTIVE.match(line)
    if not said:
        assert "<!-- test" not in line, f"{where}: a comment on a test of another form: {line}"
        return {}
    how = dict(part.partition("=")[::2] for part in shlex.split(said[1]))
    assert set(how) <= _KEYS, f"{where}: unknown {set(how) - _KEYS}"
    assert ("parse-only" in how) == ("because" in how), f"{where}: parse-only says why, by because="
    return how


def prose(page: Path) -> list[tuple[int, str]]:
    """Numbered lines outside of blocks."""
    kept, inside = [], False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            kept.append((number, line))
    return kept


def inline_commands(page: Path) -> list[tuple[int, str]]:
    """Code in the text that is a command of ours."""
    return [(n, code) for n, line in prose(page) for code in _CODE.findall(line) if code.startswith("posttrain ")]


def links(page: Path) -> list[tuple[int, str]]:
    return [(number, target) for number, line in prose(page) for target in _LINK.findall(_CODE.sub("", line))]


def anchors(page: Path) -> set[str]:
    """What `#...` may follow a page's name, as GitHub makes it of the headings."""
    headings = [line.lstrip("#").strip() for _, line in prose(page) if re.match(r"#{1,6} ", line)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tables(page: Path) -> dict[str, list[list[str]]]:
    """Heading to the rows of the tables under it, each a list of cells; without the two lines that head a table."""
    found: dict[str, list[list[str]]] = {}
    heading, seen = "", 0
    for _, line in prose(page):
        if re.match(r"#{1,6} ", line):
            heading = line.lstrip("#").strip()
        seen = seen + 1 if line.startswith("|") else 0
        if seen > 2:
            found.setdefault(heading, []).append(_cells(line))
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def code_in(cell: str) -> list[str]:
    """The code in a cell of a table."""
    return _CODE.findall(cell)
