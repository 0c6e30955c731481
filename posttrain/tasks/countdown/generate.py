"""Puzzles at random: numbers, a target that they reach, and no puzzle twice."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from posttrain.errors import DataError
from posttrain.tasks.countdown.arithmetic import Expression, apply, in_order, needs_all, value

# So many draws in a row without a new puzzle mean that (almost) none is left.
_PATIENCE = 20_000


@dataclass(frozen=True)
class Puzzle:
    """Numbers in the order in which they are told, the target, and one way to reach it with all of them."""

    numbers: tuple[int, ...]
    target: int
    solution: Expression

    @property
    def content(self) -> tuple[tuple[int, ...], int]:
        """What makes it the same puzzle, in whatever order the numbers stand."""
        return tuple(sorted(self.numbers)), self.target


@dataclass(frozen=True)
class Bounds:
    """What puzzles are made of.

    Args:
        numbers: How many; they take turns, so each gets the same share.
        operators: Which of + - * /.
        largest: The largest number; the smallest is 1.
        targets: The least and the largest target.
    """

    numbers: Sequence[int]
    operators: tuple[str, ...]
    largest: int
    targets: tuple[int, int]


def random_expression(rng: random.Random, numbers: Sequence[int], operators: Sequence[str]) -> Expression | None:
    """The numbers joined two by two at random, with whole numbers above 0 all the way; None where that fails."""
    parts: list[Expression] = list(numbers)
    while len(parts) > 1:
        left, right = (parts.pop(rng.randrange(len(parts))) for _ in range(2))
        if value(left) < value(right):
            left, right = right, left
        operator = rng.choice(operators)
        if apply(operator, value(left), value(right)) is None:
            return None
        parts.append((operator, left, right))
    return parts[0]


def random_puzzle(rng: random.Random, count: int, bounds: Bounds) -> Puzzle | None:
    """A puzzle of `count` numbers that needs all of them; None where the draw is none."""
    numbers = tuple(rng.randint(1, bounds.largest) for _ in range(count))
    expression = random_expression(rng, numbers, bounds.operators)
    if expression is None:
        return None
    target = value(expression)
    least, most = bounds.targets
    if not least <= target <= most or not needs_all(tuple(sorted(numbers)), target, bounds.operators):
        return None
    return Puzzle(numbers, target, in_order(expression))


def split_puzzles(bounds: Bounds, seed: int, counts: Mapping[str, int]) -> dict[str, list[Puzzle]]:
    """Disjoint `eval`, `demonstrations` and `train` puzzles: no numbers with a target are there twice, in any order.

    The parts have random streams of their own, drawn in this order, so asking for more train puzzles changes
    neither eval nor demonstrations.

    Raises:
        DataError: There are not that many.
    """
    drawn: set[tuple[tuple[int, ...], int]] = set()
    parts: dict[str, list[Puzzle]] = {}
    for part in ("eval", "demonstrations", "train"):
        rng = random.Random(f"countdown {part} {seed}")
        puzzles: list[Puzzle] = []
        for number in range(counts.get(part, 0)):
            size = bounds.numbers[number % len(bounds.numbers)]
            for _ in range(_PATIENCE):
                puzzle = random_puzzle(rng, size, bounds)
                if puzzle is not None and puzzle.content not in drawn:
                    break
            else:
                raise DataError(
                    f"after {len(puzzles)} of {counts[part]} {part} puzzles no new one of {size} numbers was found",
                    expected="as many different puzzles as the task asks for",
                    where="task countdown",
                    fix="ask for fewer, or allow more numbers, operators, larger numbers or more targets",
                )
            drawn.add(puzzle.content)
            puzzles.append(puzzle)
        rng.shuffle(puzzles)
        parts[part] = puzzles
    return parts
