"""Reward `length_budget`: how close a completion's length is to the budget that its prompt was told.

RMT (arXiv 2509.24375): rises linearly from 0 to 1 at the budget's length, falls linearly to 0 at twice that length, and
stays 0. The paper's largest value is the weight here; it counts the tokens of the reasoning, here all of the completion
count, with the one that ends it. The budget is `hybrid.length_budget`'s, which training fills in.
"""

from __future__ import annotations

from typing import Any

from posttrain.scoring.score import Score


def score(
    completion: str, *, token_budget: int | None = None, completion_tokens: int | None = None, **row: Any
) -> Score | None:
    """l / B up to B tokens, 2 - l / B up to 2 B, 0 beyond; None without a budget, as in an evaluation.

    Args:
        completion: The completion as text; only its length counts.
        token_budget: B, of the prompt. Training fills it in where the recipe has `hybrid.length_budget`.
        completion_tokens: l, the tokens that were sampled, which training fills in.
        row: Ignored.

    Returns:
        Score with both numbers in its note.
    """
    if token_budget is None or completion_tokens is None:
        return None
    ratio = completion_tokens / token_budget
    value = max(0.0, min(ratio, 2.0 - ratio))
    return Score(value, note=f"{completion_tokens} tokens of {token_budget}")


score.only_in_training = True  # type: ignore[attr-defined]
