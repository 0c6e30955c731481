"""Equations and inequalities in several letters: the same when the same values fulfil them, whatever is solved for."""

from __future__ import annotations

import re
from typing import Any

from posttrain.rewards.math_judge import expression, verified
from posttrain.rewards.math_names import EQUALS, is_name
from posttrain.rewards.math_numeric import same_values

_RELATION = re.compile(r"(\\(?:le|ge|lt|gt)(?![a-zA-Z])|<=|>=|<|>)")
_LESS = {"<": "<", "\\lt": "<", "<=": "<=", "\\le": "<="}
_GREATER = {">": "<", "\\gt": "<", ">=": "<=", "\\ge": "<="}
_MOST_LETTERS = 6
_MOST_TERMS = 8  # of a chain


def same_equation(gold: str, said: str) -> bool | None:
    """Whether two equations have the same solutions in the same letters; None where one is no single equation."""
    ours, theirs = _sides(gold), _sides(said)
    if ours is None or theirs is None:
        return None
    one, other = (left - right for left, right in (ours, theirs))
    if one.free_symbols != other.free_symbols or not 0 < len(one.free_symbols) <= _MOST_LETTERS:
        return False
    if same_values(one, other) or same_values(one, -other):
        return True
    factors = _factors(one), _factors(other)
    if None not in factors:
        return factors[0] == factors[1]
    return _same_up_to_factor(one, other) or _solved_alike(ours, theirs) or _solved_alike(theirs, ours)


def same_inequality(gold: str, said: str) -> bool | None:
    """Whether two inequalities differ by a positive factor only; None where one is no single inequality."""
    ours, theirs = _difference(gold), _difference(said)
    if ours is None or theirs is None:
        return None
    (sign, one), (other_sign, other) = ours, theirs
    if sign != other_sign or one.free_symbols != other.free_symbols or not one.free_symbols:
        return False
    ratio = _ratio(one, other)
    return ratio is not None and bool(ratio.is_positive)


def same_chain(gold: str, said: str) -> bool | None:
    """Whether two chains such as `a<b<c` and `c>b>a` are the same; None where one is no chain of one direction."""
    ours, theirs = _chain(gold), _chain(said)
    if ours is None or theirs is None:
        return None
    return ours[1] == theirs[1] and all(
        ends[0] == ends[1] or verified(*ends) for ends in zip(ours[0], theirs[0], strict=True)
    )


def _chain(text: str) -> tuple[list[str], list[str]] | None:
    """The terms from the least on, and `<` or `<=` between them."""
    parts = [part.strip() for part in _RELATION.split(text)]
    terms, signs = parts[::2], parts[1::2]
    if not 3 <= len(terms) <= _MOST_TERMS or not all(terms):
        return None
    if all(sign in _LESS for sign in signs):
        return terms, [_LESS[sign] for sign in signs]
    if all(sign in _GREATER for sign in signs):
        return terms[::-1], [_GREATER[sign] for sign in signs][::-1]
    return None


def _sides(text: str) -> tuple[Any, Any] | None:
    from sympy import Expr

    parts = [part.strip() for part in EQUALS.split(text)]
    if len(parts) != 2 or not all(parts):
        return None
    sides = [_exact(expression(part)) for part in parts]
    return (sides[0], sides[1]) if all(isinstance(side, Expr) for side in sides) else None


def _difference(text: str) -> tuple[str, Any] | None:
    """`<` or `<=`, and what is less than 0."""
    from sympy import Expr

    parts = [part.strip() for part in _RELATION.split(text)]
    if len(parts) != 3 or not all(parts):
        return None
    left, right = (_exact(expression(part)) for part in (parts[0], parts[2]))
    if not isinstance(left, Expr) or not isinstance(right, Expr):
        return None
    return (_LESS[parts[1]], left - right) if parts[1] in _LESS else (_GREATER[parts[1]], right - left)


def _exact(one: Any) -> Any:
    from sympy import Float, Rational

    return one.xreplace({number: Rational(str(number)) for number in one.atoms(Float)}).doit()


def _factors(difference: Any) -> frozenset[Any] | None:
    """The different factors of a polynomial that is to be 0, each with a leading coefficient of 1; None for others."""
    from sympy import PolynomialError, fraction, together
    from sympy.polys import factor_list

    top = fraction(together(difference))[0]
    letters = sorted(top.free_symbols, key=str)
    if not letters or not top.is_polynomial(*letters):
        return None
    try:
        return frozenset(factor.monic().as_expr() for factor in _polys(factor_list(top, *letters)[1], letters))
    except PolynomialError:
        return None


def _polys(found: list[tuple[Any, int]], letters: list[Any]) -> list[Any]:
    from sympy import Poly

    return [Poly(factor, *letters) for factor, _ in found]


def _ratio(one: Any, other: Any) -> Any | None:
    from sympy import simplify

    ratio = simplify(one / other)
    return ratio if ratio.is_number and ratio.is_finite and ratio != 0 else None


def _same_up_to_factor(one: Any, other: Any) -> bool:
    return _ratio(one, other) is not None


def _solved_alike(solved: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    """Whether an equation that says what a letter is says so of the other equation's only solution for it."""
    from sympy import solve

    letter, solution = solved
    if not letter.is_Symbol or letter in solution.free_symbols:
        return False
    try:
        found = solve(other[0] - other[1], letter)
    except NotImplementedError:
        return False
    return len(found) == 1 and (found[0] == solution or same_values(found[0], solution) is True)


def is_equation(text: str, other: str) -> bool:
    """Whether a text says how several letters depend on each other, rather than what one of them is.

    `xy=6` does when the other answer has both letters as well; else `xy` may be the name of something.
    """
    parts = [part.strip() for part in EQUALS.split(text)]
    if len(parts) != 2 or not all(parts):
        return False
    letters = _letters(text)
    return (
        not is_name(parts[0])
        or len(_letters(text, alone=True)) > 1
        or (len(letters) > 1 and letters == _letters(other))
    )


def _letters(text: str, *, alone: bool = False) -> set[str]:
    bare = re.sub(r"\\text\s*\{[^{}]*\}|\\[A-Za-z]+", " ", text)
    return set(re.findall(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])" if alone else "[A-Za-z]", bare)) - {"e", "i"}
