"""Searches for a solution whose every line is true: tries that end elsewhere, then the one that reaches the target."""

from __future__ import annotations

import random

from posttrain.tasks.countdown.arithmetic import Expression, in_order, steps, text, value
from posttrain.tasks.countdown.generate import Puzzle, random_expression

_DRAWS = 50  # for a try that is none yet


def dead_ends(puzzle: Puzzle, operators: tuple[str, ...], count: int, rng: random.Random) -> list[Expression]:
    """Up to `count` expressions of all the numbers that miss the target, no two alike."""
    found: dict[str, Expression] = {}
    for _ in range(_DRAWS):
        if len(found) >= count:
            break
        drawn = random_expression(rng, puzzle.numbers, operators)
        if drawn is not None and value(drawn) != puzzle.target:
            found.setdefault(text(in_order(drawn)), in_order(drawn))
    return list(found.values())


def thought(puzzle: Puzzle, tries: list[Expression]) -> str:
    """A line for each try, and one for the solution: each operation with its result, then whether that is the target.

    7 + 3 = 10, 10 - 2 = 8: not 23
    7 * 3 = 21, 21 + 2 = 23: yes
    """
    return "\n".join(_line(expression, puzzle.target) for expression in [*tries, puzzle.solution])


def _line(expression: Expression, target: int) -> str:
    done = ", ".join(f"{left} {operator} {right} = {made}" for left, operator, right, made in steps(expression))
    return f"{done}: {'yes' if value(expression) == target else f'not {target}'}"
