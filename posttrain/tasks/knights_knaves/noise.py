"""Wrong demonstrations: a claim is misread, and what follows from it is worked out as ever."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from posttrain.errors import DataError
from posttrain.tasks.knights_knaves.generate import random_claim
from posttrain.tasks.knights_knaves.logic import ATOMS, CONNECTIVES, Claim, Statements, solve

_DRAWS = 500  # of other claims for one that was said, then for two, once those that are easily confused are done


def misread(
    statements: Statements | None, solution: Sequence[bool], rng: random.Random
) -> tuple[Statements, tuple[bool, ...]]:
    """The claims with one of them misread so that they have exactly one solution, another than the right one.

    First claims are tried that are easily confused with what was said: its opposite, another role, another connective
    in the middle; then any other claim; then any two, since some puzzles have one solution whatever one of them says.

    Args:
        statements: The claims; None: the row has none.
        solution: The right one.

    Raises:
        DataError: There are no claims to misread, or no misreading has one wrong solution.
    """
    for changed in _misreadings(statements, rng) if statements is not None else ():
        found = solve(changed)
        if len(found) == 1 and found[0] != tuple(solution):
            return changed, found[0]
    raise DataError(
        "no statements to misread" if statements is None else f"no misreading of {statements} is wrong",
        expected="claims of which one can be misread",
        where="task knights_knaves, noise_share",
        fix="set noise_share: 0, or add a statements column" if statements is None else "set noise_share: 0",
    )


def _misreadings(statements: Statements, rng: random.Random) -> Iterator[Statements]:
    near = [(speaker, claim) for speaker, said in enumerate(statements) for claim in _near(said)]
    rng.shuffle(near)
    for speaker, claim in near:
        yield (*statements[:speaker], claim, *statements[speaker + 1 :])
    for misheard in (1, 2):
        for _ in range(_DRAWS):
            changed = list(statements)
            for speaker in rng.sample(range(len(statements)), misheard):
                changed[speaker] = random_claim(rng, len(statements), 1, list(CONNECTIVES.values()))
            yield tuple(changed)


def _near(claim: Claim) -> list[Claim]:
    tag, parts = claim[0], claim[1:]
    if tag in ATOMS:
        return [(other, *parts) for other in ATOMS if other != tag]
    if tag == "not":
        return [parts[0]]
    others = [other for other in CONNECTIVES.values() if other not in (tag, "not")]
    return [("not", claim), *((other, *parts) for other in others)]
