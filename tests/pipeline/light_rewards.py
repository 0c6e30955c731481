"""Rewards as functions. Worker processes import the module that a function is from, so this one imports no torch."""

from __future__ import annotations

from posttrain import Score


def length(completion, **row):
    return min(1.0, len(completion) / 40)


def brief(completion: str, *, answer: str, **row: object) -> Score:
    return Score(min(1.0, len(answer) / (1 + len(completion))), note=f"{len(completion)} characters")
