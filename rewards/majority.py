"""Reward `majority`: whether a completion says what most of its group say, without any label.

TTRL (arXiv 2504.16084): the answer that most of a prompt's completions give stands for the right one, and pays 1. What
an answer is, and when two are equal, is the notion of another reward, which is asked for nothing else: its function has
two attributes, `read_answer(completion, **row)`, which gives the answer or `None`, and `same_answer(one, other)`.

Of answers with as many votes the one that was said first wins; a completion without an answer votes for nothing and
earns 0. `leave_one_out` lets only the others vote for each completion (an option of SPINE, arXiv 2511.17938). Nothing
says that the majority is right: a policy that is wrong in most of its tries becomes sure of it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posttrain.errors import RewardError
from posttrain.nearest import hint
from posttrain.scoring.loading import known_rewards
from posttrain.scoring.score import Score

_KEPT = 64
"""Groups whose votes are kept: each completion of a group asks for them."""
_votes: dict[tuple[Any, ...], list[int | None]] = {}


def score(
    completion: str,
    *,
    of: str = "",
    group_completions: Sequence[str] | None = None,
    leave_one_out: bool = False,
    **row: Any,
) -> Score:
    """1 when the completion's answer has the most votes of its group, else 0.

    Args:
        completion: The completion as text, one of the group.
        of: Whose answers: a reward by name, such as `math_answer`, `knights_knaves` or `json_structure`; or
            `package.module:function`.
        group_completions: All completions of the prompt, which training fills in; without them a completion stands
            alone, and earns 1 for an answer that can be read.
        leave_one_out: A completion's own vote does not count for it.
        row: What the other reward reads an answer by, such as `names`.

    Returns:
        Score with the parts `votes`, the share of the group that says the same, and `agreement`, the largest share
        that any answer has; as `parsed` the answer.
    """
    read, same = answers_of(of)
    group = list(group_completions or [completion])
    if completion not in group:
        raise RewardError("the completion is none of its group", expected="one of group_completions", where="majority")
    kinds = _kinds(of, read, same, group, row)
    own = kinds[group.index(completion)]
    counts = {kind: kinds.count(kind) for kind in kinds if kind is not None}
    most = max(counts.values(), default=0)
    parts = {"votes": counts[own] / len(group) if own is not None else 0.0, "agreement": most / len(group)}
    if own is None:
        return Score(0.0, parts=parts, note="no answer")
    parsed = read(completion, **row)
    if leave_one_out:
        counts[own] -= 1
    winner = max(counts, key=lambda kind: (counts[kind], -kind))
    won = winner == own and counts[own] > 0
    others = " of the others" if leave_one_out else ""
    note = f"{counts[own]} of {len(group) - leave_one_out} votes{others}" + (
        "" if won else f"; {counts[winner]} for another"
    )
    return Score(float(won), parts=parts, parsed=parsed, note=note)


def _kinds(
    of: str, read: Callable[..., Any], same: Callable[[Any, Any], bool], group: list[str], row: Mapping[str, Any]
) -> list[int | None]:
    """Of each completion the place of the first one with its answer; `None` without an answer."""
    key = (of, tuple(group), repr(sorted(row.items(), key=lambda item: item[0])))
    if key not in _votes:
        while len(_votes) >= _KEPT:
            del _votes[next(iter(_votes))]
        firsts: dict[int, Any] = {}
        kinds: list[int | None] = []
        for place, completion in enumerate(group):
            answer = read(completion, **row)
            if answer is None:
                kinds.append(None)
                continue
            kind = next((first for first, other in firsts.items() if same(other, answer)), place)
            firsts.setdefault(kind, answer)
            kinds.append(kind)
        _votes[key] = kinds
    return _votes[key]


@functools.cache
def answers_of(of: str) -> tuple[Callable[..., Any], Callable[[Any, Any], bool]]:
    """How a reward reads answers, and when it takes two for equal.

    Raises:
        RewardError: There is no such reward, or it has no notion of equal answers.
    """
    if ":" in of:
        module, _, name = of.partition(":")
        try:
            function = functools.reduce(getattr, name.split("."), importlib.import_module(module))
        except (ImportError, AttributeError) as error:
            raise RewardError(f"{of!r}: {error}", expected="package.module:function", where="majority, of") from error
    else:
        known = known_rewards()
        if of not in known:
            seen = f"no reward named {of!r}{hint(of, list(known))}"
            raise RewardError(seen, expected="the name of one, or package.module:function", where="majority, of")
        function = known[of].load()
    read, same = getattr(function, "read_answer", None), getattr(function, "same_answer", None)
    if not callable(read) or not callable(same):
        raise RewardError(
            f"{of!r} does not say when two answers are equal",
            expected="a reward with the attributes read_answer and same_answer: math_answer, knights_knaves or "
            "json_structure; of countdown any two right expressions are as good, so that votes mean nothing",
            where="majority, of",
            fix="name one of them, or give your own reward's function these attributes",
        )
    return read, same


def check(of: str = "", **kwargs: Any) -> None:
    """Refuse settings that cannot be voted by, when the reward is loaded."""
    if not of:
        raise RewardError(
            "majority without `of`",
            expected="the reward whose notion of equal answers is voted by",
            where="rewards",
            fix="{name: majority, kwargs: {of: math_answer}}",
        )
    answers_of(of)


def prepare(kwargs: Mapping[str, Any]) -> None:
    """Have a worker load what the other reward needs before the first clock starts."""
    function = answers_of(kwargs["of"])[0]
    first = getattr(function, "prepare", None)
    if first is not None:
        first()


score.check_kwargs = check  # type: ignore[attr-defined]
score.prepare = prepare  # type: ignore[attr-defined]
