"""Whether two answers to a math problem are the same.

Decided by what they are: sets of real numbers (`math_regions.py`), values with their names (`math_systems.py`), lists,
sets, points and matrices (`math_lists.py`), whose parts are compared in turn, and single things (`math_leaf.py`). What
is said about letters is taken off before (`math_families.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from posttrain.rewards.math_domains import in_signs, set_in_signs
from posttrain.rewards.math_equations import is_equation
from posttrain.rewards.math_families import alike, unqualified
from posttrain.rewards.math_guard import OutOfTime, deadline
from posttrain.rewards.math_judge import Unreadable, forget, load, shown
from posttrain.rewards.math_labels import labelled, same_labelled
from posttrain.rewards.math_leaf import check_leaf, same_leaf
from posttrain.rewards.math_lists import same_list, without_name
from posttrain.rewards.math_names import EQUALS, NAME
from posttrain.rewards.math_numbers import plain_number, same_number
from posttrain.rewards.math_pair import readings
from posttrain.rewards.math_parameters import ranges_differ, renamings
from posttrain.rewards.math_periodic import congruence, same_periodic, without_builder
from posttrain.rewards.math_piecewise import piecewise, same_piecewise
from posttrain.rewards.math_regions import region, same_region
from posttrain.rewards.math_shape import DOTS, shape
from posttrain.rewards.math_statements import opposed
from posttrain.rewards.math_systems import named_value, same_system, system
from posttrain.rewards.math_text import LONGEST, Answer, cleaned
from posttrain.rewards.math_vectors import as_arrows

SECONDS = 2.0  # of computing, for everything that sympy does about one completion


def same_answer(gold: str, said: str) -> tuple[bool, str]:
    """Whether an answer is the gold one, and the reason in words when it is not.

    Not symmetric: `5` is said by `x=5`, but `x=5` with another letter is not said by `y=5`.

    Raises:
        Unreadable: The gold answer cannot be read.
    """
    same = _same_plain(gold, said)
    if same is None:
        load()  # outside the time limit: the first time it takes longer than any answer may
        check_readable(gold)
        try:
            with deadline(SECONDS):
                same = _same(gold, said)
        except Unreadable as problem:
            return False, f"cannot be read: {problem}"
        except OutOfTime:
            forget()
            return False, f"not compared within {SECONDS:g} s of computing"
    same = same and not opposed(gold, said)
    return same, "" if same else f"read as {shown(said)}, not {shown(gold)}"


def _same_plain(gold: str, said: str) -> bool | None:
    """The verdict on two plain numbers, which needs no sympy; None for everything else."""
    ours, theirs = readings(gold, said)
    if any(one.percent or one.base or one.choice for one in (ours, theirs)) or (ours.unit and theirs.unit):
        return None
    one, other = plain_number(ours.math), plain_number(theirs.math)
    return None if one is None or other is None else same_number(one, other)


def check_readable(gold: str) -> None:
    """Raise Unreadable when there is nothing that an answer could be compared with."""
    if len(gold) > LONGEST:
        raise Unreadable(f"an answer of {len(gold):,} characters")
    for side in approximate(set_in_signs(gold)):
        answer = cleaned(side)
        if _is_single(answer) or plain_number(answer.math):
            continue
        text = unqualified(without_builder(side))[0]
        try:
            with deadline(SECONDS):
                if (cases := piecewise(text)) is not None:
                    for piece in cases[1]:
                        check_leaf(cleaned(piece.value))
                elif region(text) is None and congruence(text) is None:
                    for leaf in leaves(text):
                        if congruence(leaf) is None:
                            check_leaf(cleaned(leaf))
        except OutOfTime as problem:
            forget()
            raise Unreadable(f"not read within {SECONDS:g} s of computing") from problem


def leaves(text: str) -> Iterator[str]:
    """The single things that an answer is made of, however deep, without their names."""
    if (parts := labelled(text)) is not None:
        for part in parts:
            yield from leaves(part)
        return
    if piecewise(text) is not None:
        yield text
        return
    if (named := system(text)) is not None:
        for row in named.rows:
            for value in row:
                yield from leaves(value)
        return
    made = shape(without_name(text)[1])
    if made.kind == "one":
        yield text if len(made.parts[0]) == len(text.strip()) else made.parts[0]
        return
    for part in made.parts:
        if not DOTS.fullmatch(part):
            yield from leaves(part)


def _same(gold: str, said: str) -> bool:
    gold, said = in_signs(*as_arrows(gold, said))
    golds, saids = ([without_builder(side) for side in approximate(text)] for text in (gold, said))
    # Of what is said, 'A ≈ B' is A: two different answers are none. Gold gives both as right.
    if any(ranges_differ(one, saids[0]) for one in golds):
        return False
    if (same := same_periodic(golds[0], saids[0])) is not None:
        return same
    return any(_same_whole(*alike(one, other)) for one in golds for other in [saids[0], *renamings(one, saids[0])])


def approximate(text: str) -> list[str]:
    r"""The sides of `A \approx B`; a name on the left, and nothing, are no side."""
    sides = (
        [side.strip() for side in re.split(r"\\approx(?![a-zA-Z])|≈", text)] if "pprox" in text or "≈" in text else []
    )
    sides = [side for side in sides if side.strip("$ ") and not NAME.fullmatch(side.strip("$ "))]
    return sides or [text]


def _same_whole(gold: str, said: str) -> bool:
    if gold.strip() == said.strip() and gold.strip():
        return True
    if (same := same_labelled(gold, said, _same_whole)) is not None:
        return same
    if (same := same_piecewise(gold, said, _same_whole)) is not None:
        return same
    if ("mod" in gold or "mod" in said) and (same := same_periodic(gold, said)) is not None:
        return same
    ours, theirs = readings(gold, said)
    if not (ours.mixed or theirs.mixed or (_is_single(ours) and _is_single(theirs))):
        for kind in (same_region, same_system, same_list, _same_named):
            same = kind(gold, said, _same_whole)
            if same is not None:
                return same
    return (ours == theirs and bool(ours.math.strip())) or same_leaf(ours, theirs)


def _same_named(gold: str, said: str, same: Callable[[str, str], bool]) -> bool | None:
    """The verdict on `x=5` against `5` or `x=5`; None where neither is named, or the gold answer is an equation."""
    (name, ours), (other_name, theirs) = named_value(gold), named_value(said)
    if (name is None and other_name is None) or is_equation(gold, said):
        return None
    if name is None and shape(gold).kind == "one" and EQUALS.search(gold):
        return None
    return (name is None or other_name is None or name == other_name) and same(ours, theirs)


def _is_single(answer: Answer) -> bool:
    if answer.words or answer.time or answer.base or answer.choice:
        return True
    return answer.mixed or answer.math == r"\emptyset"
