"""A table in each form, as demonstrations have it, and as the prompt asks for it."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

TableForm: TypeAlias = Literal["text", "html", "latex"]
FORMS: tuple[TableForm, ...] = get_args(TableForm)
ASKED = {
    "text": "a table in plain text, a line for each row, with | around its cells",
    "html": "an HTML table, with <th> for the names of its columns and <td> for the other cells",
    "latex": "a LaTeX table, a tabular whose columns are all of the kind l",
}
_LATEX = re.compile(r"[&%$#_{}\\~]")
_NAMED = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}


def written(form: TableForm, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table in this form; what has a meaning there is escaped."""
    if form == "text":
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [columns, *rows])
    if form == "html":
        lines = [("th", columns), *(("td", row) for row in rows)]
        inside = ("".join(f"<{tag}>{html.escape(cell, quote=False)}</{tag}>" for cell in row) for tag, row in lines)
        return "<table>" + "".join(f"<tr>{row}</tr>" for row in inside) + "</table>"
    body = "\n".join(" & ".join(_LATEX.sub(_escaped, cell) for cell in row) + r" \\" for row in [columns, *rows])
    return f"\\begin{{tabular}}{{{'l' * len(columns)}}}\n{body}\n\\end{{tabular}}"


def _escaped(sign: re.Match[str]) -> str:
    return _NAMED.get(sign[0], f"\\{sign[0]}")
