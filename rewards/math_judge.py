"""What math-verify says about two answers, inside limits, and with the holes closed that we know of."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Sequence
from typing import Any

from posttrain.errors import RewardError
from posttrain.rewards.math_guard import text_problem, tree_problem, uninterrupted
from posttrain.rewards.math_numbers import PLACES, plain_number, rounding
from posttrain.rewards.math_numeric import same_values
from posttrain.rewards.math_reading import readable

_TWO_NUMBERS = re.compile(r"\d(?:\s+|\s*\{\s*)\d")

_NUMBER_WITH_SUBSCRIPT = re.compile(r"\d\s*_")


class Unreadable(Exception):
    """An answer that makes no sense to math-verify, with the reason as its text."""


def shown(text: str) -> str:
    """A text cut to a length that fits a note."""
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def verified(gold: str, said: str) -> bool:
    """What their values say, else what math-verify says, after our limits, with the holes closed that we know of."""
    ours, theirs = expression(gold), expression(said)
    same = same_values(ours, theirs)
    if same is not None:
        return same
    places = rounding(plain_number(gold), plain_number(said))
    same = _verify(ours, theirs, places)
    if not same and any(_imaginary(expression) for expression in (ours, theirs)):
        same = _verify(_with_imaginary(ours), _with_imaginary(theirs), places)
    return same and not _both_unsolvable(ours, theirs)


def _verify(gold: Any, said: Any, places: int) -> bool:
    from math_verify import verify

    return bool(verify([gold], [said], float_rounding=places, allow_set_relation_comp=True, timeout_seconds=None))


@functools.cache
def load() -> None:
    """Import math-verify and read something with it, which takes the better part of a second the first time.

    Raises:
        RewardError: It cannot read even that. An import that was cut short leaves it so for the rest of the process.
    """
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time limit is off
    readings = [_read(text) for text in ("x+1", r"(1+x)^{1}", r"\frac{1}{2}\sqrt{x}")]
    # A first comparison also imports what sympy simplifies with
    if None in readings or not _verify(readings[0], readings[1], PLACES) or _verify(readings[0], readings[2], PLACES):
        raise RewardError(
            "math-verify does not work",
            expected="that it knows x+1 from others",
            where="reward math_answer",
            fix="reinstall it",
        )


def forget() -> None:
    """Drop what sympy and we keep between calls: a computation that was cut short may have left it half done."""
    from sympy.core.cache import clear_cache

    clear_cache()
    _read.cache_clear()


@functools.lru_cache(maxsize=1024)
def _read(text: str) -> Any:
    from latex2sympy2_extended import NormalizationConfig
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
    from latex2sympy2_extended.math_normalization import normalize_latex
    from math_verify.grader import should_treat_as_complex

    # Units are off already, and its own list of them takes the t off 2t; arguments are in braces already
    normal = normalize_latex(text, NormalizationConfig(units=False, malformed_operators=False, boxed="none"))
    with uninterrupted():  # its parser keeps tables that have to stay whole; `text_problem` bounds the time
        try:
            return latex2sympy(
                normal,
                is_real=not should_treat_as_complex(normal),
                convert_degrees=True,
                normalization_config=None,
                conversion_config=ConversionConfig(lowercase_symbols=False),  # R^2-r^2 is not 0
            )
        except Exception:  # it raises what it likes
            return None


def expression(text: str) -> Any:
    """What math-verify reads, not computed yet.

    Raises:
        Unreadable: It reads nothing, or what is there is too big to compute.
    """
    load()
    problem = text_problem(text)
    text = text if problem else readable(text)
    if problem is None and _TWO_NUMBERS.search(text):
        problem = "two numbers side by side"
    if problem is None and _NUMBER_WITH_SUBSCRIPT.search(text):
        problem = "a number with a subscript"  # math-verify would drop it
    if problem is None and "\\text" in text:
        problem = "words among the mathematics"
    if problem is not None:
        raise Unreadable(problem)
    expression = _read(text)
    if expression is None:
        raise Unreadable(f"no mathematics in {shown(text)!r}")
    problem = tree_problem(expression)
    if problem is not None:
        raise Unreadable(problem)
    return expression


def _symbols(expression: Any) -> Sequence[Any]:
    return list(getattr(expression, "free_symbols", ()))


def _imaginary(expression: Any) -> bool:
    return any(symbol.name == "i" for symbol in _symbols(expression))


def _with_imaginary(expression: Any) -> Any:
    """With `i` as the imaginary unit; math-verify leaves it a symbol."""
    from sympy import I

    try:
        return expression.subs({symbol: I for symbol in _symbols(expression) if symbol.name == "i"})
    except Exception:  # sympy raises what it likes, and then nothing is gained
        return expression


def _both_unsolvable(gold: Any, said: Any) -> bool:
    """Two equations without a solution: math-verify compares their empty lists of solutions and calls them equal."""
    from sympy import Eq, simplify, solve

    if not (isinstance(gold, Eq) and isinstance(said, Eq)) or gold == said:
        return False
    try:
        if solve(gold, list(gold.free_symbols)):
            return False
        ratio = simplify((gold.lhs - gold.rhs) / (said.lhs - said.rhs))
        return not (ratio.is_number and ratio.is_nonzero)
    except Exception:  # nothing shows that they are equal
        return True
