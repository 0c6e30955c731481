"""Compares two expressions by their values: numbers to more digits than they could differ in, formulas at points.

Numbers without a decimal point are compared to as many digits as their size allows them to differ in. A decimal equals
what it rounds to at 6 places, and smaller numbers have at least 4 digits that count.

Formulas are equal when they agree wherever the gold one has a real value: with all letters positive, and with each
letter negative in turn. So `\\sqrt{ab}` is `\\sqrt{a}\\sqrt{b}`: with one of them negative neither has a value. But
`|x|` is not `x`, nor `\\ln(x^2)` `2\\ln x`. A letter in a power of a negative number, or in a binomial coefficient or
factorial, may stand for integers only: `(-1)^{2n}` is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from posttrain.rewards.math_guard import size_in_bits
from posttrain.rewards.math_numbers import PLACES
from posttrain.rewards.math_values import NoValue, value

#: Where letters are set, one after the other in the order of their names: numbers without a simple relation
_POINTS = ("0.7390851", "0.4142136", "0.6180339", "0.2360679", "0.8414709", "0.3678794", "0.5671432", "0.9159655")
_SCALES = (1, 3, 17, 211, 5003)  # what looks like |x - 10| near 0 does not far out
_SMALL_SCALES = (1, 2, 3, 4)  # of a letter in an exponent
_INTEGERS = (1, 2, 3, 5, 8)
_MOST_LETTERS = 8
_DIGITS = 30
_SPARE = 10  # digits computed beyond those compared
_APART = 1e-12  # of the larger value
_NOTHING = 1e-60  # a difference of less is what computing leaves of 0
_KEPT = {True: 6, False: 4}  # digits of a small number that count: both are decimals, or one is
#: sympy classes that have another formula to the left and to the right of some point, where no point may have been
_PIECEWISE = ("Abs", "floor", "ceiling", "Max", "Min", "Mod", "sign", "Piecewise")
_OF_INTEGERS = ("binomial", "factorial", "factorial2", "subfactorial")

Point = Mapping[Any, Any]


def same_values(gold: Any, said: Any) -> bool | None:
    """Whether two expressions, not computed yet, have the same value; None where their values don't tell.

    What may be two words is left to math-verify, which reads the letters of a word as a product.
    """
    from mpmath import mp
    from sympy import Expr

    if not all(isinstance(one, Expr) for one in (gold, said)) or (_may_be_a_word(gold) and _may_be_a_word(said)):
        return None
    ours, theirs = _exact(gold), _exact(said)
    letters = sorted(ours.free_symbols | theirs.free_symbols, key=str)
    if len(letters) > _MOST_LETTERS:
        return None
    digits = _DIGITS if letters else _DIGITS + int(0.302 * max(size_in_bits(ours), size_in_bits(theirs)))
    with mp.workdps(digits + _SPARE):
        if letters:
            return _same_formula(ours, theirs, letters)
        return _same_number(ours, theirs, digits, [bool(_floats(one)) for one in (gold, said)])


def _may_be_a_word(expression: Any) -> bool:
    return bool(expression.is_Symbol or (expression.is_Mul and all(part.is_Symbol for part in expression.args)))


def _exact(expression: Any) -> Any:
    """With decimals as fractions, `i` as the imaginary unit and `e` as Euler's number."""
    from sympy import E, I, Rational

    constants = {"i": I, "e": E}
    swaps = {one: Rational(str(one)) for one in _floats(expression)}
    swaps |= {one: constants[one.name] for one in expression.free_symbols if one.name in constants}
    return expression.xreplace(swaps) if swaps else expression


def _floats(expression: Any) -> set[Any]:
    from sympy import Float

    return set(expression.atoms(Float))


def _has(expression: Any, *kinds: str) -> bool:
    from sympy import preorder_traversal

    return any(type(node).__name__ in kinds for node in preorder_traversal(expression))


