"""Whether rewards give a demonstration what they give its text, when it comes to them as a rollout does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.errors import DataError
from posttrain.inputs.demonstrated import Demonstration, Found, without_end
from posttrain.scoring.score import Outcome, Reward
from posttrain.scoring.scorer import message_text

Score = Callable[[int, list[str], list[Mapping[str, Any]]], Sequence[Outcome]]
"""Called with a reward's number, texts and their rows."""


@dataclass(frozen=True)
class _Changed:
    """A demonstration whose text is another when it comes as a rollout does."""

    one: Demonstration
    text: str
    seen: str


def lower_scores(
    demonstrations: Sequence[Demonstration],
    tokenizer: Any,
    ends: Sequence[int],
    rewards: Sequence[Reward],
    score: Score | None,
) -> Iterator[Found]:
    """Rewards that give a demonstration less when it comes as a rollout does.

    Args:
        demonstrations, tokenizer, ends: As for `same_stream.differences`.
        rewards: Those that score rollouts.
        score: Calls one of them; `None` scores nothing.
    """
    pairs = [
        _Changed(one, text, as_rollout(one, tokenizer, ends))
        for one in demonstrations
        if (text := _as_text(one.row["completion"], tokenizer)) is not None
    ]
    changed = [each for each in pairs if each.text.split() != each.seen.split()]
    if not changed:
        return
    untried = score is None or any(reward.style != "score" for reward in rewards)
    for index, reward in enumerate(rewards if score else ()):
        some = [each for each in changed if reward.applies_to(each.one.row)]
        if reward.style != "score" or not some or score is None:
            continue
        rows = [each.one.row for each in some]
        texts = [each.text for each in some] + [each.seen for each in some]
        given = [outcome.value or 0.0 for outcome in score(index, texts, rows * 2)]
        values = list(zip(given[: len(some)], given[len(some) :], strict=True))
        lower = [place for place, (text, seen) in enumerate(values) if seen < text]
        if lower:
            others = sum(reward.applies_to(one.row) for one in demonstrations) - len(some)
            paid = others + sum(text > 0 for text, _ in values)
            first = lower[0]
            yield _lower(reward.name, some[first], values[first], tokenizer, refused=len(lower) == paid)
            untried = False
    if untried:
        yield from [_unseen(each, tokenizer) for each in changed if _left_out(each, tokenizer)][:1]


def as_rollout(one: Demonstration, tokenizer: Any, ends: Sequence[int]) -> str:
    """A completion as a reward would see it of a rollout: up to the first end, without special tokens."""
    end = next((place for place, token in enumerate(one.completion_ids) if token in ends), len(one.completion_ids))
    return tokenizer.decode(one.completion_ids[: end + 1], skip_special_tokens=True)


def _as_text(completion: Any, tokenizer: Any) -> str | None:
    """As rewards see it as text; `None` for several messages, of which no one rollout is."""
    if isinstance(completion, str):
        return without_end(completion, tokenizer.eos_token or "")
    return message_text(completion) if len(completion) == 1 else None


def _lower(name: str, changed: _Changed, values: tuple[float, float], tokenizer: Any, *, refused: bool) -> Found:
    return Found(
        refused,
        DataError(
            f"reward {name!r} gives a demonstration {values[0]:g} as text and {values[1]:g} as a rollout of it comes: "
            f"{_both(changed, tokenizer)}",
            expected="the same score: else GRPO does not pay for what SFT teaches",
            where="rewards",
            fix=_OPENED_OR_SPECIAL,
        ),
    )


def _unseen(changed: _Changed, tokenizer: Any) -> Found:
    return Found(
        False,
        DataError(
            f"a reward does not see a rollout as a demonstration is written: {_both(changed, tokenizer)}",
            expected="rewards that do not ask for what is left out",
            where="rewards",
            fix=_OPENED_OR_SPECIAL,
        ),
    )


_OPENED_OR_SPECIAL = (
    "where a tag is opened by the prompt, say so to the reward (format: {think_in_prompt: true}); where tokens are "
    'special, which rollouts are decoded without, set "special": false for them in the model\'s tokenizer.json and '
    "tokenizer_config.json; or leave the reward out"
)


def _left_out(changed: _Changed, tokenizer: Any) -> list[int]:
    """Special tokens that are words of the demonstration's text."""
    said = {token: tokenizer.decode([token]) for token in sorted(set(changed.one.completion_ids))}
    in_text = [token for token, text in said.items() if text and text in changed.text]
    return [token for token in in_text if not tokenizer.decode([token], skip_special_tokens=True)]


def _both(changed: _Changed, tokenizer: Any) -> str:
    """Where the two texts part, and the special tokens that make it so."""
    text, seen = changed.text, changed.seen
    start = next((i for i, (a, b) in enumerate(zip(text, seen, strict=False)) if a != b), min(len(text), len(seen)))
    start = max(0, start - 10)
    named = ", ".join(f"{tokenizer.decode([token])!r} ({token})" for token in _left_out(changed, tokenizer))
    tokens = f"; special tokens that are left out: {named}" if named else ""
    return f"{text[start : start + 60]!r} comes as {seen[start : start + 60]!r}{tokens}"
