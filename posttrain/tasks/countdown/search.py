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


def wrong_expression(puzzle: Puzzle, operators: tuple[str, ...], rng: random.Random) -> Expression:
    """An expression of the numbers that misses the target: of all of them, or where there is none, of fewer."""
    found = dead_ends(puzzle, operators, 1, rng)
    return found[0] if found else puzzle.solution[1]


def thought(target: int, tries: list[Expression], answer: Expression) -> str:
    """A line for each try, and one for the answer: each operation with its result, then whether that is the target.

        7 + 3 = 10, 10 - 2 = 8: not 23
        7 * 3 = 21, 21 + 2 = 23: yes

    The last result of the answer is told to be the target, whether it is or not.
    """
    lines = [f"{', '.join(_worked(expression))}: not {target}" for expression in tries]
    *before, last = _worked(answer) or [f"{value(answer)} = {value(answer)}"]
    said = f"{last.rpartition(' = ')[0]} = {target}"
    return "\n".join([*lines, f"{', '.join([*before, said])}: yes"])


def _worked(expression: Expression) -> list[str]:
    return [f"{left} {operator} {right} = {made}" for left, operator, right, made in steps(expression)]
