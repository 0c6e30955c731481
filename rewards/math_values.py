"""The value of an expression at a point, over the reals as a school book means them, with as many digits as asked for.

A square root or a logarithm of a negative number is none, and the cube root of -8 is -2. Where the imaginary unit is in
the expression, powers and logarithms have their complex principal values instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_MOST_BITS = 100_000  # of a number on the way
_MOST_FACTORIAL = 20_000


class NoValue(ArithmeticError):
    """There is none at this point, or it is too big to compute."""


def value(node: Any, point: Mapping[Any, Any], *, over_complex: bool = False) -> Any:
    """The value of a sympy expression as a number of mpmath, in mpmath's current precision.

    Args:
        node: The expression.
        point: A value for each symbol.
        over_complex: The expression is about complex numbers.

    Raises:
        NoValue: There is none.
    """
    from mpmath import mp

    kind = type(node).__name__
    if node.is_Symbol:
        if node not in point:
            raise NoValue
        return point[node]
    if node.is_Rational:
        return mp.mpf(int(node.p)) / int(node.q)
    if kind in _CONSTANTS:
        return _CONSTANTS[kind](mp)
    inside = [value(part, point, over_complex=over_complex) for part in node.args]
    if kind == "Pow":
        return _power(mp, *inside, exponent=node.args[1], over_complex=over_complex)
    if kind == "exp":
        return _power(mp, mp.e, inside[0], exponent=node.args[0], over_complex=over_complex)
    function = _FUNCTIONS.get(kind)
    if function is None:
        raise NoValue
    try:
        result = function(mp, *inside)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError) as error:
        raise NoValue from error
    if not mp.isfinite(result):
        raise NoValue
    # A logarithm or an arc sine that left the reals
    if not over_complex and isinstance(result, mp.mpc) and not any(isinstance(one, mp.mpc) for one in inside):
        raise NoValue
    return result


def _power(mp: Any, base: Any, power: Any, *, exponent: Any, over_complex: bool) -> Any:
    if base == 0:
        if mp.re(power) < 0:
            raise NoValue
        return mp.mpf(power == 0)
    if abs(power) * (abs(mp.log(abs(base), 2)) + 1) > _MOST_BITS:
        raise NoValue
    if isinstance(power, mp.mpf) and power == int(power):
        return base ** int(power)
    if not over_complex and isinstance(base, mp.mpf) and base < 0:
        if exponent.is_Rational or (exponent.is_number and (exponent := exponent.doit()).is_Rational):
            if exponent.q % 2 == 0:
                raise NoValue
            return (-1) ** int(exponent.p) * (-base) ** power
        raise NoValue
    return base**power


def _factorial(mp: Any, number: Any) -> Any:
    if abs(number) > _MOST_FACTORIAL:
        raise NoValue
    return mp.factorial(number)


def _binomial(mp: Any, top: Any, bottom: Any) -> Any:
    if abs(top) > _MOST_FACTORIAL or abs(bottom) > _MOST_FACTORIAL:
        raise NoValue
    return mp.binomial(top, bottom)


def _modulo(mp: Any, one: Any, other: Any) -> Any:
    return one - other * mp.floor(one / other)


def _plain(name: str) -> Callable[..., Any]:
    return lambda mp, number: getattr(mp, name)(number)


_CONSTANTS: dict[str, Callable[[Any], Any]] = {
    "Pi": lambda mp: +mp.pi,
    "Exp1": lambda mp: +mp.e,
    "ImaginaryUnit": lambda mp: mp.mpc(0, 1),
    "EulerGamma": lambda mp: +mp.euler,
    "GoldenRatio": lambda mp: +mp.phi,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": lambda mp, *parts: mp.fsum(parts),
    "Mul": lambda mp, *parts: mp.fprod(parts),
    "UnevaluatedExpr": lambda mp, inside: inside,
    "Abs": lambda mp, number: abs(number),
    "sign": _plain("sign"),
    "floor": _plain("floor"),
    "ceiling": _plain("ceil"),
    "Max": lambda mp, *parts: max(parts),
    "Min": lambda mp, *parts: min(parts),
    "Mod": _modulo,
    "log": lambda mp, number, *base: mp.log(number, *base),
    "factorial": _factorial,
    "binomial": _binomial,
    "gamma": lambda mp, number: _factorial(mp, number - 1),
    "re": _plain("re"),
    "im": _plain("im"),
    "conjugate": _plain("conj"),
    **{
        name: _plain(name)
        for kind in ("sin", "cos", "tan", "cot", "sec", "csc")
        for name in (kind, f"a{kind}", f"{kind}h", f"a{kind}h")
    },
}
