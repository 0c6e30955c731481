"""Plain numbers, compared without math-verify, and never otherwise than math-verify compares them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = re.compile(rf"([+-]?)\s*({_INTEGER}?)\.(\d+)")
_WHOLE = re.compile(rf"([+-]?)\s*({_INTEGER})")
_SLASH = re.compile(r"([+-]?)\s*(\d+)\s*/\s*(\d+)")
_FRAC = re.compile(r"([+-]?)\s*\\frac\s*(?:\{\s*([+-]?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
_MIXED = re.compile(r"([+-]?)\s*(\d+)\s*\\frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
_LONGEST = 400  # characters: Python's own limit for turning digits into numbers is further off
#: A Python float, and so a sympy Float read from text, keeps this many digits.
_FLOAT_DIGITS = 15
#: math-verify rounds to this many places when one of two numbers is a decimal.
PLACES = 6
_KEPT_DIGITS = 4  # of a small number


@dataclass(frozen=True, slots=True)
class PlainNumber:
    """An integer, a decimal, a simple fraction or a mixed number.

    Args:
        value: The exact value.
        decimal: It was written with a decimal point.
        digits: How many digits it was written with.
    """

    value: Fraction
    decimal: bool
    digits: int


def plain_number(text: str) -> PlainNumber | None:
    """A text such as `-1,234.5`, `7`, `1/2`, `\\frac{-3}{4}` or `2\\frac{1}{3}` as a number; None for everything else.

    A comma before exactly three digits is a thousands separator. The text is one that `math_text.cleaned` returned.
    """
    if len(text) > _LONGEST or not text.isascii():
        return None
    text = text.strip()
    digits = sum(character.isdigit() for character in text)
    if match := _WHOLE.fullmatch(text):
        sign, whole = match.groups()
        return PlainNumber(Fraction(_signed(sign, whole)), False, digits)
    if match := _DECIMAL.fullmatch(text):
        sign, whole, places = match.groups()
        return PlainNumber(Fraction(f"{sign}{whole.replace(',', '') or '0'}.{places}"), True, digits)
    if match := _SLASH.fullmatch(text):
        sign, top, bottom = match.groups()
    elif match := _FRAC.fullmatch(text):
        sign, top, bottom = match[1], match[2] or match[3], match[4] or match[5]
    elif match := _MIXED.fullmatch(text):
        sign, whole, bottom = match[1], match[2], match[5] or match[6]
        top = str(int(whole) * int(bottom) + int(match[3] or match[4]))
    else:
        return None
    if not int(bottom):
        return None
    return PlainNumber(Fraction(_signed(sign, "1") * int(top), int(bottom)), False, digits)


def same_number(gold: PlainNumber, said: PlainNumber) -> bool | None:
    """Whether math-verify calls the two equal; None where only math-verify itself can tell.

    It compares exactly as long as neither is a decimal, and otherwise after rounding to `rounding(gold, said)`
    places, in floating point. So what differs by less than that, or has more digits than a float, is left to it.
    """
    if not gold.decimal and not said.decimal:
        return gold.value == said.value
    if max(gold.digits, said.digits) > _FLOAT_DIGITS:
        return None
    if gold.value == said.value:
        return True
    return False if abs(gold.value - said.value) > 2 * Fraction(1, 10 ** rounding(gold, said)) else None


def rounding(gold: PlainNumber | None, said: PlainNumber | None) -> int:
    """To how many places math-verify is asked to round: 6, and more for small numbers, or 1e-7 would be 2e-7 and 0."""
    places = PLACES
    for number in (gold, said):
        if number is not None and 0 < abs(number.value) < 1:
            zeros = len(str(int(1 / abs(number.value)))) - 1  # after the point
            places = max(places, zeros + _KEPT_DIGITS)
    return places


def _signed(sign: str, digits: str) -> int:
    return int(sign + digits.replace(",", ""))
