"""What keeps sympy from computing for ever: limits on the text, on what was read, and on the time.

A power of big numbers is one call into C that no signal interrupts, so it has to be refused before it is computed.
"""

from __future__ import annotations

import contextlib
import math
import re
import signal
import threading
from collections.abc import Iterator
from typing import Any

LONGEST = 300  # characters of an answer that math-verify gets to see
_DEEPEST = 8  # brackets inside one another
_MOST_BRACKETS = 24  # the grammar is ambiguous about them: its parser takes a minute for |x||x|... of 300 characters
_MOST_BARS = 8
_MOST_COMMAS = 40
_MOST_DIVISIONS = 8  # and the same with x/x/x/...
_MOST_PRIMES = 6
_MOST_DIGITS = 60  # in a row
_MOST_BITS = 20_000  # of any number on the way: 6,000 decimal digits
_MOST_NODES = 1_500
_MOST_EXPANDED = 60  # degree of a power of a sum
_BINOMIAL = re.compile(r"\\[dt]?binom")
_SMALL = r"\{\s*(?:\d{1,4}(?!\d)|[A-Za-z]|[-+]|\s){1,8}\}"
_SMALL_BINOMIAL = re.compile(rf"\\[dt]?binom\s*{_SMALL}\s*{_SMALL}")
_DOUBLE_SUBSCRIPT = re.compile(r"_\s*(?:\w\s*|\{[^{}]*)_")
#: x^x^x: the parser tries every way to read it, in time that doubles with each, and nothing may interrupt it
_TOWER = re.compile(r"\^\s*[-+]?\s*(?:\w|\\[A-Za-z]+|\{[^{}]*\}|\([^()]*\))(?:\s*_\s*(?:\w|\{[^{}]*\}))?[\s']*\^")
_DIVISION = re.compile(r"[/:]|\\(?:div|over)(?![a-zA-Z])")
_UNFINISHED = re.compile(
    r"\\(?:sum|prod|int|iint|oint|lim|gcd|lcm)(?![a-zA-Z])|\\choose"
    r"|\\frac\s*\{\s*(?:d(?:\s*\^\s*\{?\d\}?)?\s*[a-zA-Z]?|\\partial[^{}]*)\s*\}\s*\{\s*(?:d\s*[a-zA-Z]|\\partial)"
)
#: sympy classes that mean a computation rather than an answer
_COMPUTATIONS = frozenset({"Sum", "Product", "Integral", "Limit", "Derivative", "Subs"})
_EXPONENTIAL = frozenset({"exp", "sinh", "cosh", "tanh", "coth", "sech", "csch", "gamma"})


class OutOfTime(BaseException):
    """The deadline has passed. No Exception: math-verify and sympy catch those."""


def text_problem(text: str) -> str | None:
    """Why math-verify should not see this text; None when it may."""
    if len(text) > LONGEST:
        return f"an answer of {len(text):,} characters"
    if not text.isascii():
        return "characters that are neither ASCII nor known signs"
    if any(ord(character) < 32 and character not in "\n\t" for character in text):
        return "control characters"
    if re.search(rf"\d{{{_MOST_DIGITS + 1}}}", text):
        return f"a number of more than {_MOST_DIGITS} digits"
    depth = deepest = 0
    for character in text:
        depth += (character in "{[(") - (character in "}])")
        deepest = max(deepest, depth)
    if deepest > _DEEPEST:
        return f"brackets {deepest} deep"
    if len(_DIVISION.findall(text)) > _MOST_DIVISIONS or text.count("'") > _MOST_PRIMES:
        return "too many divisions or primes"
    if text.count("(") + text.count("[") > _MOST_BRACKETS or text.count("|") > _MOST_BARS:
        return "too many brackets"
    if text.count(",") > _MOST_COMMAS:
        return f"a list of more than {_MOST_COMMAS}"
    if len(_BINOMIAL.findall(text)) != len(_SMALL_BINOMIAL.findall(text)):
        return "a binomial coefficient of more than small numbers"
    if _DOUBLE_SUBSCRIPT.search(text):
        return "a subscript of a subscript"
    if _TOWER.search(text):
        return "a power of a power without braces"
    if found := _UNFINISHED.search(text):
        return f"a computation, not an answer: {found.group()}"
    return None


