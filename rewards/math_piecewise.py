r"""Functions that are given by cases: `\begin{cases} x & x\ge0 \\ -x & \text{otherwise} \end{cases}` is `|x|`.

Two are the same when their cases are, in whatever order; else when they have the same values around every bound, at it
and far from it. Conditions may be sets of real numbers, congruences, 'n is even', and 'otherwise'.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from posttrain.rewards.math_judge import expression
from posttrain.rewards.math_names import EQUALS, is_name, key
from posttrain.rewards.math_periodic import Periodic, congruence
from posttrain.rewards.math_regions import bounds, region
from posttrain.rewards.math_text import cleaned, tidied
from posttrain.rewards.math_values import NoValue, value
from posttrain.rewards.math_words import normal_text

_LONGEST = 600  # characters
_MOST_PIECES = 6
_CASES = re.compile(
    r"(?:(?P<name>[^=\\&{}]{1,20}?)\s?=\s?)?(?:\\\{\s?)?\\begin\{(?P<kind>cases|array)\}(?:\s?\{[lcr|\s]*\})?"
    r"(?P<rows>(?:(?!\\begin|\\end).)*)\\end\{(?P=kind)\}",
    re.DOTALL,
)
_IF = re.compile(r"^\s*,?\s*(?:if|for|when|where|as)\b\s*|^\s*,\s*", re.IGNORECASE)
_OPENED = re.compile(r"\\text\s?\{([^{}]*)\}")
_CONDITION = re.compile(r"\\text\s?\{\s*,?\s*(?:if|for|when|where|otherwise|else|elsewhere)\b")
_OTHERWISE = re.compile(r"(?:otherwise|else|elsewhere|in all other cases|all other \$?[a-z]\$?)", re.IGNORECASE)
_PARITY = re.compile(
    r"(?:(?P<letter>[A-Za-z]) )?(?:is )?(?:an )?(?P<kind>even|odd)(?: integers?| numbers?)?(?: [a-z])?"
)
_VALUE = re.compile(r"^([A-Za-z])\s?=\s?([^=<>]+)$")
_WHOLE_LETTERS = frozenset("nkm")
_STEPS = ("1/1000", "1/7", "5/4", "19/5", "17", "211", "5003")
#: Where other letters are set, by their place in the alphabet
_OTHERS = tuple(f"0.{37 * place**2 % 9973:04}7" for place in range(3, 26))
_INTEGERS = 24
_APART = 1e-12
Same = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Piece:
    """A value and when it counts: a region or congruence, or a text; `otherwise` is the text of what is left."""

    value: str
    text: str
    numbers: Any = None
    period: Periodic | None = None
    letter: str | None = None


class _NotComparable(Exception):
    """A condition that cannot be tried at a point."""


def same_piecewise(gold: str, said: str, same: Same) -> bool | None:
    """Whether two functions given by cases, or one and a formula, are the same; None where neither has cases."""
    if "\\begin" not in gold and "\\begin" not in said:
        return None
    ours, theirs = piecewise(gold), piecewise(said)
    if ours is None and theirs is None:
        return None
    (name, mine), (other, yours) = ours or _formula(gold), theirs or _formula(said)
    if name and other and name != other:
        return False
    if len(mine) == len(yours) and _same_pieces(mine, yours, same):
        return True
    try:
        return _same_values(mine, yours)
    except _NotComparable:
        return False


@functools.lru_cache(maxsize=256)
def piecewise(text: str) -> tuple[str | None, tuple[Piece, ...]] | None:
    """The name of a function and its cases; None where a text gives none by cases."""
    if len(text) > _LONGEST or "\\begin" not in text or not ("&" in text or "\\text" in text):
        return None
    match = _CASES.fullmatch(" ".join(tidied(text).split()).rstrip(" .,;"))
    if match is None or (match["name"] and not is_name(match["name"].strip())):
        return None
    rows = [row.strip() for row in re.split(r"\\\\(?:\[[^\]]*\])?", match["rows"])]
    pieces = [_piece(row) for row in rows if row]
    if not 1 < len(pieces) <= _MOST_PIECES or None in pieces:
        return None
    known = tuple(piece for piece in pieces if piece is not None)
    if len({piece.letter for piece in known if piece.letter}) > 1:
        return None
    return (key(match["name"]) if match["name"] else None), known


def _piece(row: str) -> Piece | None:
    cells = [cell.strip() for cell in row.split("&")]
    if len(cells) == 1 and (found := _CONDITION.search(row)):
        cells = [row[: found.start()].strip(), row[found.start() :]]
    if len(cells) != 2 or not all(cells):
        return None
    amount, condition = cells[0].rstrip(" ,"), cells[1]
    if EQUALS.search(amount) or re.match(r"=|<|>|\\[lg]e(?![a-z])", condition):
        return None  # a system of equations
    flat = " ".join(_OPENED.sub(r" \1 ", condition).replace("$", " ").split()).strip(" ,.;")
    while (shorter := _IF.sub("", flat)) != flat:
        flat = shorter
    if _OTHERWISE.fullmatch(flat):
        return Piece(amount, "otherwise")
    if match := _PARITY.fullmatch(flat):
        period = congruence(f"{int(match['kind'] == 'odd')} \\pmod 2")
        return Piece(amount, match["kind"], period=period, letter=match["letter"])
    if (period := congruence(flat)) is not None:
        return Piece(amount, flat, period=period, letter=period.name)
    if (numbers := region(_VALUE.sub(r"\1 \\in \\{\2\\}", flat))) is not None and numbers.names:
        return Piece(amount, flat, numbers=numbers.numbers, letter=next(iter(numbers.names)))
    return Piece(amount, normal_text(flat)) if re.search(r"[A-Za-z]{2}|[<>=]|\\", flat) else None


def _formula(text: str) -> tuple[str | None, tuple[Piece, ...]]:
    name, *sides = (side.strip() for side in EQUALS.split(cleaned(text).math))
    if len(sides) == 1 and is_name(name):
        return key(name), (Piece(sides[0], "otherwise"),)
    return None, (Piece(cleaned(text).math, "otherwise"),)


def _same_pieces(ours: tuple[Piece, ...], theirs: tuple[Piece, ...], same: Same) -> bool:
    left = list(theirs)
    for one in ours:
        found = next((other for other in left if _same_condition(one, other) and same(one.value, other.value)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _same_condition(one: Piece, other: Piece) -> bool:
    if one.letter and other.letter and one.letter != other.letter:
        return False
    if one.period or other.period:
        return one.period is not None and other.period is not None and _periods(one) == _periods(other)
    return one.text == other.text or (one.numbers is not None and one.numbers == other.numbers)


def _periods(piece: Piece) -> tuple[Any, Any]:
    assert piece.period is not None
    return piece.period.step, piece.period.starts


def _same_values(ours: tuple[Piece, ...], theirs: tuple[Piece, ...]) -> bool:
    from mpmath import mp

    letters = {piece.letter for piece in (*ours, *theirs) if piece.letter}
    if len(letters) != 1:
        raise _NotComparable
    letter = letters.pop()
    mine, yours = ([(expression(cleaned(piece.value).math), piece) for piece in each] for each in (ours, theirs))
    seen = 0
    with mp.workdps(30):
        for point in _points([*mine, *yours], letter):
            one, other = _at(mine, point, letter), _at(yours, point, letter)
            if (one is None) != (other is None):
                return False
            if one is None or other is None:
                continue
            if abs(one - other) > _APART * max(abs(one), abs(other), 1):
                return False
            seen += 1
    return seen > 2


def _points(pieces: list[tuple[Any, Piece]], letter: str) -> Iterator[Any]:
    """Numbers at the bounds of the conditions, beside them and far from them; integers where only those may count."""
    from sympy import Integer, Rational, ceiling, floor

    periods = [int(piece.period.step) for _, piece in pieces if piece.period is not None]
    if any(period > _INTEGERS for period in periods):
        raise _NotComparable
    ends = {end for read, piece in pieces for end in [*bounds(piece.numbers), *_kinks(read, letter)]}
    if periods:
        yield from (Integer(number) for number in range(1, 2 * _INTEGERS))
    elif letter in _WHOLE_LETTERS:
        low, high = (floor(min(ends)), ceiling(max(ends))) if ends else (1, 1)
        yield from (Integer(number) for number in range(int(low), min(int(high), int(low) + _INTEGERS) + 9))
    else:
        for end in ends or {Integer(0)}:
            yield end
            for step in _STEPS:
                yield from (end - Rational(step), end + Rational(step))


def _kinks(read: Any, letter: str) -> Iterator[Any]:
    """Where the bars of absolute values and the like have a corner."""
    from sympy import Abs, Max, Min

    for node in read.atoms(Abs, Max, Min):
        line = node.args[0] - (node.args[1] if len(node.args) > 1 else 0)
        symbol = next((one for one in line.free_symbols if str(one) == letter), None)
        if symbol is not None and line.free_symbols == {symbol} and (step := line.diff(symbol)).is_Rational and step:
            yield (symbol - line / step).expand()


def _at(pieces: list[tuple[Any, Piece]], point: Any, letter: str) -> Any | None:
    """The value of a function at a point; None where it has none."""
    from mpmath import mp
    from sympy import N

    # What holds otherwise may stand anywhere
    ordered = sorted(pieces, key=lambda each: each[1].text == "otherwise")
    read = next((read for read, piece in ordered if _holds(piece, point)), None)
    if read is None:
        return None
    at = {one: mp.mpf(_OTHERS[ord(str(one)[0]) % len(_OTHERS)]) / len(str(one)) for one in read.free_symbols}
    at |= {one: mp.mpf(str(N(point, 30))) for one in read.free_symbols if str(one) == letter}
    try:
        return value(read, at)
    except NoValue:
        return None


def _holds(piece: Piece, point: Any) -> bool:
    if piece.text == "otherwise":
        return True  # it is asked last
    if piece.period is not None:
        return bool(point.is_Integer) and any(
            (int(point) - start) % piece.period.step == 0 for start in piece.period.starts
        )
    if piece.numbers is None:
        raise _NotComparable
    inside = piece.numbers.contains(point)
    if inside not in (True, False):
        raise _NotComparable
    return bool(inside)
