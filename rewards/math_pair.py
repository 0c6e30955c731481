"""A gold answer and what is said, read with regard to each other: letters that may be a unit, and quantities."""

from __future__ import annotations

import re

from posttrain.rewards.math_numbers import plain_number
from posttrain.rewards.math_text import Answer, cleaned
from posttrain.rewards.math_units import ratio

_NAME = re.compile(r"^\s*(?:\\[A-Za-z]+|[A-Za-z]+)\s*(?:_\s*\{?\w+\}?)?\s*(?:\([A-Za-z, ]*\))?\s*=")
_COMMAND = re.compile(
    r"\\(?!(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|phi|omega|psi|xi|tau|zeta|eta|kappa|varphi)\b)"
    r"[A-Za-z]+"
)
_VARIABLE = re.compile(r"[A-DF-HJ-Za-df-hj-z]|\\")


def readings(gold: str, said: str) -> tuple[Answer, Answer]:
    """Both answers as they are to be compared. Use this, not `cleaned` twice, wherever both are at hand.

    A letter behind a number is a unit where the gold answer has no letters of algebra: `5m` says 5, but not where the
    gold answer is `5m` itself. Of the gold answer it is one where it stands apart (`5 m`), or what is said names it.
    """
    ours, theirs = cleaned(gold), cleaned(said)
    if ours.as_unit is not None:
        stands_apart = ours.apart and not has_variables(ours.as_unit.math)
        named = theirs.as_unit is None and theirs.unit is not None and theirs.unit == ours.as_unit.unit
        ours = ours.as_unit if stands_apart or named else ours
    if theirs.as_unit is not None and not has_variables(ours.math) and not has_variables(theirs.as_unit.math):
        theirs = theirs.as_unit
    return ours, theirs


def has_variables(math: str) -> bool:
    """Whether there is algebra in a formula: letters apart from e, i and a name in front of the equals sign."""
    return bool(_VARIABLE.search(_COMMAND.sub(" ", _NAME.sub("", math))))


def same_quantity(gold: Answer, said: Answer) -> bool:
    """Whether two numbers with units are one quantity, such as 60 minutes and 1 hour."""
    ours, theirs = plain_number(gold.math), plain_number(said.math)
    size = ratio(gold.unit or "", said.unit or "")
    if ours is None or theirs is None or size is None or gold.percent or said.percent:
        return False
    return ours.value * size == theirs.value
