"""Reward `format`: think and answer tags in the right number, order and place.

The form is DeepSeek-R1's (arXiv 2501.12948, section 2.2.2): `<think>...</think> <answer>...</answer>`.
"""

from __future__ import annotations

import re
from typing import Any

from posttrain.rewards.thinking import Tag, tags
from posttrain.scoring.score import Score

_FORM = [(True, False), (True, True), (False, False), (False, True)]  # each tag: about thinking, closing
_END_TOKENS = re.compile(r"\s+|<\|[^<>|\s]{1,40}\|>|</s>|<eos>")


def score(completion: str, *, require_think: bool = True, think_in_prompt: bool = False, **row: Any) -> Score:
    """1 for exactly one `<think>...</think>`, then one `<answer>...</answer>`, and nothing else; otherwise 0.

    `<thinking>` and the other names of `thinking.py` are as good as `<think>`; a tag in a string of JSON is none.

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
    found = tags(text)
    _, wrong_think = _block(text, [tag for tag in found if tag.thinking], "think")
    answer, wrong_answer = _block(text, [tag for tag in found if not tag.thinking], "answer")
    no_think = not require_think and not any(tag.thinking for tag in found)
    problems = [wrong for wrong in ("" if no_think else wrong_think, wrong_answer) if wrong]

    form = [(tag.thinking, tag.closes) for tag in found]
    in_order = form == _FORM[2:] if no_think else form == _FORM
    if not in_order and not problems:
        problems.append("the answer does not follow the thinking")
    outside = _outside(text, found) if in_order else ""
    if outside:
        problems.append(f"text outside the tags: {outside[:40]!r}")
    parts = {
        "think": float(no_think or not wrong_think),
        "answer": float(not wrong_answer),
        "order": float(in_order),
        "nothing_else": float(in_order and not outside),
    }
    parsed = answer.strip() if answer is not None else None
    return Score(float(not problems), parts=parts, parsed=parsed, note="; ".join(problems))


def _block(text: str, found: list[Tag], name: str) -> tuple[str | None, str]:
    """What is between the only opening tag and the only closing one, if that is how it is; and what is wrong."""
    opened = [tag for tag in found if not tag.closes]
    closed = [tag for tag in found if tag.closes]
    if not found:
        return None, f"no <{name}>"
    if len(opened) > 1 or len(closed) > 1:
        return None, f"{max(len(opened), len(closed))} times <{name}>"
    if not closed:
        return None, f"<{opened[0].name}> is never closed"
    if not opened:
        return None, f"</{closed[0].name}> was never opened"
    if closed[0].start < opened[0].start:
        return None, f"</{name}> comes before <{name}>"
    if closed[0].name != opened[0].name:
        return None, f"<{opened[0].name}> is closed by </{closed[0].name}>"
    inside = text[opened[0].end : closed[0].start]
    return inside, "" if inside.strip() else f"<{opened[0].name}> is empty"


def _outside(text: str, found: list[Tag]) -> str:
    """Text before, between and after the blocks; end-of-text tokens and white space do not count."""
    edges = [0, *(edge for tag in found for edge in (tag.start, tag.end)), len(text)]
    gaps = [text[edges[i] : edges[i + 1]] for i in range(0, len(edges), 4)]
    return _END_TOKENS.sub(" ", " ".join(gaps)).strip()
