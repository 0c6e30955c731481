"""What the completions of one generation show, as a few numbers: the `sampled` of a line of `steps.jsonl`.

The alarms look at these numbers only, so that a run that is resumed, or one that has ended, can be judged from its
`steps.jsonl` alone.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LONG_TOKENS = 32
"""Completions of fewer tokens may well be alike: there are few short answers."""

LOOP_CHARACTERS = 48
LOOP_TIMES = 4
"""A completion loops if its end is one piece of text, at least so many times over so many characters."""

COMPRESSED = 8.0
COMPRESSED_FROM = 400
"""A text of at least so many characters that zlib makes so many times smaller repeats itself, if not to the letter.
Prose comes to 2 or 3; Whisper takes a transcript above 2.4 for a loop (`compression_ratio_threshold`), but JSON and
code come to 3 to 5."""

_LOOKED_AT = 8000  # characters of a text
_PIECE, _OFTEN = 6, 4  # characters; of a text that compresses so well, one piece of three is there so often
_SAME = 1e-6  # scores that differ by less are equal


def rollout_facts(rows: Sequence[Mapping[str, Any]], *, group: int, weights: Mapping[str, float]) -> dict[str, Any]:
    """The facts of one generation, over all processes.

    Args:
        rows: As of `ledger.rollout_rows`: `group` rows of each prompt after each other.
        group: Completions per prompt, G.
        weights: The weight of each reward by name; 1 where it is missing.

    Returns:
        - `completions`, `groups`: how many there are.
        - `dead_right`, `dead_wrong`: share of groups in which all completions score the same, and the best that there
          is to score, or less.
        - `dead_unscored`: share of groups of which no completion was scored.
        - `truncated_reward`, `finished_reward`: mean weighted reward of completions that were cut off, and of others.
        - `length_r`, `length_n`: correlation of weighted reward with length within groups, over completions that were
          not cut off, and its degrees of freedom; only groups in which both differ say anything.
        - `identical`: share of long completions, right ones apart, that repeat another one of their group.
        - `common`: share of groups that have the most frequent long completion, right ones apart; 0 if each is
          of one prompt.
        - `looping`: share of completions that are not right and repeat themselves.
        - `parts`: mean of each part of each reward, REWARD.PART.
    """
    totals, best = _totals(rows, weights)
    right = totals >= best - _SAME
    lengths = np.array([(row.get("length") or 0) - (row.get("begun_tokens") or 0) for row in rows], dtype=float)
    truncated = np.array([bool(row.get("truncated")) for row in rows], dtype=bool)
    texts = [_text(row.get("completion")) for row in rows]
    groups = [slice(start, start + group) for start in range(0, len(rows), group)]
    dead = [some for some in groups if _alike(totals[some])]
    dead_right = sum(bool(right[some].any()) for some in dead)
    unscored = sum(not np.isfinite(totals[some]).any() for some in groups)
    r, n = within_groups([(lengths[some], totals[some], truncated[some]) for some in groups])
    wrong_long = [
        [text for text, is_right, size in zip(texts[some], right[some], lengths[some], strict=True)
         if not is_right and size >= LONG_TOKENS]
        for some in groups
    ]  # fmt: skip
    long = sum(map(len, wrong_long))
    spread = Counter(text for some in wrong_long for text in set(some))
    wrong = [text for text, is_right in zip(texts, right, strict=True) if not is_right]
    loops = sum(loops_at_end(text) or _compresses(text) for text in wrong)
    facts = {
        "dead_right": dead_right / len(groups),
        "dead_wrong": (len(dead) - dead_right) / len(groups),
        "dead_unscored": unscored / len(groups),
        "truncated_reward": _mean(totals[truncated]),
        "finished_reward": _mean(totals[~truncated]),
        "length_r": r,
        "identical": (long - sum(len(set(some)) for some in wrong_long)) / len(rows),
        "common": max(spread.values()) / len(groups) if spread and max(spread.values()) > 1 else 0.0,
        "looping": loops / len(rows),
    }
    rounded = {name: None if value is None else round(float(value), 6) for name, value in facts.items()}
    counts = {"completions": len(rows), "groups": len(groups), "length_n": n}
    return {**counts, **rounded, "parts": _parts(rows)}


def within_groups(groups: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[float | None, int]:
    """The correlation of length and score when each group's means are taken off, and its degrees of freedom.

    Args:
        groups: Length, score and whether to leave it out, of each completion.

    Returns:
        r, or `None` where nothing differs; and rows minus groups minus 1.
    """
    xx = yy = xy = 0.0
    count = -1
    for lengths, totals, left_out in groups:
        taken = ~left_out & np.isfinite(totals)
        x, y = lengths[taken], totals[taken]
        if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) <= _SAME:
            continue
        x, y = x - x.mean(), y - y.mean()
        xx, yy, xy = xx + float(x @ x), yy + float(y @ y), xy + float(x @ y)
        count += len(x) - 1
    return (xy / math.sqrt(xx * yy), count) if count > 0 else (None, 0)


def loops_at_end(text: str) -> bool:
    """Whether a text ends in one piece, over and over: where a model that loops does not get out again."""
    return _loops(text) or _loops(text.rstrip())  # white space at the end may loop, or stand behind what does


def _loops(text: str) -> bool:
    seed = text[-LOOP_CHARACTERS // LOOP_TIMES :]
    before = text.rfind(seed, 0, len(text) - 1)
    period = len(text) - len(seed) - before
    length = max(LOOP_TIMES * period, LOOP_CHARACTERS)
    if not text or before < 0 or len(text) < length:
        return False
    return text[-length : len(text) - period] == text[len(text) - length + period :]


def _compresses(text: str) -> bool:
    text = text[:_LOOKED_AT]
    pieces = [text[at : at + _PIECE] for at in (len(text) // 5, len(text) // 2, len(text) * 4 // 5)]
    if len(text) < COMPRESSED_FROM or all(text.count(piece) < _OFTEN for piece in pieces):  # saves most of the time
        return False
    content = text.encode("utf-8", "replace")
    return len(content) > COMPRESSED * len(zlib.compress(content, 1))


def _totals(rows: Sequence[Mapping[str, Any]], weights: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Each row's weighted reward, NaN where nothing scored it, and the best it could have."""
    names = [name.removeprefix("reward/") for name in rows[0] if name.startswith("reward/")]
    values = np.array([[_number(row.get(f"reward/{name}")) for name in names] for row in rows]).reshape(len(rows), -1)
    factors = np.array([weights.get(name, 1.0) for name in names])
    scored = np.isfinite(values)
    totals = np.where(scored, values * factors, 0.0).sum(axis=1)
    totals[~scored.any(axis=1)] = math.nan
    if scored.any() and np.nanmax(values) > 1.0 + _SAME:  # a scale of its own: the best that was seen
        return totals, np.full(len(rows), np.nanmax(totals))
    return totals, (scored * np.maximum(factors, 0.0)).sum(axis=1)


def _alike(totals: np.ndarray) -> bool:
    scored = totals[np.isfinite(totals)]
    return len(scored) > 0 and float(np.ptp(scored)) <= _SAME


def _parts(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row if name.startswith("part/"))
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return {name.removeprefix("part/"): round(sum(some) / len(some), 6) for name, some in values.items()}


def _mean(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _text(completion: Any) -> str:
    """The text of a completion, of a conversation all that was said."""
    if isinstance(completion, str):
        return completion
    return "\n".join(str(message.get("content")) for message in completion or [])