def _same_number(gold: Any, said: Any, digits: int, decimals: list[bool]) -> bool | None:
    from mpmath import mp

    over_complex = _has(gold, "ImaginaryUnit") or _has(said, "ImaginaryUnit")
    try:
        ours, theirs = (value(one, {}, over_complex=over_complex) for one in (gold, said))
    except NoValue:
        return None
    apart, size = abs(ours - theirs), max(abs(ours), abs(theirs))
    if not any(decimals):
        return bool(apart <= size * mp.mpf(10) ** -digits)
    smallest = min((abs(one) for one in (ours, theirs) if one), default=mp.mpf(1))
    zeros = int(-mp.floor(mp.log10(smallest))) - 1  # after the point
    shift = mp.mpf(10) ** max(PLACES, zeros + _KEPT[all(decimals)] if zeros > 0 else PLACES)
    return bool(mp.nint(mp.re(ours) * shift) == mp.nint(mp.re(theirs) * shift)) and bool(
        mp.nint(mp.im(ours) * shift) == mp.nint(mp.im(theirs) * shift)
    )


def _same_formula(gold: Any, said: Any, letters: list[Any]) -> bool | None:
    exponents = _letters_in_exponents(gold) | _letters_in_exponents(said)
    verdict = _agree(gold, said, _points(letters, exponents))
    if verdict is None and (whole := _integer_letters(gold) | _integer_letters(said)):
        verdict = _agree(gold, said, _points_of_integers(letters, whole))
    if verdict and any(_has(one, *_PIECEWISE) for one in (gold, said)):
        return None  # a point may have been missed
    return verdict


def _agree(gold: Any, said: Any, points: Iterator[Point]) -> bool | None:
    """False where they differ at a point, True where they never do and the gold one has a value often enough."""
    over_complex = _has(gold, "ImaginaryUnit") or _has(said, "ImaginaryUnit")
    seen, lacking = 0, False
    for point in points:
        try:
            ours = value(gold, point, over_complex=over_complex)
        except NoValue:
            continue
        try:
            theirs = value(said, point, over_complex=over_complex)
        except NoValue:
            lacking = True
            continue
        if abs(ours - theirs) > _APART * max(abs(ours), abs(theirs)) + _NOTHING:
            return False
        seen += 1
    return True if seen >= len(_SMALL_SCALES) and not lacking else None


def _points(letters: list[Any], exponents: set[Any]) -> Iterator[Point]:
    base = _base()
    for step, scale in enumerate(_SCALES):
        yield {
            letter: base[(index + step) % len(base)] * (_SMALL_SCALES[step % 4] if letter in exponents else scale)
            for index, letter in enumerate(letters)
        }
    for negative in letters:
        for size in (1, 4):
            yield {
                letter: base[index] * (-size if letter == negative else size) for index, letter in enumerate(letters)
            }


def _points_of_integers(letters: list[Any], whole: set[Any]) -> Iterator[Point]:
    from mpmath import mp

    base = _base()
    for step, number in enumerate(_INTEGERS):
        yield {
            letter: mp.mpf(number + index) if letter in whole else base[(index + step) % len(base)]
            for index, letter in enumerate(letters)
        }


def _base() -> list[Any]:
    from mpmath import mp

    return [mp.mpf(one) for one in _POINTS]


def _letters_in_exponents(expression: Any) -> set[Any]:
    from sympy import Pow, exp, preorder_traversal

    found: set[Any] = set()
    for node in preorder_traversal(expression):
        if isinstance(node, (Pow, exp)):
            found |= node.args[-1].free_symbols
        elif type(node).__name__ in _OF_INTEGERS:
            found |= node.free_symbols
    return found


def _integer_letters(expression: Any) -> set[Any]:
    from sympy import Pow, preorder_traversal

    found: set[Any] = set()
    for node in preorder_traversal(expression):
        if isinstance(node, Pow) and node.base.is_negative:
            found |= node.exp.free_symbols
        elif type(node).__name__ in _OF_INTEGERS:
            found |= node.free_symbols
    return found
