"""What an expression of + - * / is worth: read by recursive descent, worked out in fractions, never by `eval`.

    statement  = sum { "=" sum }
    sum        = product { ("+" | "-") product }
    product    = signed { ("*" | "/") signed }
    signed     = [ "-" | "+" ] ( number | "(" sum ")" | "[" sum "]" )

The multiplication sign, the middle dots and `x` are `*`; the division sign and `:` are `/`; the minus sign is `-`.
Powers, `//`, `%`, names, factorials and numbers side by side are no arithmetic of this kind. A text is bounded in
length and in brackets, so its work is, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 400
"""Characters of a statement."""

DEEPEST = 40
"""Brackets inside one another."""

_TOKEN = re.compile(r"\s*(?:([0-9]+(?:\.[0-9]+)?)|(\*\*|//|[-+*/x:()\[\]=\u00d7\u00b7\u22c5\u00f7\u2212]))", re.ASCII)
_SAME = {"\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "x": "*", "\u00f7": "/", ":": "/", "\u2212": "-"}
_CLOSING = {"(": ")", "[": "]"}


class NotArithmetic(ValueError):
    """A text that is no statement of this kind; the message says why."""


@dataclass(frozen=True)
class Worked:
    """A statement worked out.

    Args:
        values: The value of each side of its equalities; of an expression alone, one.
        numbers: The numbers of the first side that has an operator, in their order.
        operators: Its operators, each of + - * /; the minus sign of a number or a bracket is `-`.
    """

    values: tuple[Fraction, ...]
    numbers: tuple[Fraction, ...]
    operators: frozenset[str]


def work_out(text: str) -> Worked:
    """Work out a statement.

    Raises:
        NotArithmetic: It is none, is too long or too deep, has no operator, or divides by 0.
    """
    if len(text) > LONGEST:
        raise NotArithmetic(f"a statement of {len(text)} characters, more than {LONGEST}")
    reader = _Reader(_tokens(text))
    values: list[Fraction] = []
    numbers: tuple[Fraction, ...] = ()
    operators: frozenset[str] = frozenset()
    while True:
        reader.numbers, reader.operators, reader.signs = [], [], []
        values.append(reader.sum())
        if reader.operators and not numbers:
            numbers = tuple(reader.numbers)
            operators = frozenset(reader.operators + reader.signs)
        if not reader.takes("="):
            break
    if reader.next is not None:
        raise NotArithmetic(f"{reader.next!r} where an operator should be")
    if not numbers:
        raise NotArithmetic("a number alone is no expression")
    return Worked(tuple(values), numbers, operators)


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    place = 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise NotArithmetic(f"{text[place:].lstrip()[:12]!r} is no number or operator")
        if match[2] in ("**", "//"):
            raise NotArithmetic(f"{match[2]} is not among + - * /")
        found.append(match[1] or _SAME.get(match[2], match[2]))
        place = match.end()
    return found


class _Reader:
    """Tokens read from left to right, with what was seen of numbers and operators."""

    def __init__(self, tokens: list[str]):
        self.tokens, self.place, self.depth = tokens, 0, 0
        self.numbers: list[Fraction] = []
        self.operators: list[str] = []
        self.signs: list[str] = []

    @property
    def next(self) -> str | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def takes(self, *which: str) -> str | None:
        if self.next not in which:
            return None
        self.place += 1
        return self.tokens[self.place - 1]

    def sum(self) -> Fraction:
        return self._joined(self.product, "+", "-")

    def product(self) -> Fraction:
        return self._joined(self.signed, "*", "/")

    def _joined(self, part: Callable[[], Fraction], *operators: str) -> Fraction:
        value = part()
        while operator := self.takes(*operators):
            self.operators.append(operator)
            other = part()
            if operator == "/" and other == 0:
                raise NotArithmetic("a division by 0")
            if operator in "+-":
                value += other if operator == "+" else -other
            else:
                value = value * other if operator == "*" else value / other
        return value

    def signed(self) -> Fraction:
        sign = self.takes("-", "+")
        value = self._bracketed() if self.next in _CLOSING else self._number()
        if sign != "-":
            return value
        self.signs.append(sign)
        return -value

    def _number(self) -> Fraction:
        token = self.next
        if token is None or not token[0].isdigit():
            raise NotArithmetic("the statement breaks off" if token is None else f"{token!r} where a number should be")
        self.place += 1
        self.numbers.append(Fraction(token))
        return self.numbers[-1]

    def _bracketed(self) -> Fraction:
        closing = _CLOSING[self.tokens[self.place]]
        self.place, self.depth = self.place + 1, self.depth + 1
        if self.depth > DEEPEST:
            raise NotArithmetic(f"brackets more than {DEEPEST} deep")
        value = self.sum()
        if not self.takes(closing):
            raise NotArithmetic(f"no {closing} where it should be")
        self.depth -= 1
        return value
