"""Reward `format`: think and answer tags in the right number, order and place.

The form is DeepSeek-R1's (arXiv 2501.12948, section 2.2.2): `<think>...</think> <answer>...</answer>`.
"""

from __future__ import annotations

import re
from typing import Any

from posttrain.scoring.score import Score

_TAG = re.compile(r"</?(?:think|answer)>")
_END_TOKENS = re.compile(r"\s+|<\|[^<>|\s]{1,40}\|>|</s>|<eos>")


def score(completion: str, *, require_think: bool = True, think_in_prompt: bool = False, **row: Any) -> Score:
    """1 for exactly one `<think>...</think>`, then one `<answer>...</answer>`, and nothing else; otherwise 0.

    Args:
        completion: The completion as text.
        require_think: False makes the think block optional; if there is one, it still has to be right.
        think_in_prompt: The chat template ends with `<think>`, so the completion starts inside the block.
        row: Ignored.

    Returns:
        Score with the parts `think`, `answer`, `order` and `nothing_else`, each 0 or 1, and as `parsed` the
        answer's text, if it can be read.
    """
    text = "<think>" + completion if think_in_prompt else completion
    tags = [(match.group(), match.start(), match.end()) for match in _TAG.finditer(text)]
    names = [name for name, _, _ in tags]
    problems: list[str] = []

    think = _block(text, tags, "think")
    answer = _block(text, tags, "answer")
    think_missing = not require_think and "<think>" not in names and "</think>" not in names
    if think is None and not think_missing:
        problems.append(_what_is_wrong(names, "think"))
    elif think is not None and not think.strip():
        problems.append("<think> is empty")
    if answer is None:
        problems.append(_what_is_wrong(names, "answer"))
    elif not answer.strip():
        problems.append("<answer> is empty")

    expected = ["<answer>", "</answer>"]
    if not think_missing:
        expected = ["<think>", "</think>", *expected]
    in_order = names == expected
    if not in_order and not problems:
        problems.append("the answer does not follow the thinking")

    outside = _outside(text, tags) if in_order else ""
    if outside:
        problems.append(f"text outside the tags: {outside[:40]!r}")
    parts = {
        "think": float(think_missing or bool(think and think.strip())),
        "answer": float(bool(answer and answer.strip())),
        "order": float(in_order),
        "nothing_else": float(in_order and not outside),
    }
    parsed = answer.strip() if answer is not None else None
    return Score(float(not problems), parts=parts, parsed=parsed, note="; ".join(problems))


def _block(text: str, tags: list[tuple[str, int, int]], name: str) -> str | None:
    """What is between the only `<name>` and the only `</name>`; None if there is not exactly one such pair."""
    opened = [end for tag, _, end in tags if tag == f"<{name}>"]
    closed = [start for tag, start, _ in tags if tag == f"</{name}>"]
    if len(opened) != 1 or len(closed) != 1 or closed[0] < opened[0]:
        return None
    return text[opened[0] : closed[0]]


def _what_is_wrong(names: list[str], name: str) -> str:
    opened, closed = names.count(f"<{name}>"), names.count(f"</{name}>")
    if not opened and not closed:
        return f"no <{name}>"
    if opened > 1 or closed > 1:
        return f"{max(opened, closed)} times <{name}>"
    if opened and not closed:
        return f"<{name}> is never closed"
    if closed and not opened:
        return f"</{name}> was never opened"
    return f"</{name}> comes before <{name}>"


def _outside(text: str, tags: list[tuple[str, int, int]]) -> str:
    """Text before, between and after the blocks; end-of-text tokens and white space do not count."""
    edges = [0, *(edge for _, start, end in tags for edge in (start, end)), len(text)]
    gaps = [text[edges[i] : edges[i + 1]] for i in range(0, len(edges), 4)]
    return _END_TOKENS.sub(" ", " ".join(gaps)).strip()
