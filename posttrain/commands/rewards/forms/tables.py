"""Of a gold table: the same table in other white space and markup, and tables that lack or change one thing."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from posttrain.commands.rewards.forms import Form
from posttrain.tasks.table_structure.writing import FORMS, TableForm, written

Rows = Sequence[Sequence[str]]


def forms(form: TableForm, columns: Sequence[str], rows: Rows) -> Iterator[Form]:
    """Whole completions.

    Args:
        form: The one that is asked for.
        columns: The names of the gold table.
        rows: Its rows.
    """
    yield from (Form(kind, text, True) for kind, text in _EQUAL[form](columns, rows))
    for kind, names, cells in _near(columns, rows):
        yield Form(kind, written(form, names, cells), False)
    yield Form("cut short", _cut(form, written(form, columns, rows)), False)
    other = FORMS[(FORMS.index(form) + 1) % len(FORMS)]
    yield Form(f"as {other}", written(other, columns, rows), False)


def _near(columns: Sequence[str], rows: Rows) -> Iterator[tuple[str, Sequence[str], Rows]]:
    yield "a column renamed", [f"{columns[0]}x", *columns[1:]], rows
    yield "a column removed", columns[:-1], [row[:-1] for row in rows]
    if len(columns) > 1:
        yield "names swapped", [columns[1], columns[0], *columns[2:]], rows
    if not rows:
        return
    yield "another cell", columns, [[*rows[0][:-1], f"{rows[0][-1]}x"], *rows[1:]]
    yield "a row removed", columns, rows[:-1]
    yield "a row twice", columns, [*rows, rows[-1]]
    if rows[0] != rows[-1]:
        yield "rows in another order", columns, rows[::-1]


def _cut(form: TableForm, text: str) -> str:
    """A text table is cut in its last cell, the others before their end."""
    return text[:-3] if form == "text" else text[:-1]


def _of_text(columns: Sequence[str], rows: Rows) -> Iterator[tuple[str, str]]:
    lines = written("text", columns, rows).splitlines()
    dashes = "|" + " --- |" * len(columns)
    yield "a line of dashes", "\n".join([lines[0], dashes, *lines[1:]])
    if len(columns) > 1 and all(row[0] and row[-1] for row in [columns, *rows]):
        yield "nothing at the ends", "\n".join(line[2:-2] for line in lines)
    yield "white space", "\n\n" + "\n".join("  " + line.replace(" | ", "   |\t") for line in lines) + "\n"


def _of_html(columns: Sequence[str], rows: Rows) -> Iterator[tuple[str, str]]:
    text = written("html", columns, rows)
    yield "indented", text.replace("<tr>", "\n  <tr>\n    ").replace("</tr>", "\n  </tr>")
    yield "tags in capitals", text.replace("<t", "<T").replace("</t", "</T")
    yield "attributes", text.replace("<table>", '<table border="1" class="a">').replace("<td>", '<td align="left">')
    yield "no end tags", text.replace("</td>", "").replace("</th>", "").replace("</tr>", "")
    head, *body = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in [columns, *rows]]
    below = "".join(f"<tr>{row}</tr>" for row in body)
    yield "groups of rows", f"<table><thead><tr>{head}</tr></thead><tbody>{below}</tbody></table>"


def _of_latex(columns: Sequence[str], rows: Rows) -> Iterator[tuple[str, str]]:
    text = written("latex", columns, rows)
    first, head, *body = text.splitlines()
    yield "rules", "\n".join([first, r"\hline", f"{head} \\hline", *body[:-1], r"\hline", body[-1]])
    yield "other columns", text.replace(f"{{{'l' * len(columns)}}}", f"{{|{'c|' * len(columns)}}}")
    yield "on one line", " ".join(text.splitlines())
    yield "in a table", f"\\begin{{table}}[h]\n\\centering\n{text}\n\\caption{{What it says}}\n\\end{{table}}"
    cells = head.removesuffix(r" \\").split(" & ")
    yield "bold names", "\n".join([first, " & ".join(f"\\textbf{{{cell}}}" for cell in cells) + r" \\", *body])


_EQUAL = {"text": _of_text, "html": _of_html, "latex": _of_latex}
