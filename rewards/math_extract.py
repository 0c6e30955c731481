"""Where in a completion the final answer of a math problem is."""

from __future__ import annotations

import re

from posttrain.rewards.math_boxes import BOX, last_boxed
from posttrain.rewards.math_phrases import after_hashes, after_phrase, without_sentence
from posttrain.rewards.thinking import answer_section

__all__ = ["final_answer", "gold_answer", "last_boxed"]

_TAIL = 20_000  # characters at the end that are searched for anything but a box
_LAST_NUMBER = re.compile(r"-?(?<![\d.,])\$?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:/\d+)?%?")


def final_answer(completion: str, *, strict: bool = True) -> tuple[str | None, str]:
    r"""The text of the final answer, and where it was: `boxed`, `####`, `phrase`, `answer tag` or `last number`.

    What follows the thinking counts, and of that the last `<answer>` section when there is one; see `thinking.py`. In
    it the last box with something in it counts, else the last line that `####` marks and that is no heading, else what
    follows the last 'the answer is' or 'final answer:', else the whole `<answer>` section. A last box that is never
    closed is no answer, whatever came before it.

    Several answers side by side (`\boxed{3} and \boxed{8}`, `$3$ or $8$`) are one answer, a list; one that comes after
    a sentence of reasoning or a correction stands alone. Of a sentence its value counts: 34 of 'The least $k$ is 34.'

    Args:
        completion: The completion as text.
        strict: False takes the last number of the text when there is nothing else.

    Returns:
        The answer and where it was; None and a reason when there is no answer.
    """
    section, tagged = answer_section(completion)
    if not section.strip():
        return None, "nothing after the thinking" if completion.strip() else "an empty completion"
    boxed = last_boxed(section)
    if boxed is not None:
        return (without_sentence(boxed), "boxed") if boxed else (None, "the last \\boxed{ is never closed, or denied")
    tail = section[-_TAIL:]
    if "####" in tail:
        line, marked = after_hashes(tail)
        if marked:
            return (line, "####") if line else (None, "nothing after ####")
    phrase = after_phrase(tail)
    if phrase is not None:
        return phrase, "phrase"
    if tagged:
        return without_sentence(section.strip()), "answer tag"
    if not strict:
        numbers = [match.group() for match in _LAST_NUMBER.finditer(tail) if any(c.isdigit() for c in match.group())]
        if numbers:
            return numbers[-1], "last number"
    return None, "no \\boxed{...}, no ####, no 'the answer is'"


def gold_answer(text: str) -> str:
    """A gold answer by itself: of a worked solution what its last box or `####` marks, of a sentence its value."""
    if "####" in text or BOX.search(text):
        return final_answer(text)[0] or ""
    return without_sentence(text)
