"""The reward that a smoke test adds to the recipe's own: it tells any two completions apart.

What random weights write is wrong throughout, and completions that all score the same teach GRPO nothing: its backward
pass would not be tried.
"""

from __future__ import annotations


def variety(completion: str) -> float:
    """Different characters, as a share that grows with their number; 0 for an empty completion."""
    different = len(set(completion))
    return different / (different + 10)
