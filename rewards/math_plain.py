r"""Mathematics as people type it, in LaTeX: `pi/2`, `sqrt(2)`, `sin(x)`, `1.6 x 10^-19`, `2**3`, `0.(3)`, `7th`."""

from __future__ import annotations

import re
from fractions import Fraction

_NAMES = (
    r"arcsin|arccos|arctan|arccot|sinh|cosh|tanh|coth|sin|cos|tan|cot|sec|csc|log|ln|lg|exp|gcd|lcm|det"
    r"|alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|phi|omega|pi|infinity|infty|inf"
)
_NAMED = re.compile(rf"\\[A-Za-z]+(?:\s*\{{[^{{}}]*\}})?|(?<![A-Za-z])({_NAMES})(?![A-Za-z])")
_SPELLED = {"infinity": r"\infty ", "inf": r"\infty "}
_ROOT = re.compile(r"(?:\\|(?<![A-Za-z\\]))(sqrt|cbrt)\s*(?:(\()|(\d+(?:\.\d+)?|[A-Za-z](?![A-Za-z])))")
_TIMES_TEN = re.compile(r"(\d)\s*[xX*]\s*(?=10\s*(?:\^|\*\*))")
_POWER = re.compile(r"(?<=[\w)}\]])\s*\*\*\s*(?=[-\w({\\])")
_ORDINAL = re.compile(
    r"(\d)\s*(?:\^\s*\{?\s*)?(?:\\text\s*\{\s*)?(?:st|nd|rd|th)(?![A-Za-z])\s*\}?\s*\}?", re.IGNORECASE
)
_REPEATING = re.compile(
    r"(?P<whole>\d*)\s*\.\s*(?P<fixed>\d*)\s*(?:\\(?:overline|bar|dot|overset\s*\{[^{}]*\})\s*(?:\{\s*(?P<period>\d+)\s*\}"
    r"|(?P<one>\d))|\(\s*(?P<round>\d+)\s*\)(?!\s*[\w(^\\])|(?P<last>\d)(?P=last){2,}\s*(?:\.\.\.|\\[lc]?dots(?![a-z])))"
)


def typed(text: str) -> str:
    """An answer with what was typed without LaTeX written in it; LaTeX stays."""
    if "**" in text:
        text = _POWER.sub("^", text)
    if "10" in text:
        text = _TIMES_TEN.sub(r"\1 \\times ", text)
    if "sqrt" in text or "cbrt" in text:
        text = _with_roots(text)
    if "." in text:
        text = _REPEATING.sub(_as_fraction, text)
    if any(character.isalpha() for character in text):
        text = _ORDINAL.sub(r"\1", text) if text[:1].isdigit() else text
        text = _NAMED.sub(_command, text)
    return text


def _command(match: re.Match[str]) -> str:
    if match[1] is None:
        return match.group()
    return _SPELLED.get(match[1], f"\\{match[1]} ")


def _with_roots(text: str) -> str:
    out, position = [], 0
    while match := _ROOT.search(text, position):
        command = r"\sqrt" if match[1] == "sqrt" else r"\sqrt[3]"
        out.append(text[position : match.start()])
        if match[2]:
            end = _closing(text, match.end() - 1)
            if end < 0:
                return text
            out.append(f"{command}{{{_with_roots(text[match.end() : end])}}}")
            position = end + 1
        else:
            out.append(f"{command}{{{match[3][0] if text[match.start()] == chr(92) else match[3]}}}")
            position = match.end() if text[match.start()] != "\\" else match.start(3) + 1
    return "".join([*out, text[position:]])


def _closing(text: str, start: int) -> int:
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if not depth:
            return position
    return -1


def _as_fraction(match: re.Match[str]) -> str:
    whole, fixed = match["whole"] or "0", match["fixed"]
    period = match["period"] or match["one"] or match["round"] or match["last"]
    if len(whole) + len(fixed) + len(period) > 40 or not match["whole"]:
        return match.group()
    value = Fraction(f"{whole}.{fixed or '0'}") + Fraction(int(period), 10 ** len(fixed) * (10 ** len(period) - 1))
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
