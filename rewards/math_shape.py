r"""What an answer is made of: one thing, a list, a set, a point or interval, a matrix; and the parts of each.

A comma before exactly three digits separates thousands, unless inside brackets. `\pm` stands for both signs, so
`(\pm1,0)` is two points. The rows of `cases` are a list, and so are two answers with 'and' or 'or' between them.
"""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass

_LONGEST = 2_000  # characters
_MOST_SIGNS = 3  # of both plus and minus in one part
_REWRITTEN = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|bigl|bigr|Bigl|Bigr|big|Big|displaystyle|textstyle)(?![a-zA-Z])\s?(?:\.(?!\d))?", ""),
        (r"(?<=\d)(?:,\s?\\!|\\,|\{,\})\s?(?=\d{3}(?!\d))", ""),
        (r"\\!", ""),
        (r"(?<!\\)\\[,;:> ]", " "),
        (r"\uff0c", ","),
        (r"\uff1b", ";"),
        ("\u00b1", r"\\pm "),
        ("\u2026", r"\\ldots "),
        (r",\s*(?:\.\s?){3,}|,\s*\\(?:dots[bc]?|cdots)(?![a-zA-Z])", r", \\ldots "),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\(?:lbrack)(?![a-zA-Z])", "["),
        (r"\\(?:rbrack)(?![a-zA-Z])", "]"),
        (r"\\(?:langle|lparen)(?![a-zA-Z])", "("),
        (r"\\(?:rangle|rparen)(?![a-zA-Z])", ")"),
        (r"\\text\s*\{([^{}]*[A-Za-z])[\s,]+(?:and|or)\s*\}(?=\s*[-\d\\(])", r"\\text{\1}, "),
        (r"(?i)[\s,;]*\\text\s*\{[\s,;]*(?:and|or)\s*\}|[\s,;]+(?:and|or)(?=[\s$\\])|\\(?:q?quad|lor|vee|land|wedge)"
         r"(?![a-zA-Z])", ", "),
        (r"(?:,\s*){2,}", ", "),
        (r"(?:,\s*)?;(?:\s*,)?", ";"),
    )
]  # fmt: skip
_ENVIRONMENT = re.compile(
    r"\\begin\{(cases|aligned|align\*?|array|gathered|split)\}\s*(?:\{[lcr|\s]*\})?(.*?)\\end\{\1\}", re.DOTALL
)
_BRACE = re.compile(r"(?:\\left\s*)?\\(?:\{|lbrace)\s*(?=\\begin\{(?:array|aligned|cases)\})")
_CONDITION = re.compile(r"\\text\s*\{\s*,?\s*(?:if|for|when|where)\s*\}|(?<![A-Za-z\\])(?:if|for|when)(?![A-Za-z])")
_MATRIX = re.compile(r"\\begin\{([pbv]?matrix)\}((?:(?!\\begin|\\end).)*)\\end\{\1\}", re.DOTALL)
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_BOTH_SIGNS = re.compile(r"\\(pm|mp)(?![a-zA-Z])\s*")
_UNARY = re.compile(r"(?:^|(?<=[({\[,=<>^]))\s*\+\s*")
DOTS = re.compile(r"\\(?:ldots|dots|cdots)(?![a-zA-Z])")
_IN_TEXT = re.compile(r"\\text\s*\{([^{}]*=[^{}]*)\}")
_DELIMITED = re.compile(r"\$([^$]*)\$|\\\((.*)\\\)|\\\[(.*)\\\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Shape:
    """An answer taken apart.

    Args:
        kind: `one` thing, a `list`, a `set`, `round` or `square` brackets around ordered parts, or a `matrix`.
        parts: The parts as written; of one thing the text itself.
        form: The brackets around ordered parts, or rows and columns of a matrix: `[)`, `2x1`.
    """

    kind: str
    parts: tuple[str, ...]
    form: str = ""

    @property
    def ordered(self) -> bool:
        """Whether the parts have an order."""
        return self.kind in ("round", "square", "matrix")


@functools.lru_cache(maxsize=2048)
def shape(text: str, *, grouped: bool = True) -> Shape:
    """What an answer is made of.

    Args:
        text: The answer as written.
        grouped: `1,234` is a number; else two.
    """
    if len(text) > _LONGEST:
        return Shape("one", (text,))
    text = plain(text)
    parts = split(text, ";")
    parts = parts if len(parts) > 1 else split(text, ",", grouped=grouped)
    bracketed = _bracketed(text) if len(parts) == 1 else None
    if bracketed is not None and (bracketed.kind == "set" or not _BOTH_SIGNS.search(text)):
        return bracketed
    expanded = [variant for part in parts for variant in _with_signs(part)]
    if len(expanded) > 1:
        return Shape("list", tuple(expanded))
    return Shape("one", (expanded[0] if expanded else "",))


def has_grouped(text: str) -> bool:
    """Whether a comma may separate thousands."""
    return bool(_GROUPED.search(text))


def plain(text: str) -> str:
    """A text with its commands for brackets, its rows, 'and' and 'or' written as brackets, commas and semicolons."""
    text = " ".join(text.split())
    if (wrapped := _IN_TEXT.fullmatch(text)) is not None:
        text = wrapped[1]
    if (delimited := _DELIMITED.fullmatch(text)) and "$" not in text[1:-1]:
        text = next(part for part in delimited.groups() if part is not None)
    if "\\begin" in text:
        text = _ENVIRONMENT.sub(_rows, _BRACE.sub("", text))
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    text = text.strip().rstrip(".,;").strip()
    while len(text) > 2 and text[0] == "{" and _closes(text) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _rows(match: re.Match[str]) -> str:
    rows = [row.strip().rstrip(",;").strip() for row in re.split(r"\\\\(?:\[[^\]]*\])?", match[2])]
    cells = [[cell.strip().rstrip(",").rstrip() for cell in row.split("&")] for row in rows if row]
    if all(cell[:1] in ("", "=", "<", ">") or cell.startswith(("\\le", "\\ge")) for row in cells for cell in row[1:]):
        return ", ".join(row.replace("&", "") for row in rows if row)
    if match[1] in ("cases", "array") and all(len(row) == 2 and all(row) for row in cells):
        # values with conditions: a set of pairs
        return "\\{" + ", ".join(f"({value}, {_CONDITION.sub('', condition)})" for value, condition in cells) + "\\}"
    return match.group()


def split(text: str, separator: str, *, grouped: bool = False) -> list[str]:
    """The parts between separators outside brackets; a separator that groups digits may be none."""
    kept = {
        position for match in _GROUPED.finditer(text) for position in range(*match.span()) if grouped
    }  # commas within numbers
    parts, depth, start, position = [], 0, 0, 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            following = text[position + 1 : position + 2]
            depth += (following == "{") - (following == "}")
            position += 2
            continue
        depth += (character in "([{") - (character in ")]}")
        if character == separator and depth == 0 and position not in kept:
            parts.append(text[start:position].strip())
            start = position + 1
        position += 1
    parts.append(text[start:].strip())
    return [part for part in parts if part] or [""]


def _closes(text: str) -> int:
    """The position of what closes the bracket that a text begins with; -1 where nothing does."""
    depth, position = 0, 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            following = text[position + 1 : position + 2]
            depth += (following == "{") - (following == "}")
            position += 1
        else:
            depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return position
        position += 1
    return -1


def _bracketed(text: str) -> Shape | None:
    if text.startswith("\\{") and _closes(text) == len(text) - 1:
        parts = _split_inside(text[2:-2])
        return Shape("set", tuple(variant for part in parts for variant in _with_signs(part)))
    if text[:1] == "]" or text[-1:] == "[":  # ]0,1[ for (0,1)
        turned = ("(" if text[0] == "]" else text[0]) + text[1:-1] + (")" if text[-1] == "[" else text[-1])
        return _bracketed(turned) if turned != text else None
    if text[:1] in ("(", "[") and _closes(text) == len(text) - 1:
        parts = _split_inside(text[1:-1])
        kind = "round" if text[0] + text[-1] == "()" else "square"
        return Shape(kind, tuple(parts), text[0] + text[-1]) if len(parts) > 1 else None
    transposed = re.fullmatch(r"(.*)\s*\^\s*\{?\s*(?:T|\\top|\\mathsf\{T\}|\\text\{T\})\s*\}?", text, re.DOTALL)
    inner = transposed[1].strip() if transposed else text
    matrix = _matrix(inner)
    if transposed and (row := matrix or _bracketed(inner)) and (row.kind == "round" or row.form.startswith("1x")):
        return Shape("matrix", row.parts, f"{len(row.parts)}x1")
    return matrix if not transposed else None


def _split_inside(text: str) -> list[str]:
    parts = split(text, ";")
    return parts if len(parts) > 1 else split(text, ",")


def _matrix(text: str) -> Shape | None:
    match = _MATRIX.fullmatch(text)
    if match is None or match[1] == "vmatrix":
        return None
    rows = [row.split("&") for row in re.split(r"\\\\(?:\[[^\]]*\])?", match[2]) if row.strip()]
    if not rows or len({len(row) for row in rows}) > 1:
        return None
    return Shape("matrix", tuple(cell.strip() for row in rows for cell in row), f"{len(rows)}x{len(rows[0])}")


def _with_signs(part: str) -> list[str]:
    r"""`1+x` and `1-x` for `1\pm x`; with a `\mp` there is one choice for all, else one for each."""
    found = _BOTH_SIGNS.findall(part)
    if not found or len(found) > _MOST_SIGNS or part.startswith("\\{"):
        return [part]
    together = "mp" in found
    variants = []
    for choice in itertools.product((1, -1), repeat=1 if together else len(found)):
        signs = iter(
            choice[index if not together else 0] * (-1 if together and sign == "mp" else 1)
            for index, sign in enumerate(found)
        )
        pieces = _BOTH_SIGNS.split(part)[::2]  # without the signs themselves
        text = pieces[0] + "".join(f"{'+' if next(signs) > 0 else '-'}{piece}" for piece in pieces[1:])
        variants.append(_UNARY.sub("", text))
    return variants
