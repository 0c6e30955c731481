"""Tables of roles: rows of cells between bars, with or without a header.

A cell is people, a role, a tick, or something else; what a row says follows from its cells and from the header above
them: a name and its role, a role and its people, a header of names over roles, a header of roles over ticks or names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from posttrain.rewards.role_clauses import Said
from posttrain.rewards.role_letters import Items, framed, itemize
from posttrain.rewards.role_words import Token

_PEOPLE = re.compile(r"[#1()./,\-:&]*N(?:[,&/()\-#1:]*N)*[)#1:]*")
_ROLE = re.compile(r"[:\-]?[ab]?(?P<negated>n?)(?P<both>B?)a?[tbf]?(?P<role>R)(?:$|[(,\-:;.>r][^RN]*$|[ie].*$)")
_HEADER_ROLE = re.compile(r"[^NR]{0,3}R[^NR]{0,3}")
_QUOTES = frozenset(
    ["statement", "statements", "claim", "claims", "says", "said", "assertion", "assumption", "assumed"]
)
_YES = frozenset(("yes", "y", "true", "x"))
_NO = frozenset(("no", "n", "false"))


class Table:
    """Rows of one table, read one after the other."""

    def __init__(self) -> None:
        self.header: list[list[Token]] = []
        self.items: list[Items] = []

    def read(self, row: Sequence[Token]) -> Said | None:
        """What a row says; None if it is no row of a table but statements beside each other."""
        cells = split(row)
        items = [framed(itemize(cell)) for cell in cells]
        said = self._with_header(row, cells, items) if self.header else []
        if not said:
            said = _by_itself(items, [_quoted(cell) for cell in self.header])
        if not said and any("N" in item.letters and "R" in item.letters for item in items):
            return None
        if not self.header and not said and cells:
            self.header, self.items = cells, items
        return said

    def _with_header(self, row: Sequence[Token], cells: list[list[Token]], items: list[Items]) -> Said:
        said: Said = []
        pairs = list(zip(self.items, cells, items, strict=False))
        names = [_people(item) for item in items]
        ticked = any(token.kind == "tick" and token.value for token in row)
        subject = next((people for people in names if len(people) == 1), None)
        columns = sum(_HEADER_ROLE.fullmatch(head.letters) is not None for head in self.items)
        first = _role(items[0]) if items else None
        for head, cell, item in pairs:
            heads = _people(head)
            if len(heads) == 1:
                role, tick = _role(item), _tick(cell, ticked)
                if role is not None:
                    said.append((heads[0], role))
                elif tick is not None and first is not None and cell is not cells[0]:
                    said.append((heads[0], first == tick))
                continue
            if _HEADER_ROLE.fullmatch(head.letters) is None:
                continue
            role = head.values[head.letters.index("R")]
            if not columns or "n" in head.letters:
                continue
            people, tick = _people(item), _tick(cell, ticked or columns == 1)
            if people and (columns > 1 or subject is None or _quoted(cell)):
                said += [(person, role) for person in people]
            elif subject is not None and tick is not None and not people:
                said.append((subject[0], role == tick))
        return said


def split(row: Sequence[Token]) -> list[list[Token]]:
    """The cells of a row, without the empty ones that outer bars leave."""
    cells: list[list[Token]] = [[]]
    for token in row:
        if token.value == "|":
            cells.append([])
        else:
            cells[-1].append(token)
    if cells and not cells[0]:
        cells = cells[1:]
    if cells and not cells[-1]:
        cells = cells[:-1]
    return cells


def is_rule(row: Sequence[Token]) -> bool:
    """A line of bars and dashes."""
    return all(token.kind == "arrow" or token.value in ("|", "-", ":", "=") for token in row)


def _by_itself(items: list[Items], skipped: list[bool]) -> Said:
    """A row that has people in one cell and roles in others."""
    skip = [*skipped, *[False] * len(items)]
    people = next((_people(item) for item in items if _people(item)), [])
    roles = [_role(item) for item, out in zip(items, skip, strict=False) if not out]
    given = [role for role in roles if role is not None]
    if not people or not given:
        return []
    groups = sum(bool(_people(item)) for item in items)
    if groups > 1 and len(given) > 1:
        return []
    return [(person, role) for role in given for person in people]


def _people(item: Items) -> list[int]:
    if not _PEOPLE.fullmatch(item.letters):
        return []
    return [value for letter, value in zip(item.letters, item.values, strict=True) if letter == "N"]


def _role(item: Items) -> bool | None:
    match = _ROLE.match(item.letters)
    if match is None or "H" in item.letters or "I" in item.letters:
        return None
    role: bool = item.values[match.start("role")]
    return role != bool(match.group("negated"))


def _tick(cell: list[Token], ticked: bool = False) -> bool | None:
    """What a cell with a mark says; an 'x' is a no beside ticks, an empty cell too."""
    marks = [token for token in cell if token.kind == "tick"]
    if len(marks) == 1 and len(cell) == 1:
        return bool(marks[0].value)
    spoken = [token.value for token in cell if token.kind not in ("tick",)]
    if len(spoken) == 1 and spoken[0] in _YES:
        return spoken[0] != "x" or not ticked
    if len(spoken) == 1 and spoken[0] in _NO:
        return False
    return False if ticked and (not cell or (len(cell) == 1 and spoken == ["-"])) else None


def _quoted(cell: list[Token]) -> bool:
    return any(token.value in _QUOTES for token in cell)
