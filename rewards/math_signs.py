r"""Signs and LaTeX commands of an answer in one spelling: Unicode signs, spacing, sizes, fonts and colours."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma sigma tau upsilon"
    " phi chi psi omega"
)
_CAPITALS = {"Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi",
             "Ψ": "Psi", "Ω": "Omega"}  # fmt: skip
_LETTERS = {chr(0x3B1 + place): name for place, name in enumerate(_GREEK.split()) if name != "omicron"} | _CAPITALS
#: Not the letters of a Greek word
_GREEK_LETTER = re.compile(r"(?<![\u0370-\u03ff])[\u0391-\u03c9]{1,2}(?![\u0370-\u03ff])")
_FRACTIONS = {
    sign: "\\frac{{{0.numerator}}}{{{0.denominator}}}".format(Fraction(unicodedata.numeric(sign)).limit_denominator(10))
    for sign in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
}
_SIGNS = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u00d7": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
        "÷": "/", "\u2044": "/", "\u2215": "/", "\u2236": ":", "±": r"\pm ", "∓": r"\mp ", "∞": r"\infty ",
        "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "°": r"^\circ ",
        "\u222a": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∉": r"\notin ", "∅": r"\emptyset ", "\u2216": r"\setminus ",
        "\u2228": r"\lor ", "∧": r"\land ", "∠": r"\angle ", "△": r"\triangle ", "\u211d": r"\mathbb{R}",
        "\u2124": r"\mathbb{Z}",
        "\u2115": r"\mathbb{N}", "\u211a": r"\mathbb{Q}", "\u2102": r"\mathbb{C}", "⟨": r"\langle ", "⟩": r"\rangle ",
        "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "…": r"\ldots ", "⋯": r"\ldots ",
        "\u2019": "'", "\u2032": "'", "“": '"', "”": '"', "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u3000": " ",
        "\u3001": ", ", "\u3002": ".", "✓": " ", "✔": " ", "✅": " ", "☑": " ", "\ufe0f": "",
        **_FRACTIONS, **{chr(0xFF01 + place): chr(0x21 + place) for place in range(94)},
    }
)  # fmt: skip
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉ₙ]+")
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[A-Za-z](?![A-Za-z]))?")
_ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}

#: Commands whose argument is the thing itself
STYLES = (
    r"(?:boldsymbol|bm|pmb|mathbf|mathit|mathsf|mathtt|mathnormal|underline|uline|ensuremath|emph|boxed|fbox"
    r"|(?:textcolor|colorbox|color)\s*(?:\[[^\[\]{}]*\]\s*)?\{[^{}]*\})"
)
#: Commands whose argument is words
TEXTS = (
    r"(?:text|mathrm|textbf|textit|textrm|textnormal|textsf|texttt|textsc|textup|textmd|mbox|hbox|operatorname\*?"
    r"|mathop)"
)
_STYLE = re.compile(rf"\\(?!mathbf\s*\{{\s*[NZQRC]\s*\}}){STYLES}\s*(?=\{{)")
_TEXT = re.compile(rf"\\{TEXTS}\s*\{{")
_FUNCTIONS = (
    r"arcsin|arccos|arctan|sinh|cosh|tanh|coth|sin|cos|tan|cot|sec|csc|log|ln|lg|exp|gcd|lcm|max|det"
    r"|min(?=\s*\}\s*[({\\])"
)
_NAMED = re.compile(rf"\\text\{{\s*({_FUNCTIONS})\s*\}}")
_REPLACED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\{\s*\\rm(?![a-zA-Z])[\s~]{0,3}([A-Za-z./ ]{2,20})\}", r"\\text{\1}"),
        (r"\\(?:left|right|[bB]igg?[lrm]?|middle|displaystyle|textstyle|scriptstyle|limits|tiny|small|normalsize|large"
         r"|Large|LARGE|huge|Huge|rm|bf|it|sf|tt|bfseries|itshape|rmfamily|centering|noindent|strut)(?![a-zA-Z])\s?\.?",
         ""),
        (r"\\color\s*\{[^{}]*\}", ""),
        (r"\\!\s*|\\[hv]?phantom\{[^{}]*\}|\\label\{[^{}]*\}|\\tag\*?\{[^{}]*\}|\\[hv]space\*?\{[^{}]*\}", ""),
        (r"(?<!\\)\\(?:[,;:> ]|(?:q?quad|thinspace|enspace|space)(?![a-zA-Z]))|~", " "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\text\{\s*([-+\d.,/%$]+)\s*\}", r"\1"),
        (r"(?<!\\)\\[()\[\]]", " "),
        (r"\{,\}", ","),
        (r"\\leq?slant|\\leqq?(?![a-zA-Z])", r"\\le "),
        (r"\\geq?slant|\\geqq?(?![a-zA-Z])", r"\\ge "),
        (r"\\neq(?![a-zA-Z])", r"\\ne "),
        (r"\\(?:cong|simeq|sim)(?![a-zA-Z])", r"\\approx "),
        (r"\\(?:varnothing|O)(?![a-zA-Z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\\$|(?<!\\)\$", " "),
        (r"\\%", "%"),
        (r"(?i)\\text\{\s*(?:per\s?cent(?:age)?|pct)\s*\}", "%"),
        (r"\s*\^\s*\{?\s*\\(?:circ|degree)(?![a-zA-Z])\s*\}?|\s*\\(?:degree|textdegree)(?![a-zA-Z])", r"^\\circ "),
        (r",\s*\\(?:dots[bc]?|cdots)(?![a-zA-Z])", r", \\ldots "),
        (r"(\\text\{[^{}]{0,40}\^)\{(-?\d)\}", r"\1\2"),
    )
]  # fmt: skip
_PLAIN_REPLACED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?i)(?<![a-z\\])(?:per\s?cent(?:age)?|pct)(?![a-z])", "%"),
        (r",\s*(?:\.\s?){3,}", r", \\ldots "),
        (r"(?i)(\\text\{[^{}]{0,80}[^{}\s,;])[\s,;]{1,9}(?:and|or)\s*\}", r"\1}, "),
        (r"(?i)\\text\{[\s,;]*(?:and|or)\s*\}|[\s,;]+(?:and|or)\s", ", "),
        (r",\s*,", ","),
    )
]
_EMPHASIS = re.compile(r"(?<![\w)}\]*\\])(\*\*|__)(?=[^\s*_])([^*_\n]{1,400})(?<=\S)\1(?![\w({\[\\*])")


def readable_signs(text: str) -> str:
    """A text with the signs beyond ASCII that have a spelling in LaTeX spelt so; letters of other alphabets stay."""
    if text.isascii():
        return text
    text = _RAISED.sub(
        lambda match: "^{" + unicodedata.normalize("NFKC", match.group()).replace("\u2212", "-") + "}", text
    )
    text = _LOWERED.sub(lambda match: "_{" + unicodedata.normalize("NFKC", match.group()) + "}", text)
    text = _ROOT.sub(lambda match: _ROOTS[match[1]] + (f"{{{match[2]}}}" if match[2] else " "), text)
    text = _GREEK_LETTER.sub(lambda match: "".join(_greek(letter) for letter in match.group()), text)
    return text.translate(_SIGNS)


def _greek(letter: str) -> str:
    return f"\\{_LETTERS[letter]} " if letter in _LETTERS else letter


def one_spelling(text: str) -> str:
    r"""A text with commands of one meaning in one spelling, and without those that only say how it looks."""
    if "\\" in text or "$" in text or "~" in text or "{,}" in text:
        text = replaced_groups(text, _STYLE, lambda inside: inside)
        text = _TEXT.sub(r"\\text{", text)
        for pattern, replacement in _REPLACED:
            text = pattern.sub(replacement, text)
        text = _NAMED.sub(r"\\\1 ", text)
    for pattern, replacement in _PLAIN_REPLACED:
        text = pattern.sub(replacement, text)
    return text


def tidied(text: str) -> str:
    """A text of any length with signs and commands written in one way; units, words and numbers stay."""
    return one_spelling(without_emphasis(readable_signs(text)).replace("`", ""))


def without_emphasis(text: str) -> str:
    """A text without Markdown's bold marks; `2**3**x` has none."""
    return _EMPHASIS.sub(r"\2", text) if "**" in text or "__" in text else text


def replaced_groups(text: str, command: re.Pattern[str], make: Callable[[str], str]) -> str:
    """A text with each command and the group in braces behind it replaced by what `make` makes of the inside."""
    for _ in range(4):  # one inside the other
        out, position = [], 0
        while match := command.search(text, position):
            end = closing_brace(text, match.end())
            if end < 0:
                break
            out += [text[position : match.start()], make(text[match.end() + 1 : end])]
            position = end + 1
        if not out:
            break
        text = "".join([*out, text[position:]])
    return text


def closing_brace(text: str, start: int) -> int:
    r"""Where the brace that opens at `start` is closed; -1 when it never is. `\{` and `\}` are no braces."""
    depth, position = 0, start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if not depth:
                return position
        position += 1
    return -1
