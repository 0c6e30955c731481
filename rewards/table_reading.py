"""Tables as text, HTML and LaTeX: one reading of each form, bounded, with what is wrong in words.

A table is its first row, the names of the columns, and the rows below it; each cell is its text, white space collapsed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Literal, TypeAlias, get_args

TableForm: TypeAlias = Literal["text", "html", "latex"]
FORMS: tuple[TableForm, ...] = get_args(TableForm)
LONGEST = 20_000
"""Characters of an answer; a longer one is none."""

Cells: TypeAlias = list[str]


class NotATable(Exception):
    """What keeps a text from being one table."""


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    Args:
        columns: The cells of its first row.
        rows: The rows below, of any length.
        alone: Whether nothing else was said.
    """

    columns: Cells
    rows: list[Cells]
    alone: bool = True


def read_table(text: str, form: TableForm) -> Table:
    """The one table of this form in a text.

    Raises:
        NotATable: There is none, there are several, it is cut off, has merged cells, or the text is too long.
    """
    if len(text) > LONGEST:
        raise NotATable(f"longer than {LONGEST} characters")
    rows, alone = _READERS[form](text)
    if not rows:
        raise NotATable("a table without a row")
    return Table(rows[0], rows[1:], alone)


def squeeze(text: str) -> str:
    """The text of a cell: white space of any kind and number is one space, none at the ends."""
    return " ".join(text.split())


# ---- text ----

_PIPE = re.compile(r"(?<!\\)\|")
_DASHES = re.compile(r":?-{2,}:?")


def _read_text(text: str) -> tuple[list[Cells], bool]:
    """Lines with a `|` between their cells, and perhaps at their ends; perhaps a line of dashes below the first."""
    blocks: list[list[str]] = []
    alone, inside = True, False
    for line in text.splitlines():
        is_row = _PIPE.search(line) is not None
        if is_row and not inside:
            blocks.append([])
        if is_row:
            blocks[-1].append(line)
        alone, inside = alone and (is_row or not line.strip()), is_row
    if len(blocks) != 1:
        raise NotATable("several tables" if blocks else "no line with a |")
    rows = [_cells(line) for line in blocks[0]]
    if len(rows) > 1 and all(_DASHES.fullmatch(cell) for cell in rows[1]):
        del rows[1]
    return rows, alone


def _cells(line: str) -> Cells:
    found = [squeeze(cell.replace("\\|", "|")) for cell in _PIPE.split(line.strip())]
    return found[not found[0] : len(found) - (len(found) > 1 and not found[-1])]


# ---- HTML ----


