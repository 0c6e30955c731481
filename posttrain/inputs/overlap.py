"""How much of held-out problems stands in what is trained on, word by word: Tulu 3's decontamination by n-grams.

Source: "Tulu 3: Pushing Frontiers in Open Language Model Post-Training", arXiv 2411.15124, 3.2, and
`decontamination/search.py` of open-instruct. A token of a held-out prompt matches a trained text if one of the 8-grams
that it is in stands there, too; a prompt overlaps if more than half of its tokens match one and the same text; a data
set is contaminated if more than 2 % of the held-out prompts overlap.

Deviations. Tokens are words and marks without case, not spaCy's. What more than half of the held-out prompts have in
common is a task's instruction: its tokens count neither as matched nor as tokens. A prompt of fewer than 8 tokens has
no 8-gram, and can be found by an exact match alone. Puzzles that a generator writes in the same sentences overlap
without being the same: look at what is shown.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

SIZE = 8
"""Tokens of an n-gram."""
MOST_SHARED = 0.5
"""Share of a prompt's tokens above which it overlaps."""
MOST_OVERLAPPING = 0.02
"""Share of overlapping prompts above which a data set is taken for contaminated."""
INSTRUCTION = 0.5
"""Share of the held-out prompts above which an n-gram that they have in common is the task's own text."""

_TOKEN = re.compile(r"\w+|[^\w\s]")
NGram = tuple[str, ...]


class Overlap(NamedTuple):
    """The trained text that a held-out prompt shares most with.

    Attributes:
        share: Of the prompt's tokens, from 0 to 1.
        text: The number of the text; `None` where none is shared.
        tokens: Of the prompt, instructions apart.
    """

    share: float
    text: int | None
    tokens: int


def tokens_of(text: str) -> list[str]:
    """Words and marks, without case."""
    return _TOKEN.findall(text.lower())


def text_of(row: Mapping[str, Any]) -> str:
    """A row's prompt and, where it has one, its completion, the contents of messages one after the other."""
    parts = [row["prompt"], row.get("completion") or ""]
    return "\n".join(
        part if isinstance(part, str) else "\n".join(str(message["content"]) for message in part) for part in parts
    )


def overlaps(held_out: Sequence[str], trained: Iterable[str], *, size: int = SIZE) -> list[Overlap]:
    """What each held-out text shares most with one of the trained ones.

    Only n-grams of the held-out texts are kept, so that what is trained on may be large.
    """
    tokens = [tokens_of(text) for text in held_out]
    places: defaultdict[NGram, list[tuple[int, int]]] = defaultdict(list)
    for row, words in enumerate(tokens):
        for start in range(len(words) - size + 1):
            places[tuple(words[start : start + size])].append((row, start))
    common = {gram for gram, at in places.items() if len({row for row, _ in at}) > max(1, INSTRUCTION * len(tokens))}
    asked: list[set[int]] = [set() for _ in tokens]  # tokens of the instructions, by row
    for gram in common:
        for row, start in places.pop(gram):
            asked[row].update(range(start, start + size))
    own = [len(words) - len(of) for words, of in zip(tokens, asked, strict=True)]
    best: list[tuple[int, int | None]] = [(0, None)] * len(tokens)
    for number, text in enumerate(trained):
        words = tokens_of(text)
        shared: defaultdict[int, set[int]] = defaultdict(set)
        for gram in {tuple(words[start : start + size]) for start in range(len(words) - size + 1)} & places.keys():
            for row, start in places[gram]:
                shared[row].update(range(start, start + size))
        for row, of in shared.items():
            count = len(of - asked[row])
            if count > best[row][0]:
                best[row] = (count, number)
    return [Overlap(count / of if of else 0.0, number, of) for (count, number), of in zip(best, own, strict=True)]


def summed_up(found: Sequence[Overlap], threshold: float = MOST_SHARED) -> dict[str, Any]:
    """`rows`, `overlapping` (above the threshold), `share` of these, `contaminated`, and `buckets`: rows by tenths."""
    over = sum(each.share > threshold for each in found)
    share = over / len(found) if found else 0.0
    buckets = Counter(min(int(each.share * 10), 9) for each in found)
    return {
        "rows": len(found),
        "overlapping": over,
        "share": share,
        "contaminated": share > MOST_OVERLAPPING,
        "buckets": [buckets[tenth] for tenth in range(10)],
    }
