"""One answer as written, in LaTeX or plain, made ready to compare: signs, spacing, units, words, bases."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from posttrain.rewards.math_clock import Time, clock
from posttrain.rewards.math_units import MULTIPLIERS, NOT_UNITS, unit_name

_LONGEST = 2_000  # characters; longer texts stay as they are, and are too long to be read
_SIGNS = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u00d7": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
        "÷": "/", "\u2044": "/", "\u2215": "/", "±": r"\pm ", "√": r"\sqrt ", "π": r"\pi ", "θ": r"\theta ",
        "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "°": r"^\circ ",
        "\u222a": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "²": "^{2}", "³": "^{3}",
        "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
        "€": "$", "£": "$", "¥": "$", "\uff05": "%", "\uff0c": ",", "\u2019": "'", "“": '"', "”": '"',
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)}, "\uff0e": ".", "\uff0d": "-", "\uff0b": "+",
        "\u00a0": " ", "\u2009": " ", "\u202f": " ",
    }
)  # fmt: skip
_REPLACED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\*\*|__(?=\w)|`", ""),
        (r"\\(?:left|right|bigl|bigr|Bigl|Bigr|big|Big|displaystyle|textstyle|limits)(?![a-zA-Z])\s?\.?", ""),
        (r"\\!|\\phantom\{[^{}]*\}|\\label\{[^{}]*\}", ""),
        (r"(?<!\\)\\(?:[,;: ]|q?quad(?![a-zA-Z]))|~", " "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:mathrm|mathbf|mathit|mathsf|textbf|textit|textrm|textnormal|textsf|mbox|hbox|operatorname)\s*\{",
         r"\\text{"),
        (r"\\text\s+\{", r"\\text{"),
        (r"\\text\{\s*([-+\d.,/%$]+)\s*\}", r"\1"),
        (r"^\s*(?:\\\(|\\\[)|(?<!\\)(?:\\\)|\\\])\s*\.?\s*$", ""),
        (r"\{,\}", ","),
        (r"\\leq?slant|\\leqq?(?![a-zA-Z])", r"\\le "),
        (r"\\geq?slant|\\geqq?(?![a-zA-Z])", r"\\ge "),
        (r"\\neq(?![a-zA-Z])", r"\\ne "),
        (r"\\(?:cong|simeq|sim)(?![a-zA-Z])", r"\\approx "),
        (r"\\\$|(?<!\\)\$", " "),
        (r"\\%", "%"),
        (r"(?i)\\text\{\s*(?:per\s?cent(?:age)?|pct)\s*\}|(?<![a-z\\])(?:per\s?cent(?:age)?|pct)(?![a-z])", "%"),
        (r"\s*\^\s*\{?\s*\\(?:circ|degree)(?![a-zA-Z])\s*\}?|\s*\\(?:degree|textdegree)(?![a-zA-Z])", r"^\\circ "),
        (r",\s*(?:\.\s?){3,}|,\s*\\(?:dots[bc]?|cdots)(?![a-zA-Z])", r", \\ldots "),
        (r"(?i)\\text\{[\s,;]*(?:and|or)\s*\}|[\s,;]+(?:and|or)\s", ", "),
        (r",\s*,", ","),
    )
]  # fmt: skip
_CURRENCY = re.compile(r"(?:US\s?|A|C)?\$|(?:Rs\.?|USD|EUR|GBP)\s*(?=\d)")
_TEXT_UNIT = re.compile(r"\s*\\text\{([^{}]*)\}\s*(?:\^\s*\{?\s*-?\d\s*\}?|\^\s*\{\s*-?\d\s*\})?\s*$")
#: Where the sign of degrees at the end belongs to a part of an expression and is no unit of the whole answer
_DEGREES_INSIDE = re.compile(r"\\circ|\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)|,")
_PLAIN_UNIT = re.compile(
    r"(?<=[\d)}\s%])\s*((?:[A-Za-z]{1,20}\.?(?:\s*\^\s*\{?\d\}?|(?<=[cm]m)[23])?(?:\s+|\s*/\s*|-)?){1,5})$"
)
_MULTIPLIED = re.compile(
    r"(\d)\s*(?:\\text\{\s*)?(" + "|".join(MULTIPLIERS) + r")s?(?:\s*\})?(?![a-zA-Z])", re.IGNORECASE
)
_MIXED = re.compile(r"(?<![\d./])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d./])")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?|\.\d+)[eE]\+?(-?\d{1,4})(?![\w.])")
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d,]| \d)")
_GROUPED = re.compile(r"(?<!\\)\{\d{1,3}(?:,\d{3})+\}")
_LONG_WORD = re.compile(r"(?=[A-Za-z]*[aeiouyAEIOUY])[A-Za-z]{3}")
_BASED = re.compile(r"([0-9A-Za-z]+)\s*_\s*\{?\s*(?:\\text\{\s*)?(\d{1,2}|[a-z]+)\s*\}?\}?")
_BASE_WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
               "twelve": 12, "sixteen": 16}  # fmt: skip
_WORDS = re.compile(r"[A-Za-z][A-Za-z'\- ]*")
_SHORT_WORDS = frozenset({"yes", "no", "odd", "even", "true", "false", "none", "never", "both", "mon", "tue", "wed",
                          "thu", "fri", "sat", "sun", "may", "all", "red", "blue"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer ready to compare.

    Args:
        math: What math-verify reads, or the words.
        words: It is words or a letter of a choice, not mathematics.
        percent: A percent sign was taken off its end.
        unit: The name of its unit, if that is a known one; see `math_units.py`.
        base: The base of the digits in `math`, if one was given.
        time: It is a time of day; `math` is its text.
        choice: The letter of a choice in front of it, as in `(B) 12`; `math` is then what stands behind.
        as_unit: How it reads if letters at its end, which may be algebra, are a unit: `5` in metres for `5m`. Which
            of both it is depends on the other answer; see `math_pair.readings`.
    """

    math: str
    words: bool = False
    percent: bool = False
    unit: str | None = None
    base: int | None = None
    time: Time | None = None
    choice: str | None = None
    as_unit: Answer | None = None


