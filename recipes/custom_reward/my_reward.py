"""A reward to copy: how close the last number of a completion is to the answer.

In a recipe beside this file: `rewards: [{path: ./my_reward.py:score, kwargs: {tolerance: 0.01}}]`
"""

import re

from posttrain.reward import Score


def score(completion: str, *, answer: str, tolerance: float = 1e-6, **row) -> Score:
    """1 when the last number is within `tolerance` of the row's `answer`."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", completion[-10_000:])
    if not numbers:
        return Score(0.0, note="no number in the completion")
    said = float(numbers[-1])
    right = abs(said - float(answer)) <= tolerance
    return Score(float(right), parsed=said, note="" if right else f"said {said:g}, is {answer}")
