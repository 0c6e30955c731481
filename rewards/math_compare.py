"""Whether two answers to a math problem are the same: rules of our own, and `math_judge.py` for what is left."""

from __future__ import annotations

import re
from dataclasses import replace

from posttrain.rewards.math_clock import same_time
from posttrain.rewards.math_guard import OutOfTime, deadline
from posttrain.rewards.math_judge import Unreadable, expression, forget, load, shown, verified
from posttrain.rewards.math_numbers import plain_number, same_number
from posttrain.rewards.math_pair import readings, same_quantity
from posttrain.rewards.math_text import Answer, cleaned

SECONDS = 2.0  # of computing, for everything that sympy does about one completion

EQUALS = re.compile(r"(?<![<>!\\=:])=(?!=)")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|lt|gt|in|subset)(?![a-zA-Z])")
NAME = re.compile(
    r"(?:\\(?!frac|sqrt|text|pi(?![a-z])|infty)[A-Za-z]+\s*\{?\s*[A-Za-z]*\s*\}?|[A-Za-z]{1,4}|\|[A-Z]{2}\|"
    r"|[A-Za-z][A-Za-z ]*[A-Za-z]|\\text\{[^{}]*\})"
    r"'*(?:\s*_\s*(?:\w|\{[^{}]*\}))?(?:\s*\^\s*\{?\s*-1\s*\}?)?(?:\s*\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\))?"
)
_PREFIX = re.compile(r"^\s*([A-Za-z]\s*(?=\\in)|\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\)\s*)(?:\\in(?![a-zA-Z])|=)")


def same_answer(gold: str, said: str) -> tuple[bool, str]:
    """Whether an answer is the gold one, and the reason in words when it is not.

    Not symmetric: `5` is said by `x=5`, but `x=5` with another letter is not said by `y=5`.

    Raises:
        Unreadable: The gold answer cannot be read.
    """
    same = _same_plain(gold, said)
    if same is None:
        check_readable(gold)
        load()  # outside the time limit: the first time it takes longer than any answer may
        try:
            with deadline(SECONDS):
                same = _same(gold, said)
        except Unreadable as problem:
            return False, f"cannot be read: {problem}"
        except OutOfTime:
            forget()
            return False, f"not compared within {SECONDS:g} s of computing"
    return same, "" if same else f"read as {shown(said)}, not {shown(gold)}"


def _same_plain(gold: str, said: str) -> bool | None:
    """The verdict on two plain numbers, which needs no sympy; None for everything else."""
    ours, theirs = readings(gold, said)
    if ours.percent or theirs.percent or ours.base or theirs.base or (ours.unit and theirs.unit):
        return None
    one, other = plain_number(ours.math), plain_number(theirs.math)
    return None if one is None or other is None else same_number(one, other)


def check_readable(gold: str) -> None:
    """Raise Unreadable when there is nothing that an answer could be compared with."""
    for side in approximate(gold):
        answer = cleaned(side)
        if not answer.math.strip():
            raise Unreadable("it is empty")
        if answer.words or answer.choice or answer.base or answer.time or plain_number(answer.math):
            continue
        expression(answer.math)


def _same(gold: str, said: str) -> bool:
    golds, saids = approximate(gold), approximate(said)
    # Of what is said, 'A ≈ B' is A: two different answers are none. Gold gives both as right.
    return any(_same_exact(one, saids[0]) for one in golds)


def approximate(text: str) -> list[str]:
    r"""The sides of `A \approx B`; a name on the left, and nothing, are no side."""
    sides = (
        [side.strip() for side in re.split(r"\\approx(?![a-zA-Z])|≈", text)] if "pprox" in text or "≈" in text else []
    )
    sides = [side for side in sides if side.strip("$ ") and not NAME.fullmatch(side.strip("$ "))]
    return sides or [text]


def _same_exact(gold: str, said: str) -> bool:
    ours, theirs = readings(gold, said)
    return ours == theirs or _same_answers(ours, theirs)


