"""Reading one clause: the small grammar of 'who is what', over tokens.

people     = NAME {[,] [and] NAME} | both | all of them | everyone [but NAME] | the others | neither NAME nor NAME
predicate  = is | are | must be | cannot be | : | = | -> | - | "|" | "(" ... then [not] [a | an | the] ROLE
statement  = people predicate {(, | and | but) [not] ROLE}
           | ROLE (is | are | : | = | -> | - | "|" | "(") people
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

from posttrain.rewards.role_words import Token, words


@dataclass(frozen=True)
class Claim:
    """One person, or one group as yet unresolved, and the role it is given."""

    EVERYONE: ClassVar[int] = -1
    OTHERS: ClassVar[int] = -2  # everyone not in `besides`; if that is empty, everyone without a claim so far
    BOTH: ClassVar[int] = -3  # everyone, if they are two

    person: int
    role: bool
    besides: tuple[int, ...] = ()


class _Subject(NamedTuple):
    people: list[int]
    end: int
    besides: tuple[int, ...] = ()  # 'everyone but ...'
    only: bool = False
    negated: bool = False


_END = Token("end", "")
_ARTICLES = frozenset(("a", "an", "the"))
_COPULAS = frozenset(("is", "are", "'s", "'re", "was", "isn't", "aren't"))
_NEGATIONS = words("not never isn't aren't cannot can't")
_ROLE_NOUNS = words("role type identity status kind class")
_FILLERS = words(
    "identified determined found considered classified to be as type of role in fact indeed both all also then clearly "
    "definitely certainly surely really actually truly necessarily always just simply again each who which "
    "himself herself themselves being true real respectively therefore thus hence so"
)
_GROUP = words(
    "of them these those people inhabitants inhabitant islanders persons person individuals characters residents "
    "folks two three four five six seven eight here on island this group one member members the"
)
_ALL = words("everyone everybody all each")
_NOBODY = words("none nobody neither")
_JOINERS = frozenset((",", "and", "&", "but", "/", "-", "(", "|", "yet"))
_DENIED = words("false untrue wrong incorrect impossible contradictory inconsistent")
_LEADS = words("is leads gives creates causes results yields produces makes")


def claims_in(tokens: Sequence[Token]) -> list[Claim]:
    """All statements of a clause, left to right."""
    claims: list[Claim] = []
    i = 0
    if _denied_from_the_start(tokens):
        return claims
    while i < len(tokens):
        found = _statement(tokens, i) or _heading(tokens, i)
        if found is None:
            i += 1
        else:
            claims += found[0]
            i = found[1]
    return claims


def names_only(tokens: Sequence[Token]) -> list[int]:
    """The people of a line that has only names and marks; empty for any other line."""
    if any(token.kind in ("role", "word") and token.value != "and" for token in tokens):
        return []
    return [token.value for token in tokens if token.kind == "name"]


def only_roles(tokens: Sequence[Token]) -> list[bool]:
    """The roles of a line that has only role words, articles and marks; empty for any other line."""
    if any(token.kind == "name" or (token.kind == "word" and token.value not in _ARTICLES) for token in tokens):
        return []
    if any(token.value == "/" for token in tokens):
        return []
    return [token.value for token in tokens if token.kind == "role"]


def _at(tokens: Sequence[Token], i: int) -> Token:
    return tokens[i] if 0 <= i < len(tokens) else _END


def _denied_from_the_start(tokens: Sequence[Token]) -> bool:
    """'It is not true that ...', 'it is impossible for ...', 'I doubt that ...', 'This is wrong: ...'."""
    for token, following in pairwise(tokens[:9]):
        if following.value == ":" and token.kind == "word" and token.value in _DENIED | {"not"}:
            return True
    values = [token.value for token in tokens[:8] if token.kind == "word"]
    for i, value in enumerate(values):
        after = values[i + 1] if i + 1 < len(values) else ""
        if value in ("think", "believe") and set(values[:i]) & {"don't", "doesn't", "not", "never"}:
            return True
        if after not in ("that", "for"):
            continue
        if value in _DENIED or value in ("doubt", "deny"):
            return True
        if value in ("true", "case", "correct") and set(values[:i]) & _NEGATIONS:
            return True
    return False


def _statement(tokens: Sequence[Token], i: int) -> tuple[list[Claim], int] | None:
    """People, then what they are, from position i: the claims and where the statement ends."""
    subject = _subject(tokens, i)
    if subject is None:
        return None
    predicate = _predicate(tokens, subject.end)
    if predicate is None:
        return [], subject.end  # nor does any shorter list of these people lead anywhere
    roles, end, only = predicate
    if _led_to_nothing(tokens, end):
        return [], end
    alike, end = _so_are(tokens, end)
    subject = subject._replace(people=subject.people + alike)
    return _assigned(subject, roles, only, _zips(tokens[subject.end : end + 3], subject, roles)), end


def _so_are(tokens: Sequence[Token], i: int) -> tuple[list[int], int]:
    """People who are the same: '... and so is Cid', '..., as are Cid and Dan'."""
    j = _skip(tokens, i + 1 if _at(tokens, i).value == "," else i, {"and"})
    verb, person = _at(tokens, j + 1).value, _at(tokens, j + 2)
    if _at(tokens, j).value in ("so", "as") and verb in ("is", "are") and person.kind == "name":
        return _name_list(tokens, j + 2)
    return [], i


def _zips(after: Sequence[Token], subject: _Subject, roles: list[bool]) -> bool:
    """'Ann and Bob are a knight and a knave, respectively', '(Ann, Bob) = (knight, knave)'.

    `after` are the tokens from the people's end to just behind the roles.
    """
    if len(subject.people) != len(roles) or len(roles) < 2 or min(subject.people) < 0:
        return False
    link = _at(after, 1 if _at(after, 0).value == ")" else 0)
    return link.value in ("=", ":") or link.kind == "arrow" or Token("word", "respectively") in after


def _assigned(subject: _Subject, roles: list[bool], only: bool, zips: bool) -> list[Claim]:
    if zips:
        return [Claim(person, role) for person, role in zip(subject.people, roles, strict=True)]
    claims = []
    for role in roles:
        role = role != subject.negated
        if subject.besides:
            claims.append(Claim(Claim.OTHERS, role, subject.besides))
            claims += [Claim(person, not role) for person in subject.besides]
            continue
        claims += [Claim(person, role) for person in subject.people]
        if (only or subject.only) and min(subject.people) >= 0:
            claims.append(Claim(Claim.OTHERS, not role, tuple(subject.people)))
    return claims


def _subject(tokens: Sequence[Token], i: int) -> _Subject | None:
    token, before = _at(tokens, i), _at(tokens, i - 1).value
    if token.kind == "name":
        people, end = _name_list(tokens, i)
        return _Subject(people, end)
    if token.kind != "word" or before == "not":
        return None
    following = _at(tokens, i + 1)
    if token.value in ("only", "just") and following.kind == "name":
        people, end = _name_list(tokens, i + 1)
        return _Subject(people, end, only=True)
    if token.value in ("both", "neither") and following.kind == "name":
        people, end = _name_list(tokens, i + 1)
        return _Subject(people, end, negated=token.value == "neither")
    return _group(tokens, i)


def _group(tokens: Sequence[Token], i: int) -> _Subject | None:
    """'Everyone', 'all of them', 'both', 'none of them', 'the others', 'they are both ...'."""
    word, following = _at(tokens, i).value, _at(tokens, i + 1).value
    if word in ("others", "rest") or (word in ("other", "remaining") and _at(tokens, i - 1).value in ("the", "all")):
        return _Subject([Claim.OTHERS], _skip(tokens, i + 1, _GROUP | {"ones"}))
    if word in _ALL and following in ("else", "others", "other"):
        return _Subject([Claim.OTHERS], _skip(tokens, i + 2, _GROUP))
    if word == "they" and following in _COPULAS and _at(tokens, i + 2).value in ("both", "all"):
        return _Subject([Claim.BOTH if _at(tokens, i + 2).value == "both" else Claim.EVERYONE], i + 1)
    if word == "no" and following == "one":
        return _Subject([Claim.EVERYONE], i + 2, negated=True)
    if word == "both":
        return _Subject([Claim.BOTH], _skip(tokens, i + 1, _GROUP))
    if word in _NOBODY:
        whom = Claim.BOTH if word == "neither" else Claim.EVERYONE
        return _Subject([whom], _skip(tokens, i + 1, _GROUP), negated=True)
    if word not in _ALL or (following == "the" and _at(tokens, i + 2).value in ("other", "others", "rest")):
        return None
    end = _skip(tokens, i + 1, _GROUP)
    if _at(tokens, end).value in ("but", "except", "besides"):
        end = _skip(tokens, end + 1, {"for"})
        if _at(tokens, end).kind != "name":
            return None
        people, end = _name_list(tokens, end)
        return _Subject([Claim.OTHERS], end, besides=tuple(people))
    return _Subject([Claim.EVERYONE], end)


def _name_list(tokens: Sequence[Token], i: int) -> tuple[list[int], int]:
    """'Ann', 'Ann and Bob', 'Ann, Bob, and Cid', 'Ann nor Bob', from a name at i."""
    people = [_at(tokens, i).value]
    i += 1
    while True:
        j = i
        while _at(tokens, j).value in (",", "and", "&", "nor") and j < i + 2:
            j += 1
        if j == i or _at(tokens, j).kind != "name":
            return people, i
        people.append(_at(tokens, j).value)
        i = j + 1


def _predicate(tokens: Sequence[Token], i: int) -> tuple[list[bool], int, bool] | None:
    """What comes after people: the roles, the end, and whether 'the only' was said."""
    start = i
    if _at(tokens, i).value == "'s" and _at(tokens, i + 1).value in _ROLE_NOUNS:
        i += 2
    if _at(tokens, i).value == "," and _at(tokens, i + 1).value == "who":
        i += 1
    if _at(tokens, i).value == "," and _at(tokens, i + 1).value in _ROLE_NOUNS:  # 'name: Ann, role: knight'
        i += 2
    linked = _link(tokens, i)
    if linked is None:
        return None
    i, negated, linked_by = linked
    only = False
    for _ in range(8):
        value = _at(tokens, i).value
        if _at(tokens, i).kind != "word":
            break
        if value in _NEGATIONS:
            negated = not negated
        elif value in ("only", "sole") and _at(tokens, i - 1).value == "the":
            only = True
        elif value not in _ARTICLES and not (value in _FILLERS and linked_by):
            return None
        i += 1
    token = _at(tokens, i)
    if token.kind != "role":
        return None
    if not linked_by and _heads_a_list(tokens, i) and i > start + 1:
        return None  # 'Ann, the knave is Bob': a new statement
    a_row = start == 1 and i + 1 == len(tokens)  # a line 'Ann,knight' is a table; 'Ann, knave ...' says too little
    if not linked_by and _at(tokens, start).value == "," and i == start + 1 and not a_row:
        return None
    roles, end = _more_roles(tokens, i + 1)
    return [token.value != negated, *roles], end, only


def _link(tokens: Sequence[Token], i: int) -> tuple[int, bool, str] | None:
    """The verb or mark between people and role: position after it, whether it negates, and which it was."""
    token, following = _at(tokens, i), _at(tokens, i + 1).value
    for _ in range(4):  # 'Ann then is', 'Ann who is', 'They both are'
        if token.kind == "word" and token.value in _FILLERS:
            i += 1
            token, following = _at(tokens, i), _at(tokens, i + 1).value
    if token.value in _COPULAS:
        return i + 1, token.value in _NEGATIONS, "verb"
    if token.value in ("must", "has", "have", "turns", "turn"):
        end = i + 1
        negated = _at(tokens, end).value == "not"
        end = _skip(tokens, end, _FILLERS | {"not", "out"})
        return (end, negated, "verb") if _at(tokens, end - 1).value == "be" else None
    if token.value in ("cannot", "can't") or (token.value == "can" and following in ("not", "only")):
        end = i + (2 if token.value == "can" else 1)
        return (end, following != "only", "verb") if _at(tokens, end).value in ("be", "possibly") else None
    end = i
    while _is_link(_at(tokens, end)) or (_at(tokens, end).kind == "num" and _at(tokens, end - 1).value == "("):
        end += 1
    marks = {tokens[k].value for k in range(i, end) if tokens[k].kind != "num"} - {",", ")"}
    if marks:
        end += _at(tokens, end).value in ("is", "are")
        return end, False, "mark"
    return end, False, ""


def _is_link(token: Token) -> bool:
    return token.kind == "arrow" or token.value in (":", "=", "-", "|", "(", ")", ",", "&")


def _more_roles(tokens: Sequence[Token], i: int) -> tuple[list[bool], int]:
    """Roles given to the same people after the first: ', not a knave', 'and a knave', '/knave'."""
    roles: list[bool] = []
    while True:
        j, negated = i, False
        while (_at(tokens, j).value in _JOINERS or _at(tokens, j).kind == "arrow") and j < i + 2:
            j += 1
        if j == i:
            return roles, i
        while _at(tokens, j).kind == "word" and _at(tokens, j).value in _ARTICLES | {"not", "also"}:
            negated = negated != (_at(tokens, j).value == "not")
            j += 1
        if _at(tokens, j).kind != "role" or _heads_a_list(tokens, j):
            return roles, i
        roles.append(_at(tokens, j).value != negated)
        i = j + 1


def _heading(tokens: Sequence[Token], i: int) -> tuple[list[Claim], int] | None:
    """A role, then who has it: 'Knights: Ann, Bob', 'the only knave is Cid', 'Knaves: everyone else'."""
    token = _at(tokens, i)
    if token.kind != "role" or not _heads_a_list(tokens, i):
        return None
    before = [_at(tokens, i - k).value for k in (1, 2, 3)]
    role = token.value != ("not" in before[: 2 if before[0] in _ARTICLES else 1])
    only = before[0] in ("only", "sole") and "not" not in before
    start = i + 1
    while _at(tokens, start).kind in ("arrow", "mark") or _at(tokens, start).value in ("is", "are"):
        start += 1
    start = _skip(tokens, start, {"the", "only", "both", "just"} if _at(tokens, start + 1).kind == "name" else {"the"})
    subject = _subject(tokens, start)
    if subject is None or subject.negated:
        return None
    people, end = list(subject.people), subject.end
    while people and _predicate(tokens, end) is not None:
        # 'The knight is Ann and Bob is a knave': Bob begins the next statement.
        people.pop()
        end -= 1
        while end > start and _at(tokens, end - 1).kind != "name":
            end -= 1
    if not people:
        return None
    return _assigned(subject._replace(people=people), [role], only, False), end


def _heads_a_list(tokens: Sequence[Token], i: int) -> bool:
    """Whether the role at i is followed by 'is', 'are' or a mark that introduces people."""
    following = _at(tokens, i + 1)
    if following.kind == "arrow" or following.value in ("is", "are", ":", "=", "-", "|", "("):
        return _introduces_people(tokens, i + 2)
    return False


def _introduces_people(tokens: Sequence[Token], i: int) -> bool:
    for j in range(i, i + 4):
        token = _at(tokens, j)
        if token.kind == "name" or (token.kind == "word" and token.value in _ALL | {"both", "others", "rest"}):
            return True
        if token.kind != "mark" and token.value not in ("the", "only", "just", "are", "is"):
            return False
    return False


def _led_to_nothing(tokens: Sequence[Token], i: int) -> bool:
    """'... is a knight is false', '... is a knight leads to a contradiction'."""
    if _at(tokens, i).kind != "word" or _at(tokens, i).value not in _LEADS:
        return False
    rest = {_at(tokens, k).value for k in range(i + 1, i + 5)}
    return bool(rest & _DENIED) or "contradiction" in rest


def _skip(tokens: Sequence[Token], i: int, known: set[str] | frozenset[str]) -> int:
    while _at(tokens, i).kind in ("word", "num") and (_at(tokens, i).value in known or _at(tokens, i).kind == "num"):
        i += 1
    return i
