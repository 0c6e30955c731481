"""Who was said to be what, while a text is read: segments that agree with themselves, and what overrules what."""

from __future__ import annotations

from collections.abc import Iterable

from posttrain.rewards.role_clauses import Context, Said

CONTRADICTED = "contradicted"
HEDGED = "hedged"


class Ledger:
    """What a text has said so far. A segment is a stretch of it that has to agree with itself.

    `mode` says what statements are worth where they stand: "" (they count), "assuming" or "if" (they follow from an
    assumption), "several" (one solution of more than one), "hedging" (a guess), "reported" (someone else's words).
    """

    def __init__(self, people: int, strict: bool):
        self.context = Context(people)
        self.strict = strict
        self.said: dict[int, bool | str] = {}
        self.segment: dict[int, bool | str] = {}
        self.replaces = False  # the segment may overrule what was said
        self.labelled = False  # 'Solution 1': what follows does not overrule what was said
        self.mode = ""
        self.assumed: Said = []
        self.judged = False  # the assumption was found to hold
        self.latest: Said = []  # of the sentence before, if it said nothing else
        self.fresh = False  # nothing has followed the assumption in its paragraph

    def open(self, opener: str) -> None:
        """A clause begins, with the letter of what introduces it."""
        if opener == "V" or (opener == "D" and not self.strict):
            self.mode, self.labelled = "", False
            self.close(replaces=True)
        elif opener == "D":
            self.mode = ""
        elif opener == "C" and not self.strict and self.mode == "":
            self.close(replaces=True)
        elif opener == "M":
            self.hedge(self.context.everyone())
            self.close()
            self.mode, self.labelled = "several", True
        elif opener == "!":
            self.close()
            self.mode = self.mode if self.mode == "several" else ""
            self.labelled = True

    def suppose(self, said: Said) -> None:
        """An assumption: what follows counts only once it is settled."""
        self.mode, self.assumed, self.judged, self.fresh = "assuming", said, False, True

    def condition(self, said: Said) -> None:
        """A condition: what follows in the sentence depends on it."""
        if self.mode == "":
            self.mode, self.assumed, self.judged = "if", said, False

    def announce(self, mode: str) -> None:
        """What follows is a guess, or someone's words ('My guess:', 'The statements are:')."""
        self.mode, self.fresh = mode, True

    def refute(self) -> None:
        """The assumption led to a contradiction."""
        self.mode = ""

    def verdict(self, negative: bool, of_someone: bool) -> None:
        """A contradiction was found, or none."""
        if self.mode in ("assuming", "if"):
            if negative:
                self.refute()
            else:
                self.judged = True
        elif negative and not of_someone and not self.strict:
            self.segment.clear()

    def conclude(self, said: Said, opener: str) -> None:
        """Statements of a clause: recorded, unless they hang on an assumption that is still open."""
        self.fresh = False
        if self.mode in ("assuming", "if", "several"):
            complete = len({person for person, _ in said}) == self.context.people
            denied = any((person, not role) in self.assumed for person, role in said)
            settled = complete or (self.mode != "several" and (self.judged or denied))
            if opener != "C" or not said or not settled:
                if self.mode == "several":
                    self.hedge([person for person, _ in said])
                return
            self.mode, self.labelled = "", False
            if not self.strict:
                self.close(replaces=True)
        if self.mode == "hedging":
            self.hedge([person for person, _ in said])
        elif self.mode != "reported":
            self.add(said)

    def add(self, said: Said) -> None:
        """Record statements."""
        self.latest += said
        for person, role in said:
            before = self.segment.get(person, role)
            self.segment[person] = role if before in (role, HEDGED) else CONTRADICTED

    def take_back(self, said: Said) -> None:
        """Statements were denied: 'That is wrong.'"""
        for person, role in said:
            for place in (self.segment, self.said):
                if place.get(person) == role:
                    del place[person]

    def hedge(self, people: Iterable[int]) -> None:
        """Leave people open."""
        for person in people:
            if self.segment.get(person) != CONTRADICTED:
                self.segment[person] = HEDGED

    def close(self, replaces: bool = False) -> None:
        """End the segment; `replaces` says that the next one may overrule what was said."""
        complete = len(self.segment) == self.context.people and HEDGED not in self.segment.values()
        overrule = self.replaces or (complete and not self.strict and not self.labelled)
        for person, role in self.segment.items():
            before = self.said.get(person, role)
            agree = overrule or role == HEDGED or before in (role, HEDGED)
            self.said[person] = role if agree else CONTRADICTED
        self.segment, self.replaces = {}, replaces

    def new_paragraph(self) -> None:
        """A blank line: an assumption ends, unless it is all that the paragraph said."""
        if self.mode != "several" and not self.fresh:
            self.mode = ""
        self.fresh = False
        if not self.strict:
            self.close(self.replaces and not self.segment)

    def result(self) -> dict[int, bool | str]:
        """What was finally said of each person."""
        self.close()
        return self.said
