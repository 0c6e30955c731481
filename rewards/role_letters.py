"""From tokens to the letters that the grammar is written in: classes of words, and what words mean side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from posttrain.rewards.role_lexicon import CLASSES, LYING, NUMBERS, TRUTHFUL
from posttrain.rewards.role_words import Token


class Items(NamedTuple):
    """A stretch of text as the grammar reads it: one letter an item, and what each item stands for."""

    letters: str
    values: list[Any]

    def cut(self, start: int, end: int | None = None) -> Items:
        """A part of it."""
        return Items(self.letters[start:end], self.values[start:end])


_Entry = tuple[tuple[str, ...], str, Any]  # words, letters, value


def _tables() -> tuple[dict[str, _Entry], dict[tuple[str, str], list[_Entry]]]:
    """Single words, and phrases by their first two words, longest first."""
    entries: list[tuple[str, str, Any]] = [
        (phrase, letters, phrase.replace("_", " ")) for letters, text in CLASSES.items() for phrase in text.split()
    ]
    entries += [(phrase, "t", truth) for text, truth in ((TRUTHFUL, True), (LYING, False)) for phrase in text.split()]
    single: dict[str, _Entry] = {}
    phrases: dict[tuple[str, str], list[_Entry]] = {}
    for phrase, letters, value in entries:
        words = tuple(phrase.split("_"))
        entry = (words, letters, NUMBERS.get(value, value))
        if len(words) == 1:
            single.setdefault(phrase, entry)
        else:
            phrases.setdefault((words[0], words[1]), []).append(entry)
    for some in phrases.values():
        some.sort(key=lambda entry: -len(entry[0]))
    return single, phrases


_SINGLE, _PHRASES = _tables()


def _entry(tokens: Sequence[Token], i: int) -> _Entry | None:
    """What the word at `i` is, with those behind it as long as they are one phrase."""
    if i + 1 < len(tokens):
        for entry in _PHRASES.get((tokens[i].value, tokens[i + 1].value), ()):
            if tuple(token.value for token in tokens[i : i + len(entry[0])]) == entry[0]:
                return entry
    return _SINGLE.get(tokens[i].value)


def itemize(tokens: Sequence[Token]) -> Items:
    """The letters and values of tokens, with phrases taken as one."""
    letters: list[str] = []
    values: list[Any] = []
    i = 0
    while i < len(tokens):
        kind, value = tokens[i]
        step = 1
        if kind == "word":
            found = _entry(tokens, i)
            if found is None:
                # Single letters name alternatives ('Solution B'), as numbers do.
                letters.append("1" if len(value) == 1 and value.isascii() else "w")
                values.append(value)
            else:
                step = len(found[0])
                letters.append(found[1])
                values += [found[2]] * len(found[1])
        elif kind == "num":
            number = int(value[:6])
            letters.append("01"[number] if number < 2 else "#")
            values.append(number)
        elif kind in _KINDS or kind == "mark":
            letters.append(_KINDS.get(kind) or value)
            values.append(value)
        i += step
    return Items("".join(letters), values)


_KINDS = {"name": "N", "role": "R", "arrow": ">"}


#: What words mean beside each other, in order: where the pattern matches, every letter becomes the one given.
_RULES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), letter)
    for pattern, letter in (
        (r"=", ">"),
        (r"s(?=v[NB])", "e"),
        (r"s", "C"),
        (r"(?<![vNT])T", "V"),
        # 'no, ...' and 'is no knight'
        (r"^z(?=[,\-:.]|$)|(?<=[,\-:])z(?=[,\-])", "V"),
        (r"(?<=v)z(?=[ab]?R)", "n"),
        # 'according to Max's statement', 'by Max's account'
        (r"[~G]Nv(?:(?<=~Nv)j|W)(?=,f?N)", "~"),
        (r"W", "w"),
        # 'the opposite is possible too'
        (r"^[&+,f]{0,3}nvf?H(?=L?$)", "U"),
        # 'the only impossible assignment is', 'the only case that fails is'
        (r"d[wbHt]{0,2}[QP*](?=v|:|$)|[QP*]f?h?f?K(?=v?:|vh?N)", "d"),
        # 'Based on the statements', 'according to our analysis', 'given their claims'; but not 'the claim that ...'
        (
            r"[G^~](?:h(?=[^,:]{0,6}[Jj]))?[^,;:SIRYh~]{0,14}?[Jj](?!h)(?:F[ag#1NB&]{1,6})?"
            r"(?:[&,]{1,2}[^,;:SIRYh^~&]{0,6}?[Jj](?!h)){0,6}",
            "f",
        ),
        (r"[G^][ABf]{0,2}i[pN&,]{1,4}Y(?=[,:])|(?:[G^~]|<[wA])[^,;:NRSIvht~^]{0,10}(?=,)", "f"),
        (r"^FNv[fwj]{1,2}(?=,)", "~"),
        (r"^F[^,;:NRSIhH*@]{0,10}(?=,)|^F[^,;:NRSIh@]{0,8}P(?=,)|^F(?=N[:,])", "f"),
        (r"\^(?=[,;.C]|$)", "f"),
        (r"[G^][ih](?=[,:CDfi])", "f"),
        (r"(?<![NR])e[fi}wcYuv]{1,5}[wfJGj]{0,4}(?=,|$)", "f"),
        (r"I[i]f?_[^,IS]{0,14},", "f"),
        (r"\^", "I"),
        (r"(?<=c)\$(?=aR)", "p"),
        (r"^`h?(?=N)", "<"),
        (r"`", "c"),
        (r"[<S][fw]{0,2}[QP]", "<"),
        # Who says it: 'this tells us', 'we say' are the writer's own words
        (r"(?<=[ihQPJ])(?:f|}w?){0,2}Y(?=[ihN]|[fwi]{1,3}h)", "c"),
        (r"(?<=}v)Y(?=h)", "c"),
        (r"(?<=[Np])f?j(?!:)|(?<=[AB1])j(?=h)", "Y"),
        (r"(?:(?<=Nv)|\$)[fwao1#@$d]{0,2}[jQ](?=v?[fv]?(?:[h:NABZpq]|$)|F(?!N[vc]))", "Y"),
        (r"[jQ](?=[FG][N&,$wa]{1,6}(?:v?h|v?:|$))|j(?=v?h|[1#]?:|[wfv]{0,3}:$)", "Y"),
        (r"[Jj](?=v?[fAB]{0,2}[yc])", "i"),
        (r"[Jj$]", "f"),
        (r"(?<=[ih,])y", "C"),
        (r"(?<=[Rt])y", "I"),
        (r"y", "c"),
        # 'is therefore a knave', 'Bob, therefore, is', 'must thus be'
        (r"(?<=v)[CD]", "f"),
        (r"(?<=[Nf])C(?=[fn]{0,2}v)|(?<=N),C,(?=[fn]{0,2}v)", "f"),
        (r"(?<=N),[+],(?=[fn]{0,2}v)", "f"),
        # 'can be determined', 'we can', 'can only'; any other 'can' leaves it open
        (r"(?<=i)}(?!v)|}(?=[no]|v?f?[cu])", "f"),
        (r"}", "H"),
        (r"%", "H"),
        # 'cannot be determined', 'not sure', 'impossible to know'
        (r"n[fviwH]{0,3}u|d[fwv]{0,2}u", "U"),
        # 'no other assignment', 'any other leads to a contradiction'
        (r"[qzA]@?k[^.;N]{0,12}K|k[*QPw<]{1,3}[^,;N]{0,6}K|[qzA]@?k[fwbH]{0,3}[QP*]", "f"),
        (r"z[fwbH@]{0,3}[QP]", "M"),
        (r"n[fwa]{0,2}o[^,;:NRv]{0,4}[QP*]", "M"),
        # 'the only possible solution', 'the correct option', 'in this case'
        (r"(?:^|(?<=[^oXm]))(?:b|o[^,;:NRv()]{0,4}|1o[^,;:NRv()]{0,3})[fbHwt@]{0,2}[Q*P]", "Q"),
        (r"(?<=X)[ofma]{0,3}1[fbHwt]{0,3}[Q*]", "Q"),
        (r"[Fwfi]?[ih]\*(?!\[)", "f"),
        (r"n(?=a?\*h)", "d"),
        (r"(?<=v)a?\*(?=h)", "c"),
        (r"[1@][fwbH]{0,2}\*(?=v[h:N])|[@k]\*(?!v)|\*(?=h|\[|[1#a]?[:,\-.)(]|[1#])|^\*", "S"),
        (r"\*", "f"),
        # several solutions, and the labels of each
        (r"[#q][@wfHb]{0,3}P|m1[wfHb]{0,2}[PQ]|BP|[@k][wfbH]{0,2}[QP]|(?<![oXma])1[wHfb]{0,3}Q(?![1#])", "M"),
        (r"H[wfb]{0,2}[QP]", "M"),
        (r"Q(?=[1#][:.)\-,(>]|[1#]$|a[:.)])", "!"),
        (r"[QP](?=[:>\-,(hvN\[]|[fcbg#AF]{1,4}[vh:,]|$)(?<!v.)", "D"),
        (r"[QP]", "f"),
        (r"G", "w"),
        (r"(?<=R)>(?=N[fn]{0,2}v)", "I"),
        (r"^[^N]{0,20}RH[^N]{0,6}R(?=[^N]{0,20}:)", "f"),
    )
]


def framed(items: Items) -> Items:
    """The same items, with the letters that depend on the words beside them settled."""
    settle = _settled_before if len(items.letters) <= _REMEMBERED_LENGTH else _settled
    return Items(settle(items.letters), items.values)


_REMEMBERED_LENGTH = 120


def _settled(letters: str) -> str:
    for pattern, letter in _RULES:
        letters = pattern.sub(lambda match, letter=letter: letter * len(match.group()), letters)  # type: ignore[misc]
    return letters


# Sentences of one form have the same letters, whoever they are about.
_settled_before = lru_cache(maxsize=8192)(_settled)
