"""Guesses at what a policy says next, from texts like those that it says: what followed the same words before.

A guess costs no pass of a model. What becomes of it is `drafted`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["CONTEXTS", "Drafts", "Texts"]

CONTEXTS = (6, 3, 1)
"""Tokens that a guess is made after; what followed the longest of them that is known counts."""

MOST_TOKENS = 1 << 17
"""Tokens of texts that are read: their contexts take some 100 MB of memory at most."""


class Followers:
    """What followed one context: how often each token did, how often any, and which did most often (first)."""

    __slots__ = ("counts", "likeliest", "total")

    def __init__(self):
        self.counts: dict[int, int] = {}
        self.total, self.likeliest = 0, -1

    def add(self, token: int, times: int) -> None:
        """Count it this many times."""
        count = self.counts[token] = self.counts.get(token, 0) + times
        self.total += times
        if count > self.counts.get(self.likeliest, 0):
            self.likeliest = token


class Texts:
    """What followed in texts, and how often: for each run of 6, 3 and 1 tokens, the token after it.

    Args:
        texts: Token ids of each text and where in it reading begins: what stands before is only context. They are read
            in their order, `MOST_TOKENS` in all.
    """

    def __init__(self, texts: Iterable[tuple[Sequence[int], int]] = ()):
        self.followed: dict[tuple[int, ...], Followers] = {}
        self._left = MOST_TOKENS
        for ids, start in texts:
            if self._left <= 0:
                break
            self.read(ids, start)

    def read(self, ids: Sequence[int], start: int, times: int = 1) -> None:
        """Count the tokens from place `start` on this many times, until enough were."""
        if self._left <= 0:
            return
        self._left -= len(ids) - start
        for place in range(start, len(ids)):
            for size in CONTEXTS:
                if size <= place:
                    context = tuple(ids[place - size : place])
                    followers = self.followed.get(context)
                    if followers is None:
                        followers = self.followed[context] = Followers()
                    followers.add(ids[place], times)


class Drafts:
    """Guesses for the completions of one call, which are read themselves as they come.

    A guess is a function of the texts and of what the call has sampled so far, so that a resumed run makes the same.

    Args:
        texts: Known beforehand, such as the demonstrations; not changed.
    """

    def __init__(self, texts: Texts | None = None):
        self._known = Texts() if texts is None else texts
        self._said = Texts()

    def beside(self) -> Drafts:
        """Another that knows the same beforehand and nothing of what this one has read."""
        return Drafts(self._known)

    def read(self, ids: Sequence[int], start: int, times: int = 1) -> None:
        """Learn from the tokens from place `start` on, which so many rows have said."""
        self._said.read(ids, start, times)

    def after(self, ids: Sequence[int], most: int, least: float) -> list[int]:
        """The likely next tokens.

        Args:
            ids: The prompt and what has come of the completion.
            most: Tokens at most.
            least: Stop where the guess as a whole is less likely to be right than this, by how often its tokens came.
        """
        tail, guess, likely = list(ids[-max(CONTEXTS) :]), list[int](), 1.0
        while len(guess) < most:
            followers = self._followers(tail)
            if followers is None:
                break
            token = followers.likeliest
            likely *= followers.counts[token] / (followers.total + 1)
            if likely < least:
                break
            guess.append(token)
            tail.append(token)
        return guess

    def _followers(self, tail: list[int]) -> Followers | None:
        for size in CONTEXTS:
            context = tuple(tail[-size:])
            found = self._said.followed.get(context) or self._known.followed.get(context)
            if found is not None:
                return found
        return None
