"""Reading one clause: the forms in which people are given roles, as patterns over the letters of `role_lexicon`.

At each place of a clause the forms are tried in order; the first that fits says who is what, and reading goes on
behind it. Every repetition is bounded or has one way to match, so that no clause takes more than linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from posttrain.rewards.role_lexicon import Items

Said = list[tuple[int, bool]]  # person, and whether a knight

_NAMES = r"N(?:(?:,?&?|/)N)*"
# People in a heading's list: the last of them may already begin the next statement ('... are Bob and Cid is a knight').
_OWN = r"N(?!,?[fn,]{0,3}v|[:>\-|(]+[an]{0,2}R|a?R)"
_LISTED = rf"{_OWN}(?:(?:,?&?|/){_OWN})*"
_QUANTITY = r"(?:n?[AB]1?|Z|zg|z[01#]|m{0,2}[01#]|q|nq)"
_EXCEPT = r"(?:,?[x+]f{0,2}B?(?P<but>N(?:(?:,?&?|/)N)*),?)"
_EXCEPT_AFTER = r"(?:,?(?:[x+]f{0,2}B?|[wcG](?=N[ve]a?o?x))(?P<after>N(?:(?:,?&?|/)N)*)(?:[ve]a?o?x|(?![fn]{0,2}v|:)))"
_GROUP = rf"(?P<quantity>{_QUANTITY})[AB]?F?[ag#1k]{{0,5}}(?:[,(]?(?P<members>{_NAMES})(?![fn]{{0,2}}v[^R]{{0,4}}R[,&]{{1,2}}N)[,)]?)?{_EXCEPT}?"
_OTHERS = r"(?P<others>A?F?a?(?:O|k[#1g]{0,3}|A[kO]g?))(?:F[ag#1]{1,3})?"
_PEOPLE = rf"(?:(?P<only>o)?(?P<names>{_NAMES})(?P<alone>o)?|(?P<pronoun>p)|{_OTHERS}|{_GROUP})"
_LINK = (
    r"(?P<link>(?:\([ft]{1,3}\))?(?:vl)?[,fTL]{0,3}[fnoAB]{0,3}v[fcevnaoBAkTuxb1,]{0,8}(?:[1a]?g?Fl?a?)?"  # is, must be, is found to be
    r"|(?:v?l)?[#1()f&]{0,3}(?:,?l)?[:>\-|(][:>\-|()la,fvonBA#1kTi]{0,7}|[:>-][wdc1]\("  # colon, dash, bar, arrow, bracket
    r"|ea?f?|,(?=a)|(?:(?<=^N)|(?<=:N))[,&](?=a?R$)|)"
)
_HEADS = r"[Fag#1l()]{0,4}[v:>\-|(][v:>\-|(),aoBf]{0,4}[NABOZk]"
_MORE = rf"(?P<more>(?:[,&/\-(|>+]{{0,3}}(?:fv)?[anfbBAk]{{0,3}}R(?!{_HEADS}))*)"
_ROLE = rf"(?P<adjectives>[antobBAkfl]{{0,5}})(?P<role>R)(?!-w){_MORE}"
_END = r"(?=$|[,&+;:()\-|>.CDrxFefoL])"

_STATEMENT = re.compile(
    rf"(?:(?P<before>x)f?(?P<besides>{_NAMES}),)?{_PEOPLE}"
    rf"(?:(?:(?P<truth>(?:[fn,T]{{0,3}}v|[:>\-(])?[fnBAT]{{0,3}}t){_END}(?:[:>(,\-]{{1,2}}a?(?P<bracketed>R))?)"
    rf"|{_LINK}{_ROLE}){_EXCEPT_AFTER}?"
)
_LIST = re.compile(_NAMES)
_HEADS_A_LIST = re.compile(_HEADS)
_HEADING = re.compile(
    rf"(?P<negated>n?)(?P<article>a?)(?P<only>o?)(?P<modifier>m?)(?P<number>[1#]?)(?P<adjectives>[tbfk]{{0,2}})(?P<role>R)"
    rf"(?:[Fagf#1()i]{{0,6}})(?:l{{0,1}})(?P<link>v[foBA]{{0,2}}:?|[:>\-|(][:>\-|(vafoX#1)]{{0,5}}|,f?)"
    rf"(?:(?P<names>{_LISTED})|{_OTHERS}|{_GROUP})"
)
_ECHO = re.compile(rf"(?:[,&+]{{0,2}}f?(?:[eZ]f?v|E)|[eZ]f?v)(?P<names>{_NAMES})(?!v)")
_ECHO_AS = re.compile(rf",?e(?P<names>{_NAMES})v(?=$|[,.;&])")
_ECHO_BEHIND = re.compile(rf"(?P<names>{_NAMES})(?P<link>,?f{{0,3}}(?:v(?P<negated>n)?f?(?:L|1|f)?)|,?f?L){_END}")
_NOBODY_THERE = re.compile(r"(?:Xf?z|^f?z(?=R(?![:l])))(?P<role>R)")
_ONLY_THERE = re.compile(r"Xo(?P<role>R)(?![,&/]{1,2}a?R)")
_ONWARD = re.compile(rf"(?:^|[,&+])[f]{{0,2}}(?P<link>[fn]{{0,2}}v[fcevnaoBAkTu]{{0,6}}){_ROLE}")
_PAIR = re.compile(r"\(N,a?(?P<role>R)\)")
_UNANIMOUS = re.compile(r"(?P<quantity>[AB])[Fag#]{0,4}a?(?P<role>R)(?=$|[,.;+x])" + _EXCEPT_AFTER + "?")

# What stands before a statement and takes its force: unknown words at its very side, a negation, a quantity.
_BESIDE = re.compile(r"(?:[wntqmHYGzKVx0]|[cu]n|(?<!l)F)a?$")
_UNLINKED_BESIDE = re.compile(r"(?:^[,&+f]{0,3}v|[ieY]|[wntqmHYGzKVx0]|[cu]n|F)a?$")
_DENIED_BEFORE = re.compile(
    r"(?:d[vfiwac]{0,3}[hwF:]?|n[fviawbcu]{0,4}h|n[fviawb]{0,4}[cuwbB]|w[hf]|^[^N]{0,6}n:|nf?)f?$"
)
_DENIED_AFTER = re.compile(r"[:>(,\-]{0,2}(?:[ih]?[fv]{0,2}a?d|[vw]?w{0,2}aK)")


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
                if _DENIED_BEFORE.search(before):
                    return reader.said
                if _DENIED_AFTER.match(letters, match.end()):
                    i = match.end()
                    break
                end = read(reader, match, before)
                if end:
                    i = end
                    break
        else:
            # Nor does any shorter list of these people lead anywhere.
            i = _LIST.match(letters, i).end() if letters[i] == "N" else i + 1  # type: ignore[union-attr]
    return reader.said


def _statement(reader: _Reader, match: re.Match[str], before: str) -> int:
    """'Ann is a knight', 'Everyone but Ann: knave', 'they both lie'."""
    link = match.group("link") or ""
    unlinked = match.group("truth") is None and link in ("", ",")
    relative = link.startswith(",f")  # 'unlike Zoey, who is a knave'
    if not relative and (_UNLINKED_BESIDE if unlinked else _BESIDE).search(before):
        return match.start("role") if match.group("role") else match.end()
    makes = match.group("pronoun") and before.endswith("c")  # 'making her a knight'
    if unlinked and ((not match.group("names") and not makes) or _HEADS_A_LIST.match(match.string, match.end("role"))):
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
    low, high = _bounds(words, len(domain))
    if low >= len(domain):
        return domain, False, False
    if high <= 0:
        return domain, True, False
    return None


def _bounds(words: list[tuple[str, object]], size: int) -> tuple[int, int]:
    """How many of `size` people a quantity means, at least and at most."""
    letters = "".join(letter for letter, _ in words)
    letters = letters.rstrip("1") if "A" in letters or "B" in letters else letters
    if letters in ("A", "B"):
        return size, size
    if letters in ("nA", "nB"):
        return 0, size - 1
    if letters in ("Z", "zg", "z1"):
        return 0, 0
    number = words[-1][1]
    if not isinstance(number, int):
        return 1, size
    if letters.startswith("z"):
        return 0, number - 1
    modifier = next((word for letter, word in words if letter == "m"), "exactly")
    low, high = _MODIFIERS.get(str(modifier), (None, None))
    return (0 if low is None else number + low), (size if high is None else number + high)


#: What to add to a number for the bounds; None: no bound.
_MODIFIERS: dict[str, tuple[int | None, int | None]] = {
    **dict.fromkeys(("exactly", "precisely"), (0, 0)),
    **dict.fromkeys(("at least", "no fewer than", "no less than", "not fewer than"), (0, None)),
    **dict.fromkeys(("at most", "no more than", "not more than", "up to", "only up to"), (None, 0)),
    "more than": (1, None),
    **dict.fromkeys(("fewer than", "less than"), (None, -1)),
}


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
    if reader.context.role is None or _BESIDE.search(before) or not (match.group("negated") or link[-1] in "L1"):
        return 0
    people = reader.people(match, "names")
    reader.name(people)
    reader.give(people, reader.context.role != bool(match.group("negated")))
    return match.end()


def _of_everyone(wanted: bool) -> Callable[[_Reader, re.Match[str], str], int]:
    """'There are no knights' (not wanted), 'there are only knaves'."""

    def read(reader: _Reader, match: re.Match[str], before: str) -> int:
        role = reader.items.values[match.start("role")]
        reader.give(reader.context.everyone(), role == wanted)
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
    if _BESIDE.search(before):
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
    ("(", _PAIR, _pair_in_brackets),
    ("xoNpABZznm01#qakO", _STATEMENT, _statement),
    (",&+eZE", _ECHO, _echo),
    (",e", _ECHO_AS, _echo),
    ("N", _ECHO_BEHIND, _echo_behind),
    ("naom1#tbfkR", _HEADING, _heading),
    ("AB", _UNANIMOUS, _unanimous),
    ("Xz", _NOBODY_THERE, _of_everyone(False)),
    ("X", _ONLY_THERE, _of_everyone(True)),
    (",&+fvn", _ONWARD, _onward),
):
    for _letter in _letters:
        _FORMS[_letter] = (*_FORMS.get(_letter, ()), (_pattern, _read))
