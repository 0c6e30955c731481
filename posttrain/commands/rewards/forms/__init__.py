"""Equal forms and near misses of a gold answer: other ways to say the same, and what only looks like it.

`math.py`, `roles.py`, `objects.py`, `tables.py` and `expressions.py` make them of gold answers, as pure functions;
`of_row.py` knows for which reward.
"""

from __future__ import annotations

from typing import NamedTuple


class Form(NamedTuple):
    """A text made of a gold answer.

    Args:
        kind: What was changed, in a few words.
        text: The answer, or the completion.
        equal: Whether it says what the gold answer says.
    """

    kind: str
    text: str
    equal: bool
