r"""The form in which math-verify gets to see a formula: every argument in braces, every product that it would misread.

TeX lets an argument go without braces (`\frac12`, `\sqrt2`, `x^2`, `\log_2 3`); what follows it is then no part of it.
math-verify reads some of these otherwise, and reads `3(4)` as the mixed number 3 + 4.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\.\d+|.", re.DOTALL)
_ARGUMENTS = {r"\frac": 2, r"\binom": 2, r"\sqrt": 1}
_UPRIGHT = re.compile(r"\\text\s*\{\s*([ei])\s*\}")  # the constants
#: 3(4), (3)(4) and (3)\frac{1}{2}; the 2 of \sin^{2}(x) stands in braces by now
_SILENT_PRODUCT = re.compile(r"((?<![\d.])\d+\.?\d*|\))\s*(?=\()|(\))\s*(?=\\frac|\d)")
#: `dx` would be a differential; integrals and derivatives are no answers, so a d is always a letter
_LETTER_D = re.compile(r"\\[A-Za-z]+|(d)(?=\s*(?:[A-Za-z]|\\[A-Za-z]))")
#: Of sets and of anything else; `\vec a` without braces; a trace is no answer, so tr is a product
_LARGEST = re.compile(r"\\(max|min)\s*\\\{((?:[^{}\\]|\\(?![{}])|\{[^{}]*\})*)\\\}")
_ACCENT = re.compile(r"\\(vec|hat|bar|tilde|dot|overline)\s+([A-Za-z])(?![A-Za-z])")
_TRACE = re.compile(r"(?<![\\A-Za-z])tr(?![A-Za-z])")
_PRIME = re.compile(r"(?<=[A-Za-z])'+(?!\s*[_'])")
_NUMBER_SETS = re.compile(r"\\(?:mathbb|mathbf|Bbb)\s*\{?\s*([NZQRC])(?![A-Za-z])\s*\}?")


def readable(text: str) -> str:
    """A formula, as `math_text.cleaned` returns it, with the same meaning and nothing left for math-verify to guess."""
    text = _UPRIGHT.sub(r" \1 ", text)
    if "\\" in text:
        text = _LARGEST.sub(r"\\\1(\2)", text)
        text = _ACCENT.sub(r"\\\1{\2}", text)
    text = _TRACE.sub("t r", text)
    text = _NUMBER_SETS.sub(r"\\mathbb{\1}", text)
    text = _PRIME.sub("_{prime}", text)  # y' is not y
    if ("^" in text or "_" in text or "\\" in text) and text.count("{") == text.count("}"):
        text = _braced(text)
    text = _SILENT_PRODUCT.sub(lambda match: f"{match[1] or match[2]}\\cdot ", text)
    if "d" in text:
        text = _LETTER_D.sub(lambda match: "{d}" if match[1] else match.group(), text)
    return text


def _braced(text: str) -> str:
    tokens = _TOKEN.findall(text)
    out: list[str] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        position += 1
        if token in _ARGUMENTS:
            out.append(token)
            if token == r"\sqrt":
                position = _copy_option(tokens, position, out)
            for _ in range(_ARGUMENTS[token]):
                position = _copy_argument(tokens, position, out)
        elif token in ("^", "_") and out:
            base_of_log = token == "_" and "".join(out).rstrip().endswith((r"\log", r"\log{}"))
            out.append(token)
            position = _copy_script(tokens, position, out, base_of_log=base_of_log)
        else:
            out.append(token)
    return "".join(out)


def _skipped(tokens: list[str], position: int) -> int:
    while position < len(tokens) and tokens[position].isspace():
        position += 1
    return position


def _copy_option(tokens: list[str], position: int, out: list[str]) -> int:
    start = _skipped(tokens, position)
    if start >= len(tokens) or tokens[start] != "[" or "]" not in tokens[start:]:
        return position
    end = tokens.index("]", start) + 1
    out.extend(tokens[start:end])
    return end


def _copy_argument(tokens: list[str], position: int, out: list[str]) -> int:
    """Copy one argument by TeX's rule: a group, or one sign, which of a number is one digit."""
    position = _skipped(tokens, position)
    if position >= len(tokens):
        return position
    token = tokens[position]
    if token == "{":
        end = _closing(tokens, position, "{", "}")
        out.append("{" + _braced("".join(tokens[position + 1 : end])) + "}")
        return end + 1
    if token[:1].isdigit() and len(token) > 1:
        out.append("{" + token[0] + "}")
        tokens[position] = token[1:]
        return position
    if token in _ARGUMENTS:  # \frac\sqrt32
        inner: list[str] = [token]
        position = _copy_option(tokens, position + 1, inner) if token == r"\sqrt" else position + 1
        for _ in range(_ARGUMENTS[token]):
            position = _copy_argument(tokens, position, inner)
        out.append("{" + "".join(inner) + "}")
        return position
    out.append("{" + token + "}")
    return position + 1


def _copy_script(tokens: list[str], position: int, out: list[str], *, base_of_log: bool) -> int:
    r"""Copy a power or an index. Of those that write `x^12`, `x^-1` or `2^(n+1)` all mean more than TeX would print."""
    position = _skipped(tokens, position)
    if position >= len(tokens):
        return position
    token = tokens[position]
    following = tokens[position + 1] if position + 1 < len(tokens) else ""
    if token == "(" and not base_of_log:
        end = _closing(tokens, position, "(", ")")
        inside = "".join(tokens[position + 1 : end])
        if end < len(tokens) and "," not in inside:
            out.append("{" + _braced(inside) + "}")
            return end + 1
    if token[:1].isdigit() and not (base_of_log and not following):
        out.append("{" + token + "}")
        return position + 1
    if token in "+-" and following and (following[0].isalnum() or following[0] == "\\"):
        out.append("{" + token + following + "}")
        return position + 2
    if token == r"\circ":
        out.append(token)
        return position + 1
    return _copy_argument(tokens, position, out)


def _closing(tokens: list[str], position: int, opening: str, closing: str) -> int:
    """The position of what closes the bracket at `position`; one past the end where nothing does."""
    depth = 0
    for index in range(position, len(tokens)):
        depth += (tokens[index] == opening) - (tokens[index] == closing)
        if not depth:
            return index
    return len(tokens)
