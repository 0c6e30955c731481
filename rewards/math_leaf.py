"""Whether one thing is another: words, times, digits in a base, numbers with units and percent signs, formulas."""

from __future__ import annotations

import re
from dataclasses import replace

from posttrain.rewards.math_clock import same_time
from posttrain.rewards.math_equations import is_equation, same_chain, same_equation, same_inequality
from posttrain.rewards.math_families import ANY_INTEGER, same_family
from posttrain.rewards.math_judge import Unreadable, expression, verified
from posttrain.rewards.math_names import EQUALS, is_name, key
from posttrain.rewards.math_numbers import plain_number, same_number
from posttrain.rewards.math_pair import same_quantity
from posttrain.rewards.math_statements import same_statement
from posttrain.rewards.math_text import Answer

_IN_RADIANS = re.compile(r"\\(?:pi|circ)(?![a-zA-Z])")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|lt|gt|in|subset)(?![a-zA-Z])")


def same_leaf(ours: Answer, theirs: Answer) -> bool:
    """Whether two answers that are not made of parts are the same.

    Args:
        ours: The gold answer, as `math_pair.readings` returns it.
        theirs: What is said.

    Raises:
        Unreadable: One of them makes no sense.
    """
    if not theirs.math.strip():
        raise Unreadable("it is empty")
    if ours.choice and theirs.choice and (ours.only_choice or theirs.only_choice or ours.choice != theirs.choice):
        return ours.choice == theirs.choice
    if any(one.choice and not one.only_choice for one in (ours, theirs)):
        # (B) 12 says both B and 12, and has to be right about each that the gold answer gives
        return same_leaf(_without_choice(ours), _without_choice(theirs))
    if ours.time or theirs.time:
        return bool(ours.time and theirs.time and same_time(ours.time, theirs.time))
    if ours.words or theirs.words:
        return ours.words == theirs.words and _same_words(ours.math, theirs.math)
    if ours.unit and theirs.unit and ours.unit != theirs.unit:
        angles = {ours.unit, theirs.unit} == {"degree", "radian"}
        return _same_angle(ours, theirs) if angles else same_quantity(ours, theirs)
    if ours.base or theirs.base:
        # The question often names the base, so an answer may leave it out; one that names it where gold doesn't is 5_6
        if theirs.base and ours.base != theirs.base:
            return False
        return ours.math.upper().lstrip("0") == theirs.math.upper().lstrip("0")
    if (ours.unit == "degree") != (theirs.unit == "degree") and _IN_RADIANS.search(
        (ours if theirs.unit else theirs).math
    ):
        return _same_angle(ours, theirs)
    return _same_percent(ours, theirs)


def check_leaf(answer: Answer) -> None:
    """Raise Unreadable when an answer that is not made of parts makes no sense."""
    if not answer.math.strip():
        raise Unreadable("it is empty")
    if answer.words or answer.choice or answer.base or answer.time or plain_number(answer.math):
        return
    name, rest = assignment(answer.math)
    if name is None:
        expression(answer.math)
    else:
        for part in rest:
            expression(part)


def _same_words(gold: str, said: str) -> bool:
    return gold == said or (min(len(gold), len(said)) > 1 and same_statement(gold, said))


def _without_choice(answer: Answer) -> Answer:
    return answer if answer.only_choice else replace(answer, choice=None)


def _same_angle(ours: Answer, theirs: Answer) -> bool:
    r"""Degrees against radians: `30^\circ` is `\frac{\pi}{6}`."""
    gold, said = (rf"\frac{{({one.math})\pi}}{{180}}" if one.unit == "degree" else one.math for one in (ours, theirs))
    return _same_math(gold, said)


