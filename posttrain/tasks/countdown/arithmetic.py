"""Expressions over whole numbers: what they are worth, how they are written, and what numbers can reach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any, TypeAlias

OPERATORS = ("+", "-", "*", "/")

#: A number, or an operator with its two sides.
Expression: TypeAlias = Any


def apply(operator: str, left: int, right: int) -> int | None:
    """What two whole numbers above 0 make, if that is one, too; otherwise None."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right if left > right else None
    if operator == "*":
        return left * right
    return left // right if left % right == 0 else None


def value(expression: Expression) -> int:
    """The value of an expression whose every part is a whole number above 0."""
    if isinstance(expression, int):
        return expression
    made = apply(expression[0], value(expression[1]), value(expression[2]))
    assert made is not None, expression
    return made


def in_order(expression: Expression) -> Expression:
    """The same value with sums and products in one order, so that few expressions say the same.

    What is added stands before what is taken away, factors before divisors, each from the largest number down: of
    `9 - (8 - 5)` comes `9 + 5 - 8`. What is in between stays a whole number above 0.
    """
    if isinstance(expression, int):
        return expression
    plus, minus = ("+", "-") if expression[0] in "+-" else ("*", "/")
    up: list[Expression] = []
    down: list[Expression] = []
    _spread(expression, plus, up, down)
    first, *rest = sorted(up, key=_rank)
    for part in rest:
        first = (plus, first, part)
    for part in sorted(down, key=_rank):
        first = (minus, first, part)
    return first


def _spread(expression: Expression, plus: str, up: list[Expression], down: list[Expression]) -> None:
    """The terms of a sum, or the factors of a product: those that count up and those that count down."""
    minus = "-" if plus == "+" else "/"
    if isinstance(expression, int) or expression[0] not in (plus, minus):
        up.append(in_order(expression))
        return
    _spread(expression[1], plus, up, down)
    if expression[0] == plus:
        _spread(expression[2], plus, up, down)
    else:
        _spread(expression[2], plus, down, up)


def _rank(expression: Expression) -> tuple[int, str]:
    return -value(expression), text(expression)


def text(expression: Expression) -> str:
    """An expression as it is written, with the brackets that it needs and a space around each operator."""
    if isinstance(expression, int):
        return str(expression)
    operator, left, right = expression
    first, second = text(left), text(right)
    if operator in "*/" and not isinstance(left, int) and left[0] in "+-":
        first = f"({first})"
    if not isinstance(right, int) and (operator == "/" or (operator in "-*" and right[0] in "+-")):
        second = f"({second})"
    return f"{first} {operator} {second}"


def steps(expression: Expression) -> list[tuple[int, str, int, int]]:
    """Each operation as left, operator, right and result, in the order of working it out."""
    if isinstance(expression, int):
        return []
    operator, left, right = expression
    return [*steps(left), *steps(right), (value(left), operator, value(right), value(expression))]


def pairs(left: int, right: int, operators: Iterable[str]) -> Iterator[tuple[str, int, int, int]]:
    """All that two numbers make, the larger one on the left: operator, left, right, result."""
    if left < right:
        left, right = right, left
    for operator in operators:
        made = apply(operator, left, right)
        if made is not None:
            yield operator, left, right, made


@lru_cache(maxsize=50_000)
def reached(numbers: tuple[int, ...], operators: tuple[str, ...]) -> frozenset[int]:
    """All values of expressions that use each of the numbers once, with whole numbers above 0 all the way.

    Args:
        numbers: Sorted.
        operators: Which of + - * / to use.
    """
    if len(numbers) == 1:
        return frozenset(numbers)
    found: set[int] = set()
    for some, rest in halves(numbers):
        for left in reached(some, operators):
            for right in reached(rest, operators):
                found.update(made for *_, made in pairs(left, right, operators))
    return frozenset(found)


def halves(numbers: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All ways to part sorted numbers in two, none of them empty, each once."""
    places = range(1, len(numbers))
    for size in range(len(numbers) - 1):
        for chosen in combinations(places, size):
            some = (0, *chosen)
            yield (
                tuple(numbers[place] for place in some),
                tuple(number for place, number in enumerate(numbers) if place not in some),
            )


def needs_all(numbers: tuple[int, ...], target: int, operators: tuple[str, ...]) -> bool:
    """Whether no fewer of the numbers reach the target (by whole numbers above 0)."""
    fewer = (some for size in range(1, len(numbers)) for some in set(combinations(numbers, size)))
    return not any(target in reached(some, operators) for some in fewer)
