from __future__ import annotations

import itertools
import random

import pytest

from posttrain.errors import DataError
from posttrain.tasks.knights_knaves.generate import random_statements
from posttrain.tasks.knights_knaves.logic import CONNECTIVES, evaluate, parse_statements, solve, structure

KNIGHT, KNAVE = "telling-truth", "lying"
TAGS = list(CONNECTIVES.values())


@pytest.mark.parametrize(
    ("statements", "solutions"),
    [
        # "We are both knaves."
        ((("and", (KNAVE, 0), (KNAVE, 1)), (KNIGHT, 1)), [(False, True)]),
        # "At least one of us is a knave."
        ((("or", (KNAVE, 0), (KNAVE, 1)), (KNIGHT, 1)), [(True, False)]),
        # "If I am a knight, so is he."
        ((("->", (KNIGHT, 0), (KNIGHT, 1)), (KNIGHT, 1)), [(True, True)]),
        # "We are of the same kind." "We are of different kinds."
        ((("<=>", (KNIGHT, 0), (KNIGHT, 1)), ("not", ("<=>", (KNIGHT, 0), (KNIGHT, 1)))), [(False, True)]),
        # each calls the other a knight: both orders of belief hold
        (((KNIGHT, 1), (KNIGHT, 0)), [(True, True), (False, False)]),
        # "I am a knave."
        (((KNAVE, 0), (KNIGHT, 0)), []),
        # three people: all of us are knaves; exactly one of us is a knight; silence about the third
        (
            (
                ("and", (KNAVE, 0), (KNAVE, 1), (KNAVE, 2)),
                (
                    "or",
                    ("and", (KNIGHT, 0), (KNAVE, 1), (KNAVE, 2)),
                    ("and", (KNAVE, 0), (KNIGHT, 1), (KNAVE, 2)),
                    ("and", (KNAVE, 0), (KNAVE, 1), (KNIGHT, 2)),
                ),
                (KNAVE, 1),
            ),
            [(False, True, False)],
        ),
    ],
)
def test_solver_on_known_puzzles(statements, solutions):
    assert solve(statements) == solutions


def plain_solve(statements):
    return [
        roles
        for roles in itertools.product([True, False], repeat=len(statements))
        if all(evaluate(claim, roles) == role for claim, role in zip(statements, roles, strict=True))
    ]


@pytest.mark.parametrize("people", range(2, 9))
@pytest.mark.parametrize("depth", [1, 3])
def test_truth_tables_agree_with_plain_evaluation(people, depth):
    rng = random.Random(people)
    unique = 0
    for _ in range(30):
        drawn = random_statements(rng, people, depth, TAGS)
        if drawn is not None:
            statements, solution = drawn
            assert plain_solve(statements) == solve(statements) == [solution]
            unique += 1
    assert unique >= 3


def renamed(claim, order):
    if claim[0] in (KNIGHT, KNAVE):
        return (claim[0], order[claim[1]])
    parts = [renamed(part, order) for part in claim[1:]]
    return (claim[0], *(reversed(parts) if claim[0] in ("and", "or", "<=>") else parts))


@pytest.mark.parametrize("people", [2, 3, 5, 8])
def test_structure_ignores_who_is_who_and_the_order_of_operands(people):
    rng = random.Random(people)
    seen = set()
    for _ in range(200):
        drawn = random_statements(rng, people, 2, TAGS)
        if drawn is None:
            continue
        statements, _ = drawn
        order = rng.sample(range(people), people)  # person i becomes person order[i]
        other = [()] * people
        for person, claim in enumerate(statements):
            other[order[person]] = renamed(claim, order)
        assert structure(tuple(other)) == structure(statements)
        seen.add(structure(statements))
    assert len(seen) > 10


@pytest.mark.parametrize(
    "other",
    [
        ((KNAVE, 1), (KNIGHT, 0)),  # another role
        ((KNIGHT, 0), (KNIGHT, 0)),  # about oneself
        (("not", (KNAVE, 1)), (KNIGHT, 0)),  # in other words
    ],
)
def test_structure_tells_different_claims_apart(other):
    assert structure(((KNIGHT, 1), (KNIGHT, 0))) != structure(other)


def test_structure_keeps_the_direction_of_an_implication():
    forward = (("->", (KNIGHT, 0), (KNIGHT, 1)), (KNIGHT, 0))
    backward = (("->", (KNIGHT, 1), (KNIGHT, 0)), (KNIGHT, 0))
    assert structure(forward) != structure(backward)


def test_reads_the_published_literal_and_the_other_arrow():
    expected = (("->", (KNIGHT, 1), (KNAVE, 0)), ("not", (KNAVE, 0)))
    assert parse_statements("(('->', ('telling-truth', 1), ('lying', 0)), ('not', ('lying', 0)))") == expected
    assert parse_statements([["=>", ["telling-truth", 1], ["lying", 0]], ["not", ["lying", 0]]]) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os", "not a Python literal"),
        ("7", "one claim per person"),
        ("(('lying', 2), ('lying', 0))", "one person from 0 to 1"),
        ("(('lying', True), ('lying', 0))", "one person from 0 to 1"),
        ("(('xor', ('lying', 1), ('lying', 0)), ('lying', 0))", "claim ('xor'"),
        ("(('not', ('lying', 1), ('lying', 0)), ('lying', 0))", "claim ('not'"),
        ("(('and', ('lying', 1)), ('lying', 0))", "claim ('and'"),
        ("('lying', 1)", "claim 'lying'"),
        ("(('lying', 1),)", "so 2"),
    ],
)
def test_statements_that_mean_nothing_are_refused(text, message):
    with pytest.raises(DataError) as caught:
        parse_statements(text, 2, where="kk.jsonl:7 column statements")
    assert message in str(caught.value)
    assert "kk.jsonl:7 column statements" in str(caught.value)
