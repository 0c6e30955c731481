"""Rewards of one completion each, which worker processes import: in a module without torch, that this is soon done."""

from __future__ import annotations

from posttrain.scoring.score import Score


def alike(completion, *, answer, **row):
    """Dead for two answers of three."""
    return 0.1 * len(set(completion)) if answer % 3 == 0 else 0.25


def one(completion, answer):
    return Score(0.0, note=f"ends with {completion[-1:]!r}")


def thinks(completion, **row):
    return float("<think>" in completion)
