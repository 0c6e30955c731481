"""The logic of Knights & Knaves: claims, their truth tables and the consistent assignments.

A claim is a nested tuple in the form of the published data, people being indices:

    ("telling-truth", i)   ("lying", i)   ("not", c)   ("and", c, ...)   ("or", c, ...)   ("->", c, c)   ("<=>", c, c)

A truth table is one integer of 2**n bits, bit a being the claim's value under assignment a; bit n - 1 - i of a
says whether person i is a knave. Assignment 0 therefore makes everybody a knight, and counting up flips the last
person first: the order in which a patient reader would try them. All 2**n assignments are enumerated in a few
integer operations.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

from posttrain.errors import DataError

Claim: TypeAlias = tuple[Any, ...]
Statements: TypeAlias = tuple[Claim, ...]

ATOMS = ("telling-truth", "lying")
# How a recipe spells a connective -> its tag in a claim.
CONNECTIVES = {"and": "and", "or": "or", "not": "not", "if": "->", "iff": "<=>"}
_ARITY = {"not": (1, 1), "and": (2, None), "or": (2, None), "->": (2, 2), "<=>": (2, 2)}
_COMMUTATIVE = ("and", "or", "<=>")
_GRAMMAR = "('telling-truth', i), ('lying', i), ('not', c), ('and'|'or', c, c, ...) or ('->'|'<=>', c, c)"


def all_assignments(people: int) -> int:
    """The table that is true everywhere."""
    return (1 << (1 << people)) - 1


@cache
def knight_table(person: int, people: int) -> int:
    """The table of 'person is a knight'."""
    shift = people - 1 - person
    return sum(1 << a for a in range(1 << people) if not (a >> shift) & 1)


def table(claim: Claim, people: int) -> int:
    """The truth table of a claim over all assignments of `people` people."""
    tag = claim[0]
    if tag == "telling-truth":
        return knight_table(claim[1], people)
    everywhere = all_assignments(people)
    if tag == "lying":
        return everywhere ^ knight_table(claim[1], people)
    parts = [table(part, people) for part in claim[1:]]
    if tag == "not":
        return everywhere ^ parts[0]
    if tag == "->":
        return (everywhere ^ parts[0]) | parts[1]
    if tag == "<=>":
        return everywhere ^ parts[0] ^ parts[1]
    result = parts[0]
    for part in parts[1:]:
        result = result & part if tag == "and" else result | part
    return result


def agreement_table(person: int, claim: Claim, people: int) -> int:
    """Where a speaker and the claim agree: a knight whose claim is true, or a knave whose claim is false."""
    return all_assignments(people) ^ knight_table(person, people) ^ table(claim, people)


def consistent_table(statements: Statements) -> int:
    """The assignments under which every speaker agrees with their claim, as one table."""
    people = len(statements)
    result = all_assignments(people)
    for person, claim in enumerate(statements):
        result &= agreement_table(person, claim, people)
        if not result:
            break
    return result


def assignment(index: int, people: int) -> tuple[bool, ...]:
    """Assignment number `index` as one bool per person, True for a knight."""
    return tuple(not (index >> (people - 1 - person)) & 1 for person in range(people))


def solve(statements: Statements) -> list[tuple[bool, ...]]:
    """All assignments (True = knight) in which person i is a knight exactly if claim i is true."""
    people, found = len(statements), consistent_table(statements)
    return [assignment(a, people) for a in range(1 << people) if (found >> a) & 1]


def evaluate(claim: Claim, roles: tuple[bool, ...] | list[bool]) -> bool:
    """The value of a claim under one full assignment (True = knight)."""
    tag = claim[0]
    if tag in ATOMS:
        return roles[claim[1]] == (tag == "telling-truth")
    values = [evaluate(part, roles) for part in claim[1:]]
    if tag == "not":
        return not values[0]
    if tag == "->":
        return not values[0] or values[1]
    if tag == "<=>":
        return values[0] == values[1]
    return all(values) if tag == "and" else any(values)


def mentioned(claim: Claim) -> list[int]:
    """The people a claim speaks of, in the order of their first mention."""
    if claim[0] in ATOMS:
        return [claim[1]]
    return list(dict.fromkeys(person for part in claim[1:] for person in mentioned(part)))


def structure(statements: Statements) -> str:
    """A key that renaming or reordering the people, or swapping commutative operands, leaves unchanged.

    Puzzles with different keys are different whatever the people are called. The key comes from two rounds of
    colour refinement (Weisfeiler and Leman): each person is described by their claim, then by their claim about
    people so described. Unlike puzzles may share a key, which only makes a split by key stricter.
    """
    colours = [""] * len(statements)
    for _ in range(2):
        colours = [_shape(claim, speaker, colours) for speaker, claim in enumerate(statements)]
    return "|".join(sorted(colours))


def _shape(claim: Claim, speaker: int, colours: list[str]) -> str:
    tag = claim[0]
    if tag in ATOMS:
        return f"{tag}:{'self' if claim[1] == speaker else colours[claim[1]]}"
    parts = [_shape(part, speaker, colours) for part in claim[1:]]
    if tag in _COMMUTATIVE:
        parts.sort()
    return f"{tag}({','.join(parts)})"


def parse_statements(text: str | Sequence[Any], people: int | None = None, *, where: str = "statements") -> Statements:
    """Reads the `statements` column: a Python literal of claims, as text or already as (nested) sequences.

    `=>` is read as `->`.

    Raises:
        DataError: It is no such literal, or speaks of people who are not there.
    """
    try:
        value = ast.literal_eval(text) if isinstance(text, str) else text
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise DataError("not a Python literal", expected="a tuple with one claim per person", where=where) from error
    if not isinstance(value, tuple | list):
        raise DataError(f"{value!r}", expected="a tuple with one claim per person", where=where)
    if people is not None and len(value) != people:
        raise DataError(f"{len(value)} claims", expected=f"one per person, so {people}", where=where)
    return tuple(_checked(claim, len(value), where) for claim in value)


def _checked(claim: Any, people: int, where: str) -> Claim:
    if not isinstance(claim, tuple | list) or not claim or not isinstance(claim[0], str):
        raise DataError(f"claim {claim!r}", expected=_GRAMMAR, where=where)
    tag, parts = {"=>": "->"}.get(claim[0], claim[0]), claim[1:]
    if tag in ATOMS:
        person = parts[0] if len(parts) == 1 else None
        if not isinstance(person, int) or isinstance(person, bool) or not 0 <= person < people:
            raise DataError(f"claim {claim!r}", expected=f"one person from 0 to {people - 1}", where=where)
        return (tag, person)
    least, most = _ARITY.get(tag, (0, -1))
    if len(parts) < least or (most is not None and len(parts) > most):
        raise DataError(f"claim {claim!r}", expected=_GRAMMAR, where=where)
    return (tag, *(_checked(part, people, where) for part in parts))