def _same_percent(gold: Answer, said: Answer) -> bool:
    """50% is 50% and 1/2, and, where a number stands alone, also 50: the sign is often left to the question."""
    if gold.percent == said.percent:
        return _same_math(gold.math, said.math)
    percent, other = (gold.math, said.math) if gold.percent else (said.math, gold.math)
    number, bare = plain_number(percent), plain_number(other)
    if number is None:
        as_fraction = rf"\frac{{{percent}}}{{100}}"
    else:
        if bare is not None and number.value == bare.value and abs(number.value) >= 1:
            return True
        hundredth = number.value / 100
        as_fraction = f"\\frac{{{hundredth.numerator}}}{{{hundredth.denominator}}}"
    return _same_math(as_fraction, other) if gold.percent else _same_math(other, as_fraction)


def _same_math(gold: str, said: str) -> bool:
    ours, theirs = plain_number(gold), plain_number(said)
    if ours is not None and theirs is not None:
        same = same_number(ours, theirs)
        return verified(gold, said) if same is None else same
    if (equal := _same_equations(gold, said)) is not None or (equal := _same_ratio(gold, said)) is not None:
        return equal
    gold_name, gold_rest = assignment(gold)
    said_name, said_rest = assignment(said)
    if len(gold_rest) == len(said_rest) == 1 and gold_name is None and said_name is None:
        return _same_formula(gold_rest[0], said_rest[0])
    if gold_name is not None and said_name is not None:
        return gold_name == said_name and _same_math(gold_rest[-1], said_rest[-1])
    if gold_name is not None and len(said_rest) == 1:
        return _same_math(gold_rest[-1], said)
    if gold_name is None and len(gold_rest) == 1 and (said_name is not None or len(said_rest) > 1):
        # Every part after the name has to be the gold answer: 10/4 = 2.5, but not 1 = 2 = 3
        return not _RELATION.search(said) and all(_same_math(gold, part) for part in said_rest)
    return _same_formula(gold, said)


def _same_equations(gold: str, said: str) -> bool | None:
    """The verdict on two equations in several letters, or one that no letter is solved for; None for all others."""
    if not is_equation(gold, said):
        return None
    if len(EQUALS.split(said)) != 2:
        return False if assignment(gold)[0] is None and "=" not in said else None
    one, other = assignment(gold), assignment(said)
    if one[0] is not None and one[0] == other[0] and _same_math(one[1][-1], other[1][-1]):
        return True
    return same_equation(gold, said)


def _same_ratio(gold: str, said: str) -> bool | None:
    """The verdict on `3:4:5`, which is `6:8:10`, but, read as divisions, also `3:5:4`; None for all others."""
    ours, theirs = ([part.strip() for part in text.split(":")] for text in (gold, said))
    if max(len(ours), len(theirs)) < 3 or not all(ours + theirs):
        return None
    return len(ours) == len(theirs) and all(
        _same_formula(f"({ours[0]}) \\cdot ({other})", f"({theirs[0]}) \\cdot ({one})")
        for one, other in zip(ours[1:], theirs[1:], strict=True)
    )


def _same_formula(gold: str, said: str) -> bool:
    if _RELATION.search(gold):
        if (same := same_chain(gold, said)) is not None:
            return same
        if same_inequality(gold, said):
            return True
    if verified(gold, said):
        return True
    return ANY_INTEGER in gold and ANY_INTEGER in said and same_family(expression(gold), expression(said))


def assignment(text: str) -> tuple[str | None, list[str]]:
    """`x`, [`2+3`, `5`] from `x=2+3=5`; the name is None where there is none, or where several things are named."""
    if "==" in text:
        raise Unreadable("two equals signs in a row")
    parts = [part.strip() for part in EQUALS.split(text)]
    if len(parts) == 1:
        return None, [text]
    if not parts[0]:  # a bare '= 5'
        parts = parts[1:]
    if not all(parts):
        raise Unreadable("an equation without one of its sides")
    if len(parts) == 1:
        return None, parts
    if any("," in re.sub(r"\([^()]*\)|\{[^{}]*\}", "", part) for part in parts[:-1]):
        return None, [text] if len(parts) == 2 else parts
    return (key(parts[0]), parts[1:]) if is_name(parts[0]) else (None, parts)
