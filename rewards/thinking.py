"""Where thinking ends and which part is the answer: one notion of the tags for every reward."""

from __future__ import annotations

import re
from typing import NamedTuple

_REST = r"(/?)\s{0,3}(answer|(?:seed:)?think(?:ing)?|thoughts?|reasoning)\s{0,3}>"
_TAG = re.compile("<" + _REST, re.IGNORECASE)
#: A tag, or a key or value of JSON: what looks like a tag in it is data. Without the punctuation around it, a quotation
#: mark in prose, such as that of 5" or of a draft that breaks off, would swallow real tags. It starts with one class of
#: characters because Python's `re` then skips quickly to where something can begin.
_TAG_OR_STRING = re.compile(
    rf"""[<{{\[,:](?:(?<=<){_REST}|(?<!<)\s*+"(?:[^"\\\n]|\\.)*+"(?=\s*[,:}}\]]))""", re.IGNORECASE
)


class Tag(NamedTuple):
    """A tag of thinking or of the answer.

    Args:
        name: What it is called, in small letters.
        thinking: Whether it is about thinking: `<think>`, `<thinking>`, `<thought>` and `<reasoning>` are the same.
        closes: Whether it is a closing one.
        start: Where it begins in the text.
        end: Where the text goes on behind it.
    """

    name: str
    thinking: bool
    closes: bool
    start: int
    end: int


def tags(text: str) -> list[Tag]:
    """The tags of a text in their order, in any case; what stands in a string of JSON is none."""
    found = [_tag(match) for match in _TAG.finditer(text)]
    if found and '"' in text:
        return [_tag(match) for match in _TAG_OR_STRING.finditer(text) if match[2]]
    return found


def _tag(match: re.Match[str]) -> Tag:
    name = match[2].lower()
    return Tag(name, name != "answer", match[1] == "/", match.start(), match.end())


def after_thinking(completion: str, *, in_prompt: bool = False) -> str | None:
    """The text after the last tag that closes thinking, all of it without such tags; None if thinking goes on.

    A closing tag ends thinking even if none opened it: the chat template may have.

    Args:
        completion: The completion as text.
        in_prompt: The chat template ends with `<think>`, so the completion starts inside the thinking.
    """
    found = [tag for tag in tags(completion) if tag.thinking]
    if not found:
        return None if in_prompt else completion
    return completion[found[-1].end :] if found[-1].closes else None


def answer_section(completion: str) -> tuple[str, bool]:
    """The text after the thinking, narrowed to the last `<answer>` section, and whether there was one.

    An `<answer>` that is never closed runs to the end. Thinking that is never closed leaves nothing.
    """
    start, opened, closed = 0, None, None
    for tag in tags(completion):
        if tag.thinking:
            start, opened, closed = tag.end if tag.closes else len(completion), None, None
        elif not tag.closes:
            opened, closed = tag.end, None
        elif opened is not None and closed is None:
            closed = tag.start
    if start == len(completion) or opened is None:
        return completion[start:], False
    return completion[opened:closed], True
