"""A gold answer and what is said, read with regard to each other: letters that may be a unit, choices, quantities."""

from __future__ import annotations

from posttrain.rewards.math_text import Answer, cleaned


def readings(gold: str, said: str) -> tuple[Answer, Answer]:
    """Both answers as they are to be compared. Use this, not `cleaned` twice, wherever both are at hand."""
    return cleaned(gold), cleaned(said)
