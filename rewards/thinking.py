"""Where thinking ends and which part is the answer: one notion of the tags for every reward."""

from __future__ import annotations

import re

_THINKING = r"<(?P<closes>/?)\s{0,3}(?P<name>(?:seed:)?think(?:ing)?|thoughts?|reasoning)\s{0,3}>"
#: A key or value of JSON; what looks like a tag in it is data. Without the punctuation around it, a quotation mark in
#: prose, such as that of 5" or of a draft that breaks off, would swallow real tags.
_JSON_STRING = r'[{\[,:]\s*+"(?:[^"\\\n]|\\.)*+"(?=\s*[,:}\]])'
THINK_TAG = re.compile(_THINKING, re.IGNORECASE)
ANSWER_TAG = re.compile(r"<(?P<closes>/?)\s{0,3}(?P<name>answer)\s{0,3}>", re.IGNORECASE)
_TAG_OR_STRING = re.compile(f"{_THINKING}|{_JSON_STRING}", re.IGNORECASE)


def after_thinking(completion: str, *, in_prompt: bool = False) -> str | None:
    """The text after the last tag that closes thinking, all of it without such tags; None if thinking goes on.

    `<think>`, `<thinking>`, `<thought>` and `<reasoning>` are the same in any case, and a closing tag ends thinking
    even if none opened it: the chat template may have.

    Args:
        completion: The completion as text.
        in_prompt: The chat template ends with `<think>`, so the completion starts inside the thinking.
    """
    if not THINK_TAG.search(completion):
        return None if in_prompt else completion
    last = None
    for match in _TAG_OR_STRING.finditer(completion):
        last = match if match["name"] else last
    if last is None:
        return None if in_prompt else completion
    return completion[last.end() :] if last["closes"] else None


def answer_section(completion: str) -> tuple[str, bool]:
    """The text after the thinking, narrowed to the last `<answer>` section, and whether there was one.

    An `<answer>` that is never closed runs to the end. Thinking that is never closed leaves nothing.
    """
    text = after_thinking(completion) or ""
    opened = closed = None
    for tag in ANSWER_TAG.finditer(text):
        if not tag["closes"]:
            opened, closed = tag.end(), None
        elif opened is not None and closed is None:
            closed = tag.start()
    if opened is None:
        return text, False
    return text[opened:closed], True
