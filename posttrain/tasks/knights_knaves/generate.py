"""Puzzles at random: one claim per person, exactly one solution, no puzzle twice."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from posttrain.errors import DataError
from posttrain.tasks.knights_knaves.logic import (
    ATOMS,
    CONNECTIVES,
    Claim,
    Statements,
    agreement_table,
    all_assignments,
    assignment,
    structure,
    table,
)

Split: TypeAlias = Literal["structure", "statements", "content"]

# So many draws in a row without a new puzzle mean that (almost) none is left.
_PATIENCE = 30_000


@dataclass(frozen=True)
class Puzzle:
    """A puzzle with its only solution. Two puzzles are equal when the same people make the same claims."""

    names: tuple[str, ...]
    statements: Statements
    solution: tuple[bool, ...]

    @cached_property
    def structure(self) -> str:
        """What is left of the puzzle when the people have no names; see `logic.structure`."""
        return structure(self.statements)


def random_claim(rng: random.Random, people: int, depth: int, tags: Sequence[str]) -> Claim:
    """A claim about `people` people with at most `depth` connectives inside one another.

    An atom and each connective are equally likely, as in the published data. The parts of a connective differ.
    """
    kind = rng.randrange(len(tags) + 1) if depth else 0
    if kind == 0:
        return (ATOMS[rng.randrange(2)], rng.randrange(people))
    tag = tags[kind - 1]
    first = random_claim(rng, people, depth - 1, tags)
    if tag == "not":
        return first if first[0] == "not" else ("not", first)
    second = random_claim(rng, people, depth - 1, tags)
    while second == first:
        second = random_claim(rng, people, depth - 1, tags)
    return (tag, first, second)


def random_statements(
    rng: random.Random, people: int, depth: int, tags: Sequence[str]
) -> tuple[Statements, tuple[bool, ...]] | None:
    """Random claims and their consistent assignment, or None when that is not exactly one.

    Claims that are always true or always false, and bare claims about oneself, which say nothing or are a paradox,
    are drawn again.
    """
    statements: list[Claim] = []
    consistent = everywhere = all_assignments(people)
    for speaker in range(people):
        claim = random_claim(rng, people, depth, tags)
        while _is_void(claim, speaker, people, everywhere):
            claim = random_claim(rng, people, depth, tags)
        statements.append(claim)
        consistent &= agreement_table(speaker, claim, people)
        if not consistent:
            return None
    if consistent & (consistent - 1):
        return None
    return tuple(statements), assignment(consistent.bit_length() - 1, people)


def _is_void(claim: Claim, speaker: int, people: int, everywhere: int) -> bool:
    bare = claim[1] if claim[0] == "not" else claim
    if bare[0] in ATOMS and bare[1] == speaker:
        return True
    return table(claim, people) in (0, everywhere)


@dataclass
class PuzzleSource:
    """Draws puzzles that were not drawn before.

    Args:
        people: The numbers of people; they take turns, so each gets the same share of the puzzles.
        depth: The most connectives inside one another; 1 is the published data's.
        connectives: Which of `and`, `or`, `not`, `if`, `iff` to use.
        names: The names to draw from.
    """

    people: Sequence[int]
    depth: int
    connectives: Sequence[str]
    names: Sequence[str]

    def __post_init__(self) -> None:
        self.tags = [CONNECTIVES[word] for word in self.connectives]
        self.drawn: set[Puzzle] = set()

    def draw(
        self,
        count: int,
        rng: random.Random,
        what: str,
        key: Callable[[Puzzle], Hashable] | None = None,
        held_out: set[Hashable] | None = None,
        *,
        grow: bool = False,
    ) -> list[Puzzle]:
        """`count` puzzles new to this source, whose `key` is not in `held_out`; `grow` adds their keys to it.

        Raises:
            DataError: There are not that many.
        """
        puzzles: list[Puzzle] = []
        for people in (self.people[i % len(self.people)] for i in range(count)):
            for puzzle in self._tries(people, rng):
                if puzzle not in self.drawn and (key is None or held_out is None or key(puzzle) not in held_out):
                    break
            else:
                raise DataError(
                    f"after {len(puzzles)} of {count} {what} puzzles no new one of {people} people was found",
                    expected="as many different puzzles as the task asks for",
                    where="task knights_knaves",
                    fix="ask for fewer, or allow more people, depth, connectives or names, or a less strict split "
                    "(structure, statements, content)",
                )
            self.drawn.add(puzzle)
            if grow and key is not None and held_out is not None:
                held_out.add(key(puzzle))
            puzzles.append(puzzle)
        rng.shuffle(puzzles)
        return puzzles

    def _tries(self, people: int, rng: random.Random) -> Iterator[Puzzle]:
        for _ in range(_PATIENCE):
            drawn = random_statements(rng, people, self.depth, self.tags)
            if drawn is not None:
                yield Puzzle(tuple(rng.sample(self.names, people)), *drawn)


def split_puzzles(source: PuzzleSource, seed: int, counts: Mapping[str, int], split: Split) -> dict[str, list[Puzzle]]:
    """Disjoint `eval`, `demonstrations` and `train` puzzles.

    No puzzle is in two parts or twice in one. Besides, what `split` names is different for every two eval puzzles,
    and for every eval puzzle and any other puzzle:

    - `structure`: the claims up to renaming and reordering the people (`logic.structure`). The strictest.
    - `statements`: the claims irrespective of names, so no eval puzzle is a training puzzle with other names.
    - `content`: the claims and the names.

    The parts have random streams of their own, drawn in this order, so asking for more train puzzles changes
    neither eval nor demonstrations.
    """
    key: Callable[[Puzzle], Hashable] = operator.attrgetter("structure" if split == "structure" else "statements")
    held_out: set[Hashable] = set()
    parts: dict[str, list[Puzzle]] = {}
    for part in ("eval", "demonstrations", "train"):
        rng = random.Random(f"knights_knaves {part} {seed}")
        count = counts.get(part, 0)
        if split == "content":
            parts[part] = source.draw(count, rng, part)
        else:
            parts[part] = source.draw(count, rng, part, key, held_out, grow=part == "eval")
    return parts
