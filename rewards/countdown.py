"""Reward `countdown`: an expression of the given numbers that equals the target, by exact arithmetic.

Which part of the completion is the answer is decided here; what it is worth is worked out by `arithmetic.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from numbers import Real
from typing import Any

from posttrain.errors import RewardError
from posttrain.rewards.arithmetic import LONGEST, NotArithmetic, Worked, work_out
from posttrain.rewards.thinking import answer_section
from posttrain.scoring.score import Score

_DECORATION = "*_`$ \t"
_BLANKS = re.compile(r"[^\S\n]")  # no-break and thin spaces, too
_OPERATORS = ("+", "-", "*", "/")
_LATEX = (
    (re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[()\[\],;!]"), " "),
    (re.compile(r"\\boxed\s?\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
)
#: Words that may lead to the expression on its line. What else is said there, such as "not" or "or", makes it none.
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore|the|my|our|final|correct|answer|solution|expression|equation|result|is|one|"
    r"possible|we|i|get|have|use|compute|be|it|a|an|here|this|gives|yes)\b[\s,:*_`]*)+(?=[^A-Za-z]|$)",
    re.IGNORECASE,
)


def score(
    completion: str,
    *,
    numbers: Sequence[int] | None,
    target: int | None,
    use_all: bool = False,
    operators: Sequence[str] | None = None,
    partial: float = 0.0,
    **row: Any,
) -> Score | None:
    """1 when the last statement of the answer is an expression of the numbers that equals the target.

    The answer is the last `<answer>` section; without one, what follows the thinking. Its last line that is not empty
    is the statement: an expression, perhaps after words such as "The answer is", perhaps with `= 24` behind or before
    it. Of a chain of equalities every side has to equal the target, and the first side with an operator is the
    expression. Nothing else may stand on that line.

    Args:
        completion: The completion as text.
        numbers: The numbers, each to be used at most as often as it is there. None: the row is of another task.
        target: What is to be reached, a whole number.
        use_all: Each number has to be used, as often as it is there. A column of the row, or under the reward's
            `kwargs`.
        operators: Those of + - * / that may be used; the minus sign of a number is `-`. None: all. A column of the row,
            or under the reward's `kwargs`.
        partial: What a statement earns that uses numbers and operators as it may and misses the target, below 1. 0:
            only the target pays, and the mean reward is the share of puzzles that are solved.
        row: Ignored.

    Returns:
        Score with the parts `reads` (there is an expression), `numbers` (it uses them as it may), `operators` (these,
        too) and `target` (it equals it), each 0 or 1; as `parsed` the statement; as `note` what is wrong. None without
        numbers.

    Raises:
        RewardError: The row's numbers, operators or its target are none, or `partial` is not from 0 to below 1.
    """
    if numbers is None or target is None:
        return None
    given = _whole([*numbers, target])
    if not 0 <= partial < 1:
        raise RewardError(f"partial {partial!r}", expected="a number from 0 to below 1", where="partial")
    allowed = _signs(operators)
    parts = {"reads": 0.0, "numbers": 0.0, "operators": 0.0, "target": 0.0}
    statement = _statement(completion)
    if not statement:
        return Score(0.0, parts=parts, note="no answer")
    try:
        worked = work_out(statement)
    except NotArithmetic as error:
        return Score(0.0, parts=parts, parsed=statement[:LONGEST], note=str(error))
    parts["reads"] = 1.0
    wrong = _misused(worked, given[:-1], use_all=use_all)
    parts["numbers"] = float(not wrong)
    strange = next((sign for sign in _OPERATORS if sign in worked.operators and sign not in allowed), None)
    parts["operators"] = float(strange is None)
    missed = next((side for side in worked.values if side != given[-1]), None)
    parts["target"] = float(missed is None)
    forbidden = "" if strange is None else f"{strange} is not among the operators"
    notes = [wrong, forbidden, "" if missed is None else f"{_short(missed)}, not {given[-1]}"]
    value = 0.0 if wrong or forbidden else 1.0 if missed is None else partial
    return Score(value, parts=parts, parsed=statement, note="; ".join(filter(None, notes)))


def _whole(values: Sequence[Any]) -> list[int]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, Real) or value % 1:
            raise RewardError(f"{value!r} in the row", expected="whole numbers and a whole target", where="numbers")
    if len(values) < 2:
        raise RewardError("no numbers in the row", expected="at least one", where="numbers")
    return [int(value) for value in values]


def _signs(operators: Sequence[str] | None) -> Sequence[str]:
    if operators is None:
        return _OPERATORS
    found = list(operators)
    if not found or any(sign not in _OPERATORS for sign in found):
        raise RewardError(f"operators {found!r} in the row", expected="some of + - * /, or null", where="operators")
    return found


def _statement(completion: str) -> str:
    """The last line of the answer that is not empty, without what decorates it and words that lead to it."""
    section, _ = answer_section(completion)
    line = section.rstrip().rpartition("\n")[2]
    if len(line) > 4 * LONGEST:
        return line  # too long, whatever it says
    line = _BLANKS.sub(" ", line)
    for pattern, put in _LATEX:
        line = pattern.sub(put, line)
    line = line.strip(_DECORATION)
    lead = _LEAD.match(line)
    line = line[lead.end() :] if lead else line
    return line.strip(_DECORATION).rstrip("." + _DECORATION)  # no "!": behind a number it is the factorial


def _misused(worked: Worked, numbers: Sequence[int], *, use_all: bool) -> str:
    """What is wrong about the numbers of an expression, in words; nothing: all is right."""
    used, given = Counter(worked.numbers), Counter(numbers)
    over = [number for number in used if used[number] > given[number]]
    if over:
        number = over[0]
        times = f"{given[number]} times" if given[number] > 1 else "once"
        return (
            f"{_short(number)} is used {used[number]} times, is there {times}"
            if given[number]
            else (f"{_short(number)} is not among the numbers")
        )
    left = [number for number in given if used[number] < given[number]]
    return f"{left[0]} is not used" if use_all and left else ""


def _short(number: Any) -> str:
    shown = str(number)
    return shown if len(shown) <= 20 else f"{shown[:17]}..."
