"""Of the solution of a Knights & Knaves puzzle: the same roles in other sentences, and some that say less or else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from posttrain.commands.rewards.forms import Form


def forms(
    names: Sequence[str], solution: Sequence[bool], knight_knave: Mapping[str, str] | None = None
) -> Iterator[Form]:
    """Whole completions that state the solution, and others that do not.

    Args:
        names: The people.
        solution: True for each knight.
        knight_knave: The puzzle's own words for the roles.
    """
    words = {"knight": "knight", "knave": "knave", **(knight_knave or {})}
    role = dict(zip((True, False), (words["knight"], words["knave"]), strict=True))
    a_role = {is_: words.get(key) or f"a {role[is_]}" for is_, key in ((True, "a_knight"), (False, "a_knave"))}
    people = list(zip(names, solution, strict=True))
    said = [f"{name} is {a_role[is_]}" for name, is_ in people]
    sentence = _together(said)

    yield Form("one sentence", sentence + ".", True)
    yield Form("in another order", "\n".join(f"- {one}" for one in reversed(said)), True)
    yield Form("a closing sentence", f"Therefore, we can conclude that {sentence}.", True)
    yield Form("under a heading", "Final answer:\n" + "\n".join(f"{name}: {role[is_]}" for name, is_ in people), True)
    yield Form("in bold", "\n".join(f"**{name}** is **{a_role[is_]}**." for name, is_ in people), True)
    table = [f"| {name} | {role[is_]} |" for name, is_ in people]
    yield Form("a table", "\n".join(["| person | role |", "|---|---|", *table]), True)
    if len(people) > 1:
        yield Form("by roles", "\n".join(_by_roles(people, role)), True)

    for kind, at in (("the first role", 0), ("the last role", -1)):
        flipped = list(people)
        flipped[at] = (people[at][0], not people[at][1])
        yield Form(kind, _together([f"{name} is {a_role[is_]}" for name, is_ in flipped]) + ".", False)
    if len(people) > 1:
        yield Form("one person left out", _together(said[:-1]) + ".", False)
    yield Form("a hedge", f"Perhaps {sentence}.", False)
    yield Form("a question", f"Could it be that {sentence}?", False)
    both = f"{names[-1]} is {a_role[True]} or {a_role[False]}"
    yield Form("both roles of one", _together([*said[:-1], both]) + ".", False)


def _by_roles(people: Sequence[tuple[str, bool]], role: Mapping[bool, str]) -> Iterator[str]:
    for is_, word in role.items():
        some = [name for name, its in people if its is is_]
        if some:
            yield f"{word[0].upper()}{word[1:]}{'s' if len(some) > 1 else ''}: {', '.join(some)}"


def _together(said: Sequence[str]) -> str:
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