def tree_problem(expression: Any) -> str | None:
    """Why an expression, as math-verify read it and before anything was computed, should not be computed."""
    try:
        counter = [0]
        return None if _bits(expression, counter) <= _MOST_BITS else "a number too big to compute"
    except _Refused as refused:
        return str(refused)
    except RecursionError:
        return "an expression nested too deep"


def size_in_bits(expression: Any) -> float:
    """An upper bound for the binary digits of a number, before or after the point, that `tree_problem` lets pass."""
    return _bits(expression, [0])


class _Refused(Exception):
    pass


def _bits(node: Any, counter: list[int]) -> float:
    """An upper bound for the binary digits of a node's value, before or after the point; symbols count as small."""
    counter[0] += 1
    if counter[0] > _MOST_NODES:
        raise _Refused("an expression of too many parts")
    kind = type(node).__name__
    if kind in _COMPUTATIONS:
        raise _Refused(f"a computation, not an answer: {kind}")
    if getattr(node, "is_Matrix", False) and hasattr(node, "flat"):
        return max((_bits(part, counter) for part in node.flat()), default=1.0)
    if getattr(node, "is_Rational", False):
        return float(max(int(node.p).bit_length(), int(node.q).bit_length()))
    if getattr(node, "is_Float", False):
        return abs(float(node._mpf_[2] + node._mpf_[3])) + 64.0
    parts = [_bits(part, counter) for part in getattr(node, "args", ())]
    if not parts:
        return 4.0
    if max(parts) > _MOST_BITS:
        raise _Refused("a number too big to compute")
    if kind == "Pow":
        return _power_bits(node, parts)
    if kind in ("factorial", "factorial2", "subfactorial"):
        return _times(2.0 ** min(parts[0], 64.0), parts[0])
    if kind in _EXPONENTIAL:
        return _times(2.0, 2.0 ** min(parts[0], 64.0))
    if getattr(node, "is_Function", False) and parts[0] > 256:
        raise _Refused("a function of a huge number")
    return sum(parts) + 1.0 if kind in ("Mul", "MatMul", "binomial") else max(parts) + len(parts)


def _power_bits(node: Any, parts: list[float]) -> float:
    exponent = node.args[1]
    size = (
        abs(float(exponent))
        if getattr(exponent, "is_Rational", False) and parts[1] < 64
        else 2.0 ** min(parts[1], 64.0)
    )
    if node.args[0].free_symbols and not exponent.free_symbols:
        if not node.args[0].is_Symbol and _degree(node) > _MOST_EXPANDED:
            raise _Refused("a high power of a sum")
        return max(parts[0], parts[1])
    if node.free_symbols:
        return max(parts)
    return _times(parts[0], max(size, 1.0))


def _degree(node: Any) -> float:
    """The highest power of a symbol that multiplying everything out would give, roughly."""
    if getattr(node, "is_Symbol", False):
        return 1.0
    degrees = [_degree(part) for part in getattr(node, "args", ())]
    kind = type(node).__name__
    if kind == "Pow" and getattr(node.args[1], "is_Rational", False):
        return degrees[0] * abs(float(node.args[1]))
    return sum(degrees) if kind == "Mul" else max(degrees, default=0.0)


def _times(one: float, other: float) -> float:
    return min(one * other, math.inf)


_uninterrupted: list[bool] = []  # one for each such block that is running


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A block that a deadline around it waits for."""
    _uninterrupted.append(True)
    try:
        yield
    finally:
        _uninterrupted.pop()


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block once the process has computed for so long; outside the main thread do nothing.

    Computing time, so that a busy machine turns no right answer into a wrong one. A timer that ran goes on afterwards.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: Any) -> None:
        if not _uninterrupted:
            raise OutOfTime

    handler = signal.signal(signal.SIGVTALRM, stop)
    # Again and again, should one come inside a destructor or an uninterrupted block
    remaining, interval = signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        if remaining:
            signal.setitimer(signal.ITIMER_VIRTUAL, max(remaining - seconds, 0.001), interval)
