r"""Units behind a number: `12\text{ cm}^2`, `60 \mathrm{~km} / \mathrm{h}`, `60 km/h`, `4\pi square units`, `5m`."""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass
from fractions import Fraction

from posttrain.rewards.math_unit_names import COMPOUND, GENERIC, LETTERS, NOT_UNITS, SIZES, SYMBOLS, WORDS

_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
_FILLING = frozenset({"per", "of", "a", "each", "the", "us"})  # 5 US dollars
_PART = re.compile(r"[^\W\d_]+|\^\s*\{?\s*\(?\s*(-?\d)\s*\)?\s*\}?|\d|[/()*·.-]|\\cdot|\\times|\s+|.", re.DOTALL)
_TOKEN = re.compile(
    r"\\text\{[^{}]*\}|\\[A-Za-z]+|\\.|[^\W\d_]+|\^\s*\{\s*-?\d\s*\}|\^\s*-?\d(?![\d.])|\s+|.", re.DOTALL
)
_QUOTIENT = re.compile(
    r"\\frac\s*\{\s*((?:\\text\{[^{}]*\}|[A-Za-z]{2,})(?:\^\{?\d\}?)?)\s*\}\s*"
    r"\{\s*((?:\\text\{[^{}]*\}|[A-Za-z]+)(?:\^\{?\d\}?)?)\s*\}\s*$"
)
_BRACKETED = re.compile(r"(?<=\s)[(\[]\s*(\\text\{[^{}]*\}(?:\^\{?\d\}?)?|[A-Za-z][A-Za-z ./^\d]{1,40})\s*[)\]]$")
_TEMPERATURE = re.compile(r"\^\\circ\s*(?:\\text\{\s*)?([CF]|Celsius|Fahrenheit)\s*\}?$", re.IGNORECASE)
#: Where the sign of degrees at the end belongs to a part of an expression and is no unit of the whole answer
_DEGREES_INSIDE = re.compile(r"\\circ|\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)|\\(?:text|angle)|[=<>]")
#: What ends a value that a bare word may follow
_VALUE_END = re.compile(r"(?:\d\s*[)}\]]*|[)}]|\\(?:pi|infty|circ))\s*!?\s*%?$")
_QUANTITY = r"(\d{1,9}(?:\.\d{1,9})?)\s?(\\text\{[^{}]*\}|[A-Za-z]{1,12})\.?"
_EACH = re.compile(_QUANTITY)
_MIXED = re.compile(rf"{_QUANTITY}(?:,?\s?{_QUANTITY}){{1,2}}", re.ASCII)
_GREEK_UNIT = re.compile(r"(?<=[\d}]\s)\\(?:(mu)\s*(?:\\text\{\s*)?([gms])\s*\}?|(Omega))$")
_GREEK_UNITS = {"mu": "u", None: "ohm"}
_LONG_WORD = re.compile(r"(?=[A-Za-z]*[aeiouyAEIOUY])[A-Za-z]{3}")
_MANY = re.compile(r",|(?<![a-z^{-])\d|\d{2}")


@dataclass(frozen=True, slots=True)
class Unit:
    """A value and what stands behind it.

    Args:
        value: The text before the unit.
        name: The unit in one spelling, such as `cm^2` or `hour^-1 km`; None for words that are none we know.
        letters: Nothing but letters that may be algebra make it up.
        apart: A space stands between the value and the unit.
    """

    value: str
    name: str | None = None
    letters: bool = False
    apart: bool = True


def split_unit(text: str) -> Unit | None:
    """A text as a value and the unit behind it; None without a unit."""
    if match := _TEMPERATURE.search(text):
        return Unit(text[: match.start()].rstrip(), {"c": "celsius", "f": "fahrenheit"}[match[1][0].casefold()])
    if text.endswith("^\\circ"):
        value = text[: -len("^\\circ")].rstrip()
        return Unit(value, "degree") if value and not _DEGREES_INSIDE.search(value) else None
    if not (text[-1:].isalpha() or text[-1:] in "})].0123456789"):
        return None
    text = _QUOTIENT.sub(lambda match: "\\text{" + f"{_bare(match[1])}/{_bare(match[2])}" + "}", text)
    if (match := _BRACKETED.search(text)) and _names_unit(_bare(match[1])):
        text = f"{text[: match.start()]}\\text{{{_bare(match[1])}}}"
    text = _GREEK_UNIT.sub(lambda match: f"\\text{{{_GREEK_UNITS[match[1]]}{match[2] or ''}}}", text)
    tokens = _TOKEN.findall(text)
    start = _start_of_unit(tokens)
    value, unit = "".join(tokens[:start]), "".join(tokens[start:])
    if not unit or not value.strip():
        return None
    words, wrapped = _bare(unit), "\\text" in unit
    apart = value[-1:].isspace() or unit[:1].isspace()
    value = value.rstrip()
    if not _may_be_unit(words):
        return None
    name = unit_name(words)
    if wrapped:
        return None if value.endswith(("=", "<", ">", "(", "+", "-", "^", "_")) else Unit(value, name)
    letters = _are_letters(words)
    if letters and not apart and words[:1].isupper():
        return None  # 60 N is a force, 5C a product
    if words.strip() == "K" and not value[-1:].isdigit():
        return None  # 2\pi K is a product
    if _VALUE_END.search(value):
        # 2x and 3abc are products of variables, 3 cm and 3 red apples are not
        known = name is not None or (apart and _names_unit(words))
        counted = not words.isascii() or (apart and _LONG_WORD.search(words))
        return Unit(value, name, letters, apart) if known or counted else None
    known = name is not None and not letters and apart and (value[-1:].isalpha() or value.endswith("}"))
    return Unit(value, name) if known else None


