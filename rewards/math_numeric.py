"""Tells two expressions apart by their values, before sympy is asked to simplify their difference."""

from __future__ import annotations

from typing import Any

#: Where symbols are set, one after the other in the order of their names: numbers without a simple relation
_POINTS = (0.7390851, 0.4142135, 0.6180339, 0.2360679, 0.8414709, 0.3678794, 0.5671432, 0.9159655)
_MOST_SYMBOLS = 8
_APART = 1e-4  # of the larger value, or of 1: far from what rounding does


def differ_in_numbers(gold: Any, said: Any) -> bool:
    """True when both are plain expressions and their values differ at a point; False when that shows nothing.

    Most wrong answers end here, in milliseconds; what is left goes to math-verify. A single symbol is left to it,
    since it reads the letters of a word as a product, and `i`, which may be a symbol or the imaginary unit.
    """
    from sympy import Expr, Symbol

    if not all(isinstance(one, Expr) and not isinstance(one, Symbol) for one in (gold, said)):
        return False
    symbols = sorted(gold.free_symbols | said.free_symbols, key=str)
    if len(symbols) > _MOST_SYMBOLS or any(symbol.name.lower() in ("i", "e") for symbol in symbols):
        return False
    try:
        point = dict(zip(symbols, _POINTS, strict=False))
        values = [complex(one.evalf(15, subs=point)) for one in (gold, said)]
        size = max(1.0, *map(abs, values))
        return abs(values[0] - values[1]) > _APART * size  # False for NaN
    except Exception:  # no number comes out: sets, undefined functions, poles
        return False
