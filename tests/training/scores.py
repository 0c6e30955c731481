"""Rewards that tests give to trainers: a worker process imports this file, which therefore imports little."""

from __future__ import annotations

from posttrain.scoring.score import Score


def score(completion, *, answer, tolerance=0, **row):
    """As the README's: one completion in, one score out."""
    assert row["prompt"].endswith(" is")
    assert set(row) == {"prompt"}, "the columns of the row"
    return Score(0.1 * min(len(set(completion)), 10), parts={"right": str(answer) in completion})


def trl_style(completions, answer, **columns):
    return [float(str(each) in text) for text, each in zip(completions, answer, strict=True)]


def sometimes(completion, *, answer, **row):
    """Fails on the rows of one answer."""
    if answer == 4:
        raise ValueError("four")
    return 0.5