def _start_of_unit(tokens: list[str]) -> int:
    """Where the longest end of a text that may be a unit starts; a number's own power is no part of it."""
    start = position = len(tokens)
    while position > 0:
        token = tokens[position - 1]
        if token.startswith("\\text{"):
            if not _may_be_unit(token[6:-1]):
                break
            start = position = position - 1
        elif token.isalpha():
            if not _is_unit_word(token):
                break
            start = position = position - 1
        elif token.isspace() or token in ("/", "-", ".", "\\cdot") or _is_power(tokens, position):
            position -= 1
        else:
            break
    while start > 0 and (tokens[start - 1].isspace() or tokens[start - 1] == "/"):
        start -= 1
    return start


def _is_unit_word(word: str) -> bool:
    folded = word.casefold()
    if word != "K" and folded in NOT_UNITS and folded not in ("squared", "cubed"):
        return False
    known = any(folded in words for words in (_FILLING, _POWERS, GENERIC, COMPOUND)) or _named(word) is not None
    return known or bool(_LONG_WORD.search(word)) or not word.isascii()


def _is_power(tokens: list[str], position: int) -> bool:
    """Whether the token before a position is the power of a unit before it."""
    token, power = tokens[position - 2] if position > 1 else "", tokens[position - 1]
    if not power.startswith("^") and power not in ("2", "3"):
        return False
    if token.startswith("\\text{"):
        return power.startswith("^")
    return token.isalpha() and token in SYMBOLS and (power.startswith("^") or len(token) > 1)


def _named(word: str) -> str | None:
    if word in SYMBOLS:
        return SYMBOLS[word]
    folded = word.casefold()
    # 12 Km is no mistake worth a point, 12 M is no metre
    return WORDS.get(folded) or (SYMBOLS.get(folded) if len(word) > 1 else None)


def _names_unit(words: str) -> bool:
    return any(
        _named(word) or word.casefold() in GENERIC or word in COMPOUND for word in re.findall(r"[^\W\d_]{2,}", words)
    )


def _are_letters(words: str) -> bool:
    return all(word in LETTERS for word in re.findall(r"[^\W\d_]+", words.replace("\\cdot", " ")))


def _bare(unit: str) -> str:
    return re.sub(r"\\text\{([^{}]*)\}", r"\1", unit)


def _may_be_unit(words: str) -> bool:
    # A comma stands where an 'or' stood, and a digit for a second answer; a single 2 or 3 is of cm2
    if _MANY.search(re.sub(r"\^\s*\{?\s*-?\d", "", words)):
        return False
    names = re.findall(r"[^\W\d_]+", words)
    for before, word in zip(["", *names], names, strict=False):
        if (
            word != "K"
            and word.casefold() in NOT_UNITS
            and not (word.casefold() in ("squared", "cubed") and _named(before))
        ):
            return False
    return True


@functools.lru_cache(maxsize=1024)
def unit_name(words: str) -> str | None:
    """The unit that words or symbols stand for, in one spelling: `cm^2` for 'square centimeters'; else None."""
    powers: dict[str, int] = {}
    sign, pending, last = 1, 1, ""
    folded = re.sub(r"\bdeg(?:ree)?s?\.?\s+(celsius|fahrenheit)", r"\1", words, flags=re.IGNORECASE)
    for match in _PART.finditer(folded):
        part = match.group()
        if part.startswith("^") or (part in ("2", "3") and last):
            if not last:
                return None
            powers[last] *= abs(int(match[1] or part)) * (-1 if (match[1] or part).startswith("-") else 1)
        elif part == "/" or part.casefold() in ("per", "each"):
            sign = -1
        elif part.casefold() in _POWERS:
            if part.casefold().endswith("d") and last:
                powers[last] *= _POWERS[part.casefold()]
            else:
                pending = _POWERS[part.casefold()]
        elif part.isalpha() and (part == "A" or part.casefold() not in _FILLING):
            names = COMPOUND.get(part.casefold()) or ((_named(part), 1),)
            for name, power in names:
                if name is None or name in powers:
                    return None
                powers[name], last = sign * pending * power, name
            sign = pending = 1
        elif part.isdigit():
            return None
    return " ".join(f"{name}^{power}" if power != 1 else name for name, power in sorted(powers.items())) or None


def mixed_quantity(text: str) -> tuple[Fraction, str] | None:
    """`2 hours 30 minutes` as 150 minutes; None unless there are several numbers, each with a smaller unit."""
    if not _MIXED.fullmatch(text):
        return None
    parts = [(Fraction(number), unit_name(_bare(unit)) or "") for number, unit in _EACH.findall(text)]
    smallest = parts[-1][1]
    sizes = [ratio(name, smallest) for _, name in parts]
    if None in sizes or any(one <= other for one, other in itertools.pairwise(sizes)):  # type: ignore[operator]
        return None
    return sum((number * size for (number, _), size in zip(parts, sizes, strict=True) if size), Fraction(0)), smallest


def ratio(one: str, other: str) -> Fraction | None:
    """How many of the other unit one unit is, as 60 for `hour` and `minute`; None when they measure other things."""
    sizes = []
    for name in (one, other):
        size = Fraction(1)
        measured: dict[str, int] = {}
        for part in name.split():
            unit, _, power = part.partition("^")
            if unit not in SIZES:
                return None
            kind, each = SIZES[unit]
            size *= each ** int(power or 1)
            measured[kind] = measured.get(kind, 0) + int(power or 1)
        sizes.append((size, {kind: power for kind, power in measured.items() if power}))
    return sizes[0][0] / sizes[1][0] if sizes[0][1] == sizes[1][1] else None