class _Html(HTMLParser):
    """The rows of one `<table>`. Tags inside a cell, attributes and a caption mean nothing; end tags may be missing."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[Cells] = []
        self.alone, self.tables, self.open = True, 0, False
        self._row: Cells | None = None
        self._cell: list[str] | None = None
        self._caption = False

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag == "table":
            if self.tables:
                raise NotATable("a table within a table" if self.open else "several tables")
            self.tables, self.open = 1, True
        elif self.open and tag == "tr":
            self._end_row()
            self._row = []
        elif self.open and tag in ("td", "th"):
            self._end_cell()
            self._row = [] if self._row is None else self._row
            self._cell = []
        elif tag == "caption":
            self._caption = True
        elif tag == "br" and self._cell is not None:
            self._cell.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._end_cell()
        elif tag in ("tr", "table"):
            self._end_row()
        self.open = self.open and tag != "table"
        self._caption = self._caption and tag not in ("caption", "table")

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)
        elif data.strip() and not (self.open and self._caption):
            self.alone = False

    def _end_cell(self) -> None:
        if self._cell is not None and self._row is not None:
            self._row.append(squeeze("".join(self._cell)))
        self._cell = None

    def _end_row(self) -> None:
        self._end_cell()
        if self._row:
            self.rows.append(self._row)
        self._row = None


_UNCLOSED = re.compile(r"<[A-Za-z!/?][^<>]*(?:<|\Z)")
_DECLARATION = re.compile(r"<[!?][^<>]*>")
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)(?![A-Za-z0-9])([^<>]*)>")
_MERGED = re.compile(r"(?:col|row)span\s{0,9}=\s{0,9}[\"']?(?!1(?![0-9]))", re.IGNORECASE)


def _bare(text: str) -> str:
    """The text without comments, declarations and attributes, over which html.parser can take minutes."""
    kept = []
    begin = 0
    while (start := text.find("<!--", begin)) >= 0:
        kept.append(text[begin:start])
        end = text.find("-->", start + 4)
        if end < 0:
            raise NotATable("a comment that is not closed")
        begin = end + 3
    text = "".join([*kept, text[begin:]])
    if _UNCLOSED.search(text):
        raise NotATable("a tag that is not closed")
    return _TAG.sub(_without_attributes, _DECLARATION.sub("", text))


def _without_attributes(tag: re.Match[str]) -> str:
    if tag[2].lower() in ("td", "th") and _MERGED.search(tag[3]):
        raise NotATable("merged cells")
    return f"<{tag[1]}{tag[2]}>"


def _read_html(text: str) -> tuple[list[Cells], bool]:
    parser = _Html()
    try:
        parser.feed(_bare(text))
        parser.close()
    except (AssertionError, ValueError) as error:  # what html.parser does with some broken markup
        raise NotATable(f"no HTML: {error}") from None
    if not parser.tables:
        raise NotATable("no <table>")
    if parser.open:
        raise NotATable("the table is cut off")
    return parser.rows, parser.alone


# ---- LaTeX ----

_BEGIN = re.compile(r"\\begin\s?\{(tabular\*?|tabularx|tabulary|longtable)\}")
_WITH_WIDTH = ("tabular*", "tabularx", "tabulary")
_WRAPPING = re.compile(
    r"\\(?:begin|end)\{(?:table\*?|center|document)\}(?:\[[^\]\n]{0,20}\])?|\\(?:centering|small|footnotesize)(?![a-z])"
    r"|\\(?:caption|label)\{[^{}]*\}|\\\[|\\\]"
)
_TOKEN = re.compile(
    r"(?P<row>\\\\(?:\s*\[[^\]\n]{0,20}\])?|\\tabularnewline(?![A-Za-z]))"
    r"|(?P<rule>\\(?:hline|toprule|midrule|bottomrule|endhead)(?![A-Za-z])(?:\[[^\]\n]{0,20}\])?"
    r"|\\(?:cline|cmidrule)(?:\([^)\n]{0,20}\))?\{[^{}\n]{0,20}\})"
    r"|(?P<name>\\[A-Za-z]+) ?"
    r"|\\(?P<sign>[^A-Za-z])"
    r"|(?P<comment>%[^\n]*)"
    r"|(?P<other>[&{}~$])"
    r"|(?P<plain>[^\\%&{}~$]+|\\)"
)
# fmt: off
_FONTS = {
    "\\textbf", "\\textit", "\\textrm", "\\textsf", "\\texttt", "\\textsc", "\\text", "\\emph", "\\mathrm", "\\mathbf",
    "\\mathit", "\\bfseries", "\\itshape", "\\bf", "\\it",
}
# fmt: on
_LETTERS = {"\\textbackslash": "\\", "\\textasciitilde": "~", "\\textasciicircum": "^", "\\textbar": "|"}


def _read_latex(text: str) -> tuple[list[Cells], bool]:
    begins = list(_BEGIN.finditer(text))
    if len(begins) != 1:
        raise NotATable("several tables" if begins else "no tabular")
    (begin,) = begins
    end = text.find(f"\\end{{{begin[1]}}}", begin.end())
    if end < 0:
        raise NotATable("the table is cut off")
    start = begin.end()
    for _ in range(1 + (begin[1] in _WITH_WIDTH)):
        start = _behind_braces(text, start, end)
    outside = text[: begin.start()] + text[end + len(f"\\end{{{begin[1]}}}") :]
    return _rows_of(text[start:end]), not _WRAPPING.sub("", outside).strip()


def _behind_braces(text: str, start: int, end: int) -> int:
    """Where the argument in braces ends that begins at `start`, after white space and a position in brackets."""
    while start < end and (text[start].isspace() or text[start] == "["):
        start = text.find("]", start, end) + 1 if text[start] == "[" else start + 1
        if not start:
            break
    depth = 0
    for place in range(start, end) if start else ():
        depth += (text[place] == "{") - (text[place] == "}")
        if depth <= 0:
            if text[place] == "}":
                return place + 1
            break
    raise NotATable("no columns behind \\begin{tabular}")


def _rows_of(body: str) -> list[Cells]:
    rows: list[Cells] = []
    row: Cells = []
    cell: list[str] = []
    depth = 0
    for token in _TOKEN.finditer(body):
        kind, text = token.lastgroup, token[0]
        if depth == 0 and (kind == "row" or text == "&"):
            row.append(squeeze("".join(cell)))
            cell = []
            if kind == "row":
                _end_row(rows, row)
                row = []
        elif text in ("{", "}"):
            depth += 1 if text == "{" else -1
            if depth < 0:
                break
        elif kind == "name":
            cell.append(_said(token["name"]))
        elif kind == "sign":
            cell.append(token["sign"] if token["sign"] in "&%_#${}" else " ")
        elif kind == "plain" or text in ("~", "&") or kind == "row":
            cell.append(text if kind == "plain" else " ")
    if depth:
        raise NotATable("braces that are not closed")
    row.append(squeeze("".join(cell)))
    _end_row(rows, row)
    return rows


def _end_row(rows: list[Cells], row: Cells) -> None:
    if any(row) or len(row) > 1:  # behind the last row there is white space, and perhaps a rule
        rows.append(row)


def _said(command: str) -> str:
    """What a command puts into a cell: nothing where it is a font, itself where nobody knows it."""
    if command in ("\\multicolumn", "\\multirow"):
        raise NotATable("merged cells")
    return "" if command in _FONTS else _LETTERS.get(command, command)


_READERS = {"text": _read_text, "html": _read_html, "latex": _read_latex}
