r"""Numbers that come again and again: `x \equiv 3 \pmod 7` is `x=7k+3`, and `(-1)^k\frac{\pi}{6}+k\pi` two families.

A congruence, and a family whose letter is any integer, are sets of numbers with a period; so are several of them side
by side, and `\{2k+1 \mid k\in\mathbb{Z}\}`. A gold answer is such a set where it says so: by a congruence, by
`k\in\mathbb{Z}`, or by a multiple of `\pi` with one of the usual letters (k, n, m). `2n+1` alone is a formula.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import Any

from posttrain.rewards.math_families import unqualified
from posttrain.rewards.math_judge import Unreadable, expression
from posttrain.rewards.math_names import EQUALS, is_name, key
from posttrain.rewards.math_shape import shape
from posttrain.rewards.math_text import cleaned, tidied

_LONGEST = 300  # characters
_MOST_STARTS = 2_000
_MOST_PARTS = 12
_TRIGGER = re.compile(r"\\equiv|\u2261|mod|\\in(?![a-z])|\u2208|integer|\\pi(?![a-z])|\u03c0|\\circ|\u00b0")
_NAME = r"(?:(?P<name>[A-Za-z](?:_\{?\w\}?)?)\s?(?P<not>\\not\s?|\\n(?=equiv))?\\?equiv\s?)?"
_MODULUS = r"(?:\\[bp]?mod(?![a-z])|\(\s?\\?mod|\\text\{\s?\(?\s?mod(?:ulo)?\s?\}|,?\s?mod(?:ulo)?(?![a-z]))"
_CONGRUENCE = re.compile(
    rf"{_NAME}(?P<residues>[-+]?\s?\d{{1,9}}(?:\s?,\s?[-+]?\s?\d{{1,9}}){{0,11}}),?\s?\(?\s?{_MODULUS}"
    r"[\s{(]{0,3}(?P<modulus>\d{1,6})[\s)}]{0,4}"
)
_BUILDER = re.compile(
    r"\\\{\s?(?:(?P<bound>[A-Za-z])(?:\s?\\in\s?\\mathbb\s?\{?\s?[ZR]\s?\}?)?\s?(?:\\mid(?![a-z])|\||:)\s?(?P=bound)\s?=)?"
    r"(?P<body>[^|:=]{1,120}?)(?P<end>\s?(?:\\mid(?![a-z])|\||:|,)\s?(?P<letter>[A-Za-z](?:\s?,\s?[A-Za-z])?)\s?"
    r"\\in\s?\\mathbb\s?\{?\s?[NZQRC]\s?\}?[^|:=]{0,12}?)\s?\\\}"
)
_OTHER_RANGE = re.compile(
    r"\\mathbb\s?\{?\s?(?:[NQRC]|Z\s?\}?\s?[\^_])|positive|natural|negative|\\(?:ge|le|ne)(?![a-z])|[<>]"
)
_STATED_RANGE = re.compile(r"\\in(?![a-z])|\u2208|integer")
_USUAL = frozenset("knm")
_MORE = frozenset("tjlpqrs")


@dataclass(frozen=True, slots=True)
class Periodic:
    """All numbers `unit * (start + step * k)`, for each of the starts and any integer k."""

    unit: str
    step: Fraction
    starts: frozenset[Fraction]
    name: str | None = None


def same_periodic(gold: str, said: str) -> bool | None:
    """Whether two answers are the same numbers with a period; None where the gold answer or both say nothing of it."""
    if max(len(gold), len(said)) > _LONGEST or not (_TRIGGER.search(gold) or _TRIGGER.search(said)):
        return None
    congruences = [congruence(text) for text in (gold, said)]
    stated = congruences[0] is not None or (congruences[1] is None and bool(_STATED_RANGE.search(gold)))
    try:
        ours = congruences[0] or family(gold, _USUAL if congruences[1] or not stated else _USUAL | _MORE)
        if ours is None:
            return None if congruences[1] is None else False
        theirs = congruences[1] or family(said, _USUAL | (_MORE if stated else frozenset()))
    except (Unreadable, TypeError, AttributeError, ValueError):
        ours = theirs = None
    if ours is None or theirs is None:
        return False if any(congruences) else None
    if not any(congruences) and not stated and "1" in (ours.unit, theirs.unit):
        return None  # 2n+1, and nothing is said about n
    if ours.name and theirs.name and ours.name != theirs.name:
        return False
    return _same(ours, theirs)


def without_builder(text: str) -> str:
    r"""`2k+1, k\in\mathbb{Z}` for `\{2k+1 \mid k\in\mathbb{Z}\}`; other texts as they are."""
    if len(text) > _LONGEST or ("\\in" not in text and "\u2208" not in text):
        return text
    flat = " ".join(tidied(text).split()).rstrip(" .,;")
    match = _BUILDER.fullmatch(flat)
    if match is None or is_name(match["body"].strip()):
        return text
    used = set(re.findall(r"(?<![\\A-Za-z])[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", match["body"])))
    if not set(re.findall("[A-Za-z]", match["letter"])) <= used or match["letter"] == match["bound"]:
        return text
    end = re.sub(r"^\s?(?:\\mid|\||:|,)\s?", ", ", match["end"])
    return match["body"].strip() + end


def congruence(text: str) -> Periodic | None:
    r"""The numbers of `x \equiv 3 \pmod 7`, `3 (mod 7)`, or several with one modulus; None for all other texts."""
    if len(text) > _LONGEST or "mod" not in text:
        return None
    whole = shape(" ".join(tidied(text).replace("\u2261", "\\equiv ").replace("$", "").split()))
    found = _congruence(", ".join(whole.parts))
    if found is not None:
        return found
    parts = [_congruence(part) for part in whole.parts] if whole.kind == "list" else []
    if len(parts) > _MOST_PARTS or any(part is None for part in parts) or not parts:
        return None
    known = [part for part in parts if part is not None]
    if len({(part.step, part.name) for part in known}) > 1:
        return None  # several moduli are conditions that hold together
    return _union(known)


def _congruence(text: str) -> Periodic | None:
    match = _CONGRUENCE.fullmatch(text.strip())
    if match is None or not int(match["modulus"]):
        return None
    modulus = int(match["modulus"])
    starts = frozenset(Fraction(int(residue.replace(" ", "")) % modulus) for residue in match["residues"].split(","))
    if match["not"]:
        starts = frozenset(map(Fraction, range(min(modulus, _MOST_STARTS)))) - starts
        if modulus > _MOST_STARTS or not starts:
            return None
    return Periodic("1", Fraction(modulus), starts, match["name"] and key(match["name"]))


def family(text: str, letters: frozenset[str]) -> Periodic | None:
    r"""The numbers of `x=7k+3` or `\frac{\pi}{3}+2k\pi, k\in\mathbb{Z}`, or several such; None for all other texts.

    Args:
        text: An answer.
        letters: Which may stand for any integer where nothing is said about them.

    Raises:
        Unreadable: It makes no sense.
    """
    if _OTHER_RANGE.search(re.sub(r"\\mathbb\s?\{?\s?Z\s?\}?(?!\s?[\^_])", "", text)):
        return None
    flat, integers = unqualified(text)
    whole = shape(flat)
    if whole.kind not in ("one", "list", "set") or len(whole.parts) > _MOST_PARTS or not all(whole.parts):
        return None
    found: list[Periodic] = []
    for part in whole.parts:
        here = _linear(part, frozenset(integers) or letters)
        if here is None:
            return None
        found.append(here)
    names = {one.name for one in found if one.name}
    return _union(found) if len(names) < 2 and len({one.unit for one in found}) == 1 else None


def _linear(text: str, letters: frozenset[str]) -> Periodic | None:
    from sympy import Symbol

    name, *sides = (side.strip() for side in EQUALS.split(text))
    if len(sides) > 1 or (sides and not is_name(name)):
        return None
    read = expression(cleaned(sides[0] if sides else name).math)
    symbols = {str(symbol) for symbol in read.free_symbols}
    if len(symbols) != 1 or not symbols <= letters or (sides and key(name) in symbols):
        return None
    symbol, whole = next(iter(read.free_symbols)), Symbol("j", integer=True)
    alternates = any(symbol in power.exp.free_symbols for power in _powers(read))
    if alternates and any(power.base != -1 for power in _powers(read) if symbol in power.exp.free_symbols):
        return None
    values = [2 * whole, 2 * whole + 1] if alternates else [whole]
    found = [_progression(read.subs(symbol, value).doit().expand(), whole) for value in values]
    known = [one for one in found if one is not None]
    if len(known) < len(found) or len({one.unit for one in known}) > 1:
        return None
    united = _union(known)
    return united and Periodic(united.unit, united.step, united.starts, key(name) if sides else None)


def _powers(read: Any) -> set[Any]:
    from sympy import Pow

    return set(read.atoms(Pow))


def _progression(line: Any, letter: Any) -> Periodic | None:
    from sympy import Rational, pi

    step = line.coeff(letter, 1)
    start = (line - step * letter).expand()
    if start.free_symbols or step.free_symbols or step == 0:
        return None
    for name, unit in (("1", Rational(1)), ("pi", pi)):
        each = [(one / unit).simplify() for one in (step, start)]
        if all(one.is_Rational for one in each):
            width, first = (Fraction(int(one.p), int(one.q)) for one in each)
            return Periodic(name, abs(width), frozenset({first % abs(width)}))
    return None


def _union(parts: Sequence[Periodic]) -> Periodic | None:
    step = _common([part.step for part in parts])
    starts = [start for part in parts if (lifted := _lifted(part, step)) is not None for start in lifted]
    if any(_lifted(part, step) is None for part in parts):
        return None
    names = [part.name for part in parts if part.name]
    return Periodic(parts[0].unit, step, frozenset(starts), names[0] if names else None)


def _common(steps: Sequence[Fraction]) -> Fraction:
    """The least common multiple of fractions."""
    bottom = gcd(*(step.denominator for step in steps))
    return Fraction(lcm(*(step.numerator for step in steps)), bottom)


def _lifted(part: Periodic, step: Fraction) -> frozenset[Fraction] | None:
    times = step / part.step
    if times > _MOST_STARTS or times * len(part.starts) > _MOST_STARTS:
        return None
    return frozenset((start + turn * part.step) % step for start in part.starts for turn in range(int(times)))


def _same(ours: Periodic, theirs: Periodic) -> bool:
    step = _common([ours.step, theirs.step])
    one, other = _lifted(ours, step), _lifted(theirs, step)
    return ours.unit == theirs.unit and one is not None and one == other