def _same_answers(ours: Answer, theirs: Answer) -> bool:
    if not theirs.math.strip():
        raise Unreadable("it is empty")
    if ours.choice and theirs.choice and (ours.only_choice or theirs.only_choice or ours.choice != theirs.choice):
        return ours.choice == theirs.choice
    if any(one.choice and not one.only_choice for one in (ours, theirs)):
        # (B) 12 says both B and 12, and has to be right about each that the gold answer gives
        return _same_answers(_without_choice(ours), _without_choice(theirs))
    if ours.time or theirs.time:
        return bool(ours.time and theirs.time and same_time(ours.time, theirs.time))
    if ours.words or theirs.words:
        return ours.words == theirs.words and ours.math == theirs.math
    if ours.unit and theirs.unit and ours.unit != theirs.unit:
        return same_quantity(ours, theirs)
    if ours.base or theirs.base:
        # The question often names the base, so an answer may leave it out; one that names it where gold doesn't is 5_6
        if theirs.base and ours.base != theirs.base:
            return False
        return ours.math.upper().lstrip("0") == theirs.math.upper().lstrip("0")
    return _same_percent(ours, theirs)


def _without_choice(answer: Answer) -> Answer:
    return answer if answer.only_choice else replace(answer, choice=None)


def _same_percent(gold: Answer, said: Answer) -> bool:
    """50% is 50% and 1/2, and, where a number stands alone, also 50: the sign is often left to the question."""
    if gold.percent == said.percent:
        return _same_math(gold.math, said.math)
    percent, other = (gold.math, said.math) if gold.percent else (said.math, gold.math)
    number, bare = plain_number(percent), plain_number(other)
    if number is None and ";" not in percent + other and 0 < percent.count(",") == other.count(","):
        pairs = zip(gold.math.split(","), said.math.split(","), strict=True)
        return all(_same_percent(replace(gold, math=one), replace(said, math=two)) for one, two in pairs)
    if number is None:
        raise Unreadable("a percent sign after more than a number")
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
    gold, said = _without_common_name(gold), _without_common_name(said)
    gold_name, gold_rest = _assignment(gold)
    said_name, said_rest = _assignment(said)
    if len(gold_rest) == len(said_rest) == 1 and gold_name is None and said_name is None:
        gold, said = gold_rest[0], said_rest[0]
    if gold_name is not None and said_name is not None:
        return gold_name == said_name and _same_math(gold_rest[-1], said_rest[-1])
    if gold_name is not None and len(said_rest) == 1:
        return _same_math(gold_rest[-1], said)
    if gold_name is None and len(gold_rest) == 1 and (said_name is not None or len(said_rest) > 1):
        # Every part after the name has to be the gold answer: 10/4 = 2.5, but not 1 = 2 = 3
        return not _RELATION.search(said) and all(_same_math(gold, part) for part in said_rest)
    prefixes = {re.sub(r"\s", "", match[1]) for match in (_PREFIX.match(gold), _PREFIX.match(said)) if match}
    if prefixes:  # x \in ..., (x, y) = ...
        return len(prefixes) == 1 and _same_math(_PREFIX.sub("", gold), _PREFIX.sub("", said))
    if _bracket(gold) != _bracket(said) and "" not in (_bracket(gold), _bracket(said)):
        return False
    return verified(gold, said) or _verified_as_lists(gold, said)


def _assignment(text: str) -> tuple[str | None, list[str]]:
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
    if any("," in part for part in parts[:-1]):
        return None, [text] if len(parts) == 2 else parts
    if NAME.fullmatch(parts[0]) and not re.search(r"(?<![a-z])not?(?![a-z])|\\ne", parts[0]):
        return re.sub(r"\s+", "", parts[0]), parts[1:]
    return None, parts


def _without_common_name(text: str) -> str:
    """`2, 3` from `x=2, x=3`; anything else as it is."""
    parts = text.split(",")
    if text.count("=") != len(parts) or len(parts) < 2:
        return text
    halves = [part.partition("=") for part in parts]
    names = {name.strip() for name, _, _ in halves}
    if len(names) > 1 or not NAME.fullmatch(names.pop()):
        return text
    return ", ".join(value.strip() for _, _, value in halves)


def _bracket(text: str) -> str:
    """`{` for a set, `(` for an interval, a point or a union of them, "" for anything else."""
    text = text.strip()
    if text.startswith("\\{") and text.endswith("\\}"):
        return "{"
    return "(" if text[:1] in "([" and text[-1:] in ")]" and "," in text else ""


def _verified_as_lists(gold: str, said: str) -> bool:
    """Once more with 100,200 as two numbers, where the other side shows that it is a list."""
    grouped = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
    if bool(grouped.search(gold)) == bool(grouped.search(said)) or "," not in grouped.sub("", gold + said):
        return False
    return verified(grouped.sub(", ", gold), grouped.sub(", ", said))
