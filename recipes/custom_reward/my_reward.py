"""A reward to copy: is the last number of a completion the answer?

`recipe.yaml` beside this file names it as `{path: ./my_reward.py:score, kwargs: {tolerance: 0.05}}`.

- Arguments without a default are columns of the task's rows. The data is checked for them before anything runs.
- Arguments with a default can be set by the recipe's `kwargs`; `**row` takes the other columns.
- Return a number in [0, 1], or a Score that also says why; None where the reward does not apply.
- An exception costs only its own completion: it is counted and recorded.
"""

import re

from posttrain import Score

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_READ = 10_000  # characters from the end: a completion may be of any length


def score(completion: str, *, answer: str, tolerance: float = 1e-6, **row) -> Score | None:
    """1 when the last number is within `tolerance` of the row's `answer`; None when that is not a number."""
    if not _NUMBER.fullmatch(answer):
        return None  # 'yes', say: not for this reward to judge
    numbers = _NUMBER.findall(completion[-_READ:])
    if not numbers:
        return Score(0.0, parts={"number": 0, "right": 0}, note="no number in the completion")
    said = float(numbers[-1])
    right = abs(said - float(answer)) <= tolerance
    return Score(right, parts={"number": 1, "right": right}, parsed=said, note="" if right else f"said {said:g}")