@functools.lru_cache(maxsize=4096)
def cleaned(text: str) -> Answer:
    """An answer without what doesn't change its meaning. Never fails; what makes no sense comes out as it is."""
    if len(text) > _LONGEST:
        return Answer(text)
    text = " ".join(_readable_signs(text).split())
    if _WORDS.fullmatch(text):  # the common cases first
        return _plain_words(text)
    unit = "dollar" if re.match(r"\s*-?\s*\\?\$\s*[\d.]|.*\\\$", text) else None
    if (time := clock(text)) is not None:
        return Answer(text, time=time)
    text = _CURRENCY.sub(" ", text) if "$" in text or "R" in text or "U" in text or "E" in text else text
    text = _rewritten(text)
    text = _without_frame(text)
    words = _as_words(text)
    if words is not None:
        return Answer(words, words=True)
    text = _MULTIPLIED.sub(lambda match: f"{match[1]} \\times 10^{{{MULTIPLIERS[match[2].lower()]}}}", text)
    text, named = _without_unit(text)
    text = _without_frame(text)
    percent = text.endswith("%")
    if percent:
        text = _without_frame(text[:-1])
    based = _BASED.fullmatch(text)
    base = None
    if based and any(character.isdigit() for character in based[1]):
        base = int(based[2]) if based[2].isdigit() else _BASE_WORDS.get(based[2])
        base = base if base and base > 1 else None
        text = based[1].upper() if base else text
    return Answer(_numbers(text), percent=percent, unit=named or unit, base=base)


def tidied(text: str) -> str:
    """A text of any length with signs and commands written in one way; units, words and numbers stay."""
    return _rewritten(_readable_signs(text))


def _readable_signs(text: str) -> str:
    return text.translate(_SIGNS)


def _rewritten(text: str) -> str:
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    return text


def _numbers(text: str) -> str:
    text = _SPACED.sub(lambda match: match.group().replace(" ", ""), text)
    text = _GROUPED.sub(lambda match: match.group().replace(",", ""), text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    return _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)


def _without_frame(text: str) -> str:
    """Without white space and punctuation around it, and without braces or brackets that enclose one number."""
    text = text.strip().rstrip(".,;: ").strip()
    while len(text) > 2 and (text[0] + text[-1]) == "{}" and _encloses(text):
        text = text[1:-1].strip()
    return text


def _encloses(text: str) -> bool:
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if not depth:
            return position == len(text) - 1
    return False


def _as_words(text: str) -> str | None:
    """The words of an answer that is nothing but words, casefolded; a single letter keeps its case."""
    bare = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    wrapped = bare != text
    bare = " ".join(bare.replace("(", " ").replace(")", " ").split()).strip(" .,;:!\"'")
    if not _WORDS.fullmatch(bare) or "\\" in bare:
        return None
    if wrapped:
        return bare if len(bare) == 1 else bare.casefold()
    return _plain_words(bare).math if _plain_words(bare).words else None


def _plain_words(text: str) -> Answer:
    """Words that stand there without \\text: long enough, or known, or they are a product of variables."""
    parts = text.split()
    if any(len(part) >= 4 for part in parts) or all(part.casefold() in _SHORT_WORDS for part in parts):
        return Answer(" ".join(parts).casefold(), words=True)
    return Answer(text, words=len(text) == 1 and text.isupper())


def _without_unit(text: str) -> tuple[str, str | None]:
    """The text without the units at its end, and the name of the unit if it is a known one."""
    name = None
    if text.endswith("^\\circ") and not _DEGREES_INSIDE.search(text[: -len("^\\circ")]):
        return text[: -len("^\\circ")].rstrip(), "degree"
    for _ in range(3):
        match = _TEXT_UNIT.search(text)
        if match is None or not text[: match.start()].strip():
            break
        if not _may_be_unit(match[1]):
            return text, name
        name = unit_name(match[1]) or name
        text = text[: match.start()].rstrip()
    match = _PLAIN_UNIT.search(text)
    if match is not None and re.search(r"\d\s*[)}]*\s*%?\s*$", text[: match.start(1)]):
        word = match[1].strip()
        known = unit_name(word)
        # 2x and 3abc are products of variables, 3 cm and 3 red apples are not
        apart = text[: match.start(1)][-1:].isspace() or match.group()[:1].isspace()
        if _may_be_unit(word) and (known or (apart and _LONG_WORD.search(word))):
            name, text = known or name, text[: match.start(1)].rstrip()
    return text, name


def _may_be_unit(words: str) -> bool:
    # A comma stands where an 'or' stood, and a digit for a second answer; a single 2 or 3 is of cm2
    if re.search(r",|(?<![a-z])\d|\d{2}", re.sub(r"\^\s*\{?\s*-?\d", "", words)):
        return False
    return not NOT_UNITS & {word.casefold() for word in re.findall(r"[A-Za-z]+", words)}
