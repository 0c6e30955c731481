"""Text as token ids where it stands: prompts that go on, and what goes on behind one.

A completion is sampled behind the tokens of its prompt, so that no token of it reaches back into the prompt. A
demonstration is made alike: tokenised as one text, its first token may hold the prompt's last sign, and no rollout
could begin so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

_TAIL = 16
"""Tokens of a prompt that are decoded with what follows: as many as a decoder's rules reach over."""


def prompt_tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts that go on: with what the tokenizer puts in front, without an end that it adds behind."""
    return without_added_end(tokenizer, tokenizer(text=list(texts))["input_ids"])


def without_added_end(tokenizer: Any, rows: Sequence[list[int]]) -> list[list[int]]:
    """Rows that the tokenizer made, without the end of sequence that some tokenizers add (`add_eos_token`).

    An end that a text itself has stays.
    """
    made, bare = (tokenizer(text="a", **more)["input_ids"] for more in ({}, {"add_special_tokens": False}))
    added = _ends(tokenizer, made) - _ends(tokenizer, bare)
    return [ids[: len(ids) - added] for ids in rows] if added > 0 else list(rows)


def continuation(tokenizer: Any, before: str, text: str, *, special: bool = True) -> list[int]:
    """Token ids of a text behind those of another, none of which reaches over the border.

    Where the two as one text begin with the tokens of the first, these are the rest. Else the second is tokenised
    alone, so that behind the first it reads as it is written: some tokenizers put a space before a text of its own.

    Args:
        tokenizer: The model's.
        before: What stands before it.
        text: What goes on.
        special: Whether the tokenizer puts special tokens around what stands before, as it does for text; a chat
            template has its own.
    """
    if special:
        start, whole = prompt_tokens(tokenizer, [before, before + text])
    else:
        start, whole = tokenizer(text=[before, before + text], add_special_tokens=False)["input_ids"]
    if whole[: len(start)] == start:
        return whole[len(start) :]
    several = list(_alone(tokenizer, text))
    return next((ids for ids in several if written(tokenizer, start, ids) == text), several[0])


def _alone(tokenizer: Any, text: str) -> Iterator[list[int]]:
    """A text's token ids, as it is and behind several signs that are left out again."""
    yield tokenizer(text=text, add_special_tokens=False)["input_ids"]
    for sign in (tokenizer.eos_token, tokenizer.bos_token, "\n", ".", "a"):
        if sign:
            ids, both = tokenizer(text=[sign, sign + text], add_special_tokens=False)["input_ids"]
            if both[: len(ids)] == ids:
                yield both[len(ids) :]


def written(tokenizer: Any, before: list[int], ids: list[int]) -> str | None:
    """What tokens read as behind others; None where they change how those read."""
    tail = before[-_TAIL:]
    start, whole = (tokenizer.decode(some, clean_up_tokenization_spaces=False) for some in (tail, tail + ids))
    return whole[len(start) :] if whole.startswith(start) else None


def with_one_end(tokenizer: Any, ids: list[int]) -> list[int]:
    """Token ids that end in one end of sequence, where the tokenizer has one."""
    if tokenizer.eos_token_id is None:
        return ids
    return [*ids[: len(ids) - _ends(tokenizer, ids)], tokenizer.eos_token_id]


def _ends(tokenizer: Any, ids: Sequence[int]) -> int:
    """How many ends of sequence the ids end in."""
    count = 0
    while count < len(ids) and ids[-1 - count] == tokenizer.eos_token_id:
        count += 1
    return count
