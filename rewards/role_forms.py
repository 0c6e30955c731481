"""The forms in which people are given roles, as patterns over the letters of `role_lexicon`.

Every repetition is bounded or has one way to match, so that no clause takes more than linear time.
"""

from __future__ import annotations

import re

_NAMES = r"N(?:(?:,?&?|/)N)*"
# People in a heading's list: the last of them may already begin the next statement ('... are Bob and Cid is a knight').
_OWN = r"N(?!,?[fn,]{0,3}v|[:>\-|(]+[an]{0,2}R|a?R)"
_LISTED = rf"{_OWN}(?:(?:,?&?|/){_OWN})*"
_QUANTITY = r"(?:n?[AB]o?1?|Z|zg|z[01#]|m{0,2}[01#]|q|nq)"
_EXCEPT = r"(?:,?[x+]f{0,2}B?(?P<but>N(?:(?:,?&?|/)N)*),?)"
_EXCEPT_AFTER = (
    r"(?:,?(?:[x+]f{0,2}B?|[wcG](?=N[ve]a?o?x))(?P<after>N(?:(?:,?&?|/)N)*)(?:[ve]a?o?x|(?![fn]{0,2}v|:|[&/]N|,&N)))"
)
_GROUP = (
    rf"(?P<quantity>{_QUANTITY})[AB]?F?[ag#1k]{{0,5}}"
    rf"(?:[,(]?(?P<members>{_NAMES})(?![fn]{{0,2}}v[^R]{{0,4}}R[,&]{{1,2}}N)[,)]?)?{_EXCEPT}?"
)
_OTHERS = r"(?P<others>A?F?a?(?:O|k[#1g]{0,3}|A[kO]g?))(?:F[ag#1]{1,3})?"
_PEOPLE = rf"(?:(?P<only>o)?(?P<names>{_NAMES})(?P<alone>o)?|(?P<pronoun>p)|{_OTHERS}|{_GROUP})"
_LINK = (
    r"(?P<link>(?:\([ft]{1,3}\))?(?:vl)?[,fTL]{0,3}[fnoAB]{0,3}v"
    r"[fcevnaoBAkTuxb1,h]{0,8}(?:[1a]?g?Fl?a?)?[:>\-]?"  # is, must be, is found to be, is one of the
    r"|(?:v?l)?[#1()f&]{0,3}(?:,?l)?[:>\-|(/][:>\-|()la,fvonBA#1kTi]{0,7}|[:>-][wdc1]\("  # colon, dash, arrow, bracket
    r"|ea?f?|hF|,(?=a)|(?:(?<=^N)|(?<=:N))[,&](?=a?R$)|)"
)
_HEADS = r"[Fag#1l()]{0,4}[v:>\-|(][v:>\-|(),aoBf]{0,4}[NABOZk]"
_MORE = rf"(?P<more>(?:[,&/\-(|>+]{{0,3}}(?:(?:fv)?[anfbBAk]{{0,3}}|w?a|w[^NRhvrY,;:]{{0,6}}&a)R(?!{_HEADS}))*)"
_ROLE = rf"(?P<adjectives>[antobBAkfl#]{{0,5}})(?P<role>R)(?!-w){_MORE}"
_END = r"(?=$|[,&+;:()\-|>.CDrxFefoL])"

STATEMENT = re.compile(
    rf"(?:(?P<before>x)f?(?P<besides>{_NAMES}),)?{_PEOPLE}"
    rf"(?:(?:(?P<truth>(?:[fn,T]{{0,3}}v|[:>\-(])?[fnBAT]{{0,3}}t){_END}(?:[:>(,\-]{{1,2}}a?(?P<bracketed>R))?)"
    rf"|{_LINK}{_ROLE}){_EXCEPT_AFTER}?"
)
LIST = re.compile(_NAMES)
HEADS_A_LIST = re.compile(_HEADS)
HEADING = re.compile(
    rf"(?P<negated>n?)(?P<article>a?)(?P<only>o?)(?P<modifier>m?)(?P<number>[1#]?)(?P<adjectives>[tbfk]{{0,2}})(?P<role>R)"
    rf"(?:[Fagf#1()i]{{0,6}})(?:l{{0,1}})(?P<link>v[foBA]{{0,2}}:?|[:>\-|(][:>\-|(vafoX#1)]{{0,5}}|,f?)"
    rf"(?:(?P<names>{_LISTED})|{_OTHERS}|{_GROUP})"
)
ECHO = re.compile(rf"(?:[,&+]{{0,2}}f?(?:[eZ]f?v|E)|[eZ]f?v|,?&e(?=N(?:$|[,;])))(?P<names>{_NAMES})(?!v)")
ECHO_AS = re.compile(rf",?e(?P<names>{_NAMES})v(?=$|[,.;&])")
OTHERS_NOT = re.compile(rf"[,&+]{{0,2}}{_OTHERS}vnf?$")
ECHO_BEHIND = re.compile(rf"(?P<names>{_NAMES})(?P<link>,?f{{0,3}}(?:v(?P<negated>n)?f?(?:L|1|f)?)|,?f?L){_END}")
NOBODY_THERE = re.compile(rf"(?:x(?P<besides>{_NAMES}),)?" r"(?:Xf?z|^f?z(?=R(?![:l])))(?P<role>R)")
ONLY_THERE = re.compile(r"Xo(?P<role>R)(?![,&/]{1,2}a?R)")
ONWARD = re.compile(rf"(?:^|[,&+])[f]{{0,2}}(?P<link>[fn]{{0,2}}v[fcevnaoBAkTu]{{0,6}}){_ROLE}")
PAIR = re.compile(r"\(N,a?(?P<role>R)\)")
UNANIMOUS = re.compile(r"(?P<quantity>[AB])[Fag#]{0,4}a?(?P<role>R)(?=$|[,.;+x])" + _EXCEPT_AFTER + "?")

# What stands before a statement and takes its force: unknown words at its very side, a negation, a quantity.
BESIDE = re.compile(r"(?:[wntqmHYGzKVx0]|[cu]n|(?<!l)F)a?$")
UNLINKED_BESIDE = re.compile(r"(?:(?:^|[,;])[,&+fnZ]{0,3}v|[ieY]|[wntqmHYGzKVx0]|[cu]n|F)a?$")
DENIED_BEFORE = re.compile(r"(?:d[vfiwac]{0,3}[hwF:]?|n[fviawbcu]{0,4}h|n[fviawb]{0,4}[cuwbB]|wh|^[^N]{0,6}n:|nf?)f?$")
DENIED_AFTER = re.compile(r"[:>(,+\-]{0,3}(?:[ih]?[fv]{0,2}a?o?d|[vwf]{0,3}aK)")


def bounds(words: list[tuple[str, object]], size: int) -> tuple[int, int]:
    """How many of `size` people a quantity means, at least and at most."""
    letters = "".join(letter for letter, _ in words)
    letters = letters.rstrip("o1") if "A" in letters or "B" in letters else letters
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
