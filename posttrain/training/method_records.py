"""What is put down of a method's decisions: in `method` of a line of `steps.jsonl`, and beside a row in `completions/`.

The former is enough to take each decision again under other settings: rewards and demonstrations' lengths by group,
in the order in which the groups were sampled, and the number of the window that draws are seeded by.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from posttrain.methods.base import Arranged, Group

Row = dict[str, Any]


def facts_of(
    groups: Sequence[Group], arranged: Sequence[Arranged], begun: Sequence[Sequence[int]], lengths: Sequence[int]
) -> dict[str, Any]:
    """The facts of one window, over all processes.

    Args:
        groups: As the method saw them.
        arranged: What it made of them.
        begun: Tokens that each rollout of each group began with.
        lengths: Of each group's demonstration, in tokens; 0 without one.

    Returns:
        - `groups`: how many were treated alike, by the reason.
        - `paired`: groups with a demonstration.
        - `gate_open`: share of these whose gate let the demonstration in; `None` without a gate.
        - `demonstrations`, `demonstration_tokens`: trained on whole, and their tokens.
        - `begun_rows`, `begun_tokens`, `begun_share`: rollouts that went on from a beginning, its tokens, and its mean
          share of the demonstration.
        - `begun_reward`, `alone_reward`: mean reward of these rollouts, and of the others of prompts with a
          demonstration; `None` where there are none.
        - `rewards`, `demonstration_rewards`, `demonstration_lengths`: by group, in order. A demonstration that was not
          scored has `None`.
        - `levels`: how far each group was escalated, where one was.
    """
    gates = [each.opened for each in arranged if each.opened is not None]
    rows = [
        (tokens, tokens / length, reward)
        for group, of, length in zip(groups, begun, lengths, strict=True)
        for tokens, reward in zip(of, group.rewards, strict=True)
        if length
    ]
    whole = [length for length, each in zip(lengths, arranged, strict=True) if each.credit or each.nll]
    return {
        "groups": dict(Counter(each.reason for each in arranged)),
        "paired": sum(length > 0 for length in lengths),
        "gate_open": sum(gates) / len(gates) if gates else None,
        "demonstrations": len(whole),
        "demonstration_tokens": sum(whole),
        "begun_rows": sum(tokens > 0 for tokens, _, _ in rows),
        "begun_tokens": sum(tokens for tokens, _, _ in rows),
        "begun_share": _mean(share for tokens, share, _ in rows if tokens),
        "begun_reward": _mean(reward for tokens, _, reward in rows if tokens),
        "alone_reward": _mean(reward for tokens, _, reward in rows if not tokens),
        "rewards": [[_short(reward) for reward in group.rewards] for group in groups],
        "demonstration_rewards": [_short(group.demonstration) for group in groups],
        "demonstration_lengths": list(lengths),
        **({"levels": [group.level for group in groups]} if any(group.level for group in groups) else {}),
    }


def _mean(values: Iterable[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None


def _short(value: float | None) -> float | int | None:
    """The same number in few characters; what is unknown as `None`."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if value == int(value) else value


def begun_characters(ids: Sequence[int], begun: int, decode: Callable[..., str]) -> int:
    """Characters of a completion's text that are of its first `begun` tokens.

    Args:
        ids: Its tokens.
        begun: How many of them were given.
        decode: A tokenizer's. A character whose bytes are cut in two by the beginning's end counts as sampled.
    """
    if not begun:
        return 0
    both = zip(*(decode(some, skip_special_tokens=True) for some in (ids[:begun], ids)), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))


def columns_of(
    groups: Sequence[Group],
    arranged: Sequence[Arranged],
    places: Iterable[tuple[int, int]],
    ids: Sequence[Sequence[int]],
    begun: Sequence[int],
    credit: Sequence[float],
    decode: Callable[..., str],
) -> list[Row]:
    """What rows of rollouts have in `completions/` beside a method.

    Args:
        groups: All of the window.
        arranged: What the method made of them.
        places: Of each row: its group, and its number in it.
        ids: Of each row: the completion's tokens.
        begun: Of each row: how many of them were given.
        credit: Of each row: of its given tokens.
        decode: A tokenizer's.
    """
    return [
        {
            "advantage": arranged[group].advantages[row],
            "source": "begun" if given else "rollout",
            "grpo_advantage": groups[group].advantages[row],
            "begun_tokens": given,
            "begun_characters": begun_characters(tokens, given, decode),
            "credit": worth if given else None,
            "nll": None,
        }
        for (group, row), tokens, given, worth in zip(places, ids, begun, credit, strict=True)
    ]


def demonstration_row(
    ids: Sequence[int], decode: Callable[..., str], arranged: Arranged, scores: Mapping[str, float]
) -> Row:
    """A demonstration that is trained on, as a row behind the rollouts of its prompt.

    Args:
        ids: Its tokens.
        decode: A tokenizer's.
        arranged: What its tokens count.
        scores: What each reward gives it, where it was scored.
    """
    text = decode(ids, skip_special_tokens=True)
    return {
        "completion": text,
        "source": "demonstration",
        "begun_tokens": len(ids),
        "begun_characters": len(text),
        "credit": arranged.credit,
        "nll": arranged.nll or None,
        **{f"reward/{name}": value for name, value in scores.items()},
        "note": "",
        "truncated": False,
        "length": len(ids),
    }


def with_rows(rows: Sequence[Row], more: Mapping[int, Row], *, group: int) -> list[Row]:
    """The rows of a generation, behind each group its demonstration, by the group's number."""
    found: list[Row] = []
    for number in range(len(rows) // group):
        some = rows[number * group : (number + 1) * group]
        found += some
        if number in more:
            found.append({"step": some[0]["step"], "prompt": some[0]["prompt"], **_as_said(more[number], some[0])})
    return found


def _as_said(row: Row, beside: Row) -> Row:
    """In a conversation a completion is a message."""
    text = row["completion"]
    chat = isinstance(beside["completion"], list)
    return row | ({"completion": [{"role": "assistant", "content": text}]} if chat else {})
