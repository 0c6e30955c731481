"""Reading one clause: at each place the forms of `role_forms` are tried in order; the first that fits says who is what.

Reading goes on behind it, so that a clause is one pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from posttrain.rewards.role_forms import (
    BESIDE,
    DENIED_AFTER,
    DENIED_BEFORE,
    ECHO,
    ECHO_AS,
    ECHO_BEHIND,
    HEADING,
    HEADS_A_LIST,
    LIST,
    NOBODY_THERE,
    ONLY_THERE,
    ONWARD,
    OTHERS_NOT,
    PAIR,
    STATEMENT,
    UNANIMOUS,
    UNLINKED_BESIDE,
    bounds,
)
from posttrain.rewards.role_letters import Items

Said = list[tuple[int, bool]]  # person, and whether a knight


@dataclass
class Context:
    """What a clause may refer to."""

    people: int
    last: tuple[int, ...] = ()  # the last subject: who 'she' and 'they' are
    role: bool | None = None  # of the last statement: what 'so is Cid' repeats
    named: set[int] = field(default_factory=set)  # who has been given a role: everyone but 'the others'

    def everyone(self) -> tuple[int, ...]:
        """All positions."""
        return tuple(range(self.people))

    def but(self, some: Iterable[int]) -> tuple[int, ...]:
        """Everyone but some."""
        known = set(some)
        return tuple(person for person in range(self.people) if person not in known)


class _Reader:
    """One clause being read."""

    def __init__(self, items: Items, context: Context):
        self.items, self.context = items, context
        self.said: Said = []

    def people(self, match: re.Match[str], group: str) -> tuple[int, ...]:
        """The people of a group of the match that is a list of names."""
        start, end = match.span(group)
        return tuple(
            value
            for value, letter in zip(self.items.values[start:end], match.group(group), strict=True)
            if letter == "N"
        )

    def give(self, people: Iterable[int], role: bool) -> None:
        """Record the role of people."""
        self.said += [(person, role) for person in people]

    def name(self, people: tuple[int, ...]) -> None:
        """People named by their names: the next subject of 'they', and not among 'the others'."""
        self.context.last = people
        self.context.named.update(people)


def claims_in(items: Items, context: Context) -> Said:
    """All that a clause says, left to right; `context` is kept up to date."""
    reader = _Reader(items, context)
    letters, i = items.letters, 0
    while i < len(letters):
        for pattern, read in _FORMS.get(letters[i], ()):
            match = pattern.match(letters, i)
            if match is not None and match.end() > i:
                before = letters[max(0, i - 12) : i]
                if DENIED_BEFORE.search(before):
                    return reader.said
                if DENIED_AFTER.match(letters, match.end()):
                    i = match.end()
                    break
                end = read(reader, match, before)
                if end:
                    i = end
                    break
        else:
            # Nor does any shorter list of these people lead anywhere.
            i = LIST.match(letters, i).end() if letters[i] == "N" else i + 1  # type: ignore[union-attr]
    return reader.said


def _statement(reader: _Reader, match: re.Match[str], before: str) -> int:
    """'Ann is a knight', 'Everyone but Ann: knave', 'they both lie'."""
    link = match.group("link") or ""
    unlinked = match.group("truth") is None and link in ("", ",")
    relative = link.startswith(",f")  # 'unlike Zoey, who is a knave'
    if not relative and (UNLINKED_BESIDE if unlinked else BESIDE).search(before):
        return match.start("role") if match.group("role") else match.end()
    makes = match.group("pronoun") and before.endswith("c")  # 'making her a knight'
    if unlinked and ((not match.group("names") and not makes) or HEADS_A_LIST.match(match.string, match.end("role"))):
        return 0
    roles = _roles(reader, match)
    if not roles:
        return match.end()
    whom = _whom(reader, match, link)
    if whom is None:
        return match.start("role") if match.group("role") else match.end()
    people, flipped, exclusive = whom
    if match.group("names") and len(roles) == len(people) > 1 and _zips(reader, match, link):
        reader.said += list(zip(people, roles, strict=True))
        return match.end()
    excepted = [g for g in ("besides", "but", "after") if match.group(g)]
    spared = tuple(person for group in excepted for person in reader.people(match, group))
    if spared and match.group("names"):
        spared = ()
    for role in roles:
        role = role != flipped
        reader.give([person for person in people if person not in spared], role)
        reader.give(spared, not role)
        if exclusive:
            reader.give(reader.context.but(people), not role)
        reader.context.role = role
    if spared:
        reader.name(spared)
    return match.end()


def _roles(reader: _Reader, match: re.Match[str]) -> list[bool]:
    """The roles of a statement, negations applied; none where it says too little ('are not both knights')."""
    values = reader.items.values
    if match.group("truth") is not None:
        truth = match.group("truth")
        said = values[match.end("truth") - 1] != (truth.count("n") % 2 == 1)
        if re.search("n.*[AB]", truth):
            return []
        bracketed = [values[match.start("bracketed")]] if match.group("bracketed") else []
        return [said, *bracketed] if bracketed != [said] else [said]
    between = (match.group("link") or "") + match.group("adjectives")
    if re.search("n.*[AB]", between):
        return []
    role = values[match.start("role")]
    start = match.start("adjectives")
    for offset, letter in enumerate(match.group("adjectives")):
        if letter == "t" and values[start + offset] != role:
            return []
    roles = [role != (between.count("n") % 2 == 1)]
    negated = False
    for offset, letter in enumerate(match.group("more") or ""):
        if letter == "n":
            negated = not negated
        elif letter == "R":
            roles.append(values[match.start("more") + offset] != negated)
            negated = False
    return roles


def _whom(reader: _Reader, match: re.Match[str], link: str) -> tuple[tuple[int, ...], bool, bool] | None:
    """The people of a subject, whether it turns the role round ('none of'), and whether it is of them only."""
    context = reader.context
    between = link + (match.groupdict().get("adjectives") or "")
    if match.group("names"):
        people = reader.people(match, "names")
        reader.name(people)
        groups = match.groupdict()
        only = bool(groups.get("only") or groups.get("alone")) or "ao" in between
        return people, False, only
    if match.groupdict().get("pronoun"):
        if "B" in between:
            return _pair(context), False, False
        if "A" in between:
            return (context.last if len(context.last) > 2 else context.everyone()), False, False
        if "ao" in between:
            return context.last, False, True
        return context.last, False, False
    if match.group("others"):
        return (context.but(context.named) if context.named else ()), False, False
    return _quantified(reader, match)


def _pair(context: Context) -> tuple[int, ...]:
    if context.people == 2:
        return context.everyone()
    return context.last if len(context.last) == 2 else ()


def _quantified(reader: _Reader, match: re.Match[str]) -> tuple[tuple[int, ...], bool, bool] | None:
    """'All of', 'neither', 'exactly two of': the people if the quantity settles all of them, else None."""
    context = reader.context
    members = reader.people(match, "members") if match.group("members") else None
    quantity = match.group("quantity")
    domain = members if members is not None else (_pair(context) if quantity == "B" else context.everyone())
    if members is not None:
        reader.name(members)
    start = match.start("quantity")
    words = list(zip(quantity, reader.items.values[start : match.end("quantity")], strict=True))
    low, high = bounds(words, len(domain))
    if low >= len(domain):
        return domain, False, False
    if high <= 0:
        return domain, True, False
    return None


def _zips(reader: _Reader, match: re.Match[str], link: str) -> bool:
    """'Ann and Bob are a knight and a knave, respectively', '(Ann, Bob) = (knight, knave)'."""
    behind = reader.items.values[match.end() : match.end() + 3]
    return (
        any(mark in link for mark in ":>")
        or "respectively" in reader.items.values[match.start() : match.end()] + behind
    )


def _heading(reader: _Reader, match: re.Match[str], before: str) -> int:
    """'Knights: Ann, Bob', 'the only knave is Cid', 'one knight (Ann)', 'Knaves: everyone else'."""
    number, link = match.group("number"), match.group("link")
    alone = match.end() == len(match.string) and not before.strip("&a")  # '...; the knave, Max'
    there = before.endswith("X") or bool(number) or alone
    if link.startswith(",") and not there:
        return 0
    if re.search(r"R[,&/]{1,2}a?$", before):
        return match.end()  # 'the knights and knaves are ...'
    if re.search(r"[wHY]a?n?a?$|[NO]v?[nfa]*$", before) and not there:
        return 0
    role = reader.items.values[match.start("role")] != (match.group("negated") == "n" or "n" in before[-2:])
    whom = _whom(reader, match, "")
    if whom is None:
        return match.end()
    people, flipped, _ = whom
    count = reader.items.values[match.start("number")] if number else None
    if match.group("names") and isinstance(count, int) and count != len(people):
        return match.end()
    spared = reader.people(match, "but") if match.group("but") else ()
    reader.give([person for person in people if person not in spared], role != flipped)
    reader.give(spared, role == flipped)
    exclusive = match.group("only") or "o" in link or before.endswith(("o", "Xo")) or match.group("modifier")
    if exclusive and match.group("names"):
        reader.give(reader.context.but(people), not role)
    reader.context.role = role != flipped
    return match.end()


def _echo(reader: _Reader, match: re.Match[str], before: str) -> int:
    """'... and so is Cid'."""
    if reader.context.role is None:
        return 0
    people = reader.people(match, "names")
    reader.name(people)
    reader.give(people, reader.context.role)
    return match.end()


def _echo_behind(reader: _Reader, match: re.Match[str], before: str) -> int:
    """'..., Cid too', '..., but Cid is not'."""
    link = match.group("link")
    if reader.context.role is None or BESIDE.search(before) or not (match.group("negated") or link[-1] in "L1"):
        return 0
    people = reader.people(match, "names")
    reader.name(people)
    reader.give(people, reader.context.role != bool(match.group("negated")))
    return match.end()


def _others_not(reader: _Reader, match: re.Match[str], before: str) -> int:
    """'Ann is a knight; the other two are not.'"""
    context = reader.context
    if context.role is None or not context.named:
        return 0
    reader.give(context.but(context.named), not context.role)
    return match.end()


def _of_everyone(wanted: bool) -> Callable[[_Reader, re.Match[str], str], int]:
    """'There are no knights' (not wanted), 'there are only knaves'."""

    def read(reader: _Reader, match: re.Match[str], before: str) -> int:
        role = reader.items.values[match.start("role")]
        besides = match.groupdict().get("besides")
        spared = reader.people(match, "besides") if besides else ()
        reader.give(reader.context.but(spared), role == wanted)
        reader.give(spared, role != wanted)
        return match.end()

    return read


def _onward(reader: _Reader, match: re.Match[str], before: str) -> int:
    """'Ann tells the truth and is a knight': the subject stays."""
    if not reader.context.last:
        return 0
    for role in _roles_onward(reader, match):
        reader.give(reader.context.last, role)
        reader.context.role = role
    return match.end()


def _roles_onward(reader: _Reader, match: re.Match[str]) -> list[bool]:
    between = match.group("link") + match.group("adjectives")
    role = reader.items.values[match.start("role")]
    return [] if re.search("n.*[AB]", between) or match.group("more") else [role != (between.count("n") % 2 == 1)]


def _pair_in_brackets(reader: _Reader, match: re.Match[str], before: str) -> int:
    person = reader.items.values[match.start() + 1]
    reader.name((person,))
    reader.give([person], reader.items.values[match.start("role")])
    return match.end()


def _unanimous(reader: _Reader, match: re.Match[str], before: str) -> int:
    """'Both knaves.', 'All knights except Ann.'"""
    if BESIDE.search(before):
        return match.end()
    domain = _pair(reader.context) if match.group("quantity") == "B" else reader.context.everyone()
    spared = reader.people(match, "after") if match.group("after") else ()
    role = reader.items.values[match.start("role")]
    reader.give([person for person in domain if person not in spared], role)
    reader.give(spared, not role)
    return match.end()


_Form = tuple[re.Pattern[str], Callable[[_Reader, re.Match[str], str], int]]
#: First letter -> the forms that may begin with it, in the order in which they are tried.
_FORMS: dict[str, tuple[_Form, ...]] = {}
for _letters, _pattern, _read in (
    ("(", PAIR, _pair_in_brackets),
    ("xoNpABZznm01#qakO", STATEMENT, _statement),
    (",&+eZE", ECHO, _echo),
    (",e", ECHO_AS, _echo),
    ("N", ECHO_BEHIND, _echo_behind),
    ("naom1#tbfkR", HEADING, _heading),
    ("AB", UNANIMOUS, _unanimous),
    ("OakA,&+", OTHERS_NOT, _others_not),
    ("xXz", NOBODY_THERE, _of_everyone(False)),
    ("X", ONLY_THERE, _of_everyone(True)),
    (",&+fvn", ONWARD, _onward),
):
    for _letter in _letters:
        _FORMS[_letter] = (*_FORMS.get(_letter, ()), (_pattern, _read))
