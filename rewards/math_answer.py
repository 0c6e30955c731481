r"""Reward `math_answer`: whether the final answer of a math problem is the gold answer.

Where the answer stands is decided in `math_extract.py`, what it says in `math_text.py`, what equals what in
`math_compare.py`, with math-verify as the judge of everything but plain numbers and words. `math_echo.py` takes back
what equals the gold answer without being one.

- Percentages: `50\%` equals `1/2` and, when the number is at least 1, also a bare `50`.
- Units are left out, but two known units that differ are two answers, unless they make one quantity: 60 minutes are 1
  hour, 5 cm are not 5 cm^2. '2 million' is 2,000,000. `$14$` is no money, `$14` and `\$14` are.
- A letter behind a number is a unit only where the gold answer has no letters: `6` does not say `6s`.
- `(B)`, `B. 12` and `Option B` say B; of a gold answer `(B) 12` either part may be said.
- Several answers side by side, in boxes or dollars, are a list; a later one that corrects the others counts alone.
- A comma before exactly three digits separates thousands, unless inside brackets: `(1,234)` is a pair.
- Decimals equal what they round to at 6 places: `0.333333` is `1/3`, `0.333` is not.
- `(1,2)` is not `(2,1)`, nor `[1,2)` `[1,2]`; `\{1,2\}` and the list `1,2` are `\{2,1\}` and `2,1`.
- `x=5` says `5`; an equation such as `x+1=6` does not. `1011_2` is not `1011_3`.
- An answer that lists more than the gold answer does is wrong.
- A formula of the prompt that has yet to be computed is no answer, nor, where numbers are asked for, is `2+3` or `5!`.
"""

from __future__ import annotations

import re
from typing import Any

from posttrain.rewards.math_compare import check_readable, same_answer
from posttrain.rewards.math_echo import why_no_answer
from posttrain.rewards.math_extract import final_answer, gold_answer
from posttrain.rewards.math_judge import Unreadable, load, shown
from posttrain.rewards.math_sentence import why_no_answer_text
from posttrain.rewards.math_text import LONGEST, cleaned
from posttrain.scoring.score import Score

_COMMAND = re.compile(r"\\text\{[^{}]*\}|\\(?:begin|end)\s*\{[^{}]*\}(?:\{[^{}]*\})?|\\[A-Za-z]+")
_LONG_WORD = re.compile(r"(?<![A-Za-z])(?=[a-z]*[aeiouy])[A-Za-z][a-z]{2,}(?![A-Za-z])")
_KINDS = {
    "empty": re.compile("empty"),
    "words": re.compile("^words"),
    "computation": re.compile("^a computation"),
    "size": re.compile("too (?:big|many|deep)|more than|characters$|deep$|huge|high power|of too many"),
}


def score(completion: str, *, answer: str | None, prompt: str = "", strict: bool = True, **row: Any) -> Score | None:
    r"""1 when the final answer equals the gold answer, else 0; None when the gold answer cannot be read.

    Args:
        completion: The completion as text. What follows the thinking counts; of that the last `\boxed{...}`, else
            the last `####`, else the last "the answer is"; several side by side are one answer, a list.
        answer: The gold answer in LaTeX or plain text, or a worked solution that marks it by a box or `####`.
        prompt: The prompt as text. What only repeats a formula of it scores 0; see `math_echo.py`.
        strict: False also takes the last number of a completion that marks no answer.
        row: Ignored.

    Returns:
        Score with the text of the answer as `parsed`, and as `note` where it was or why it earns nothing.
    """
    answer = gold_answer(answer or "")
    if not answer.strip() or _why_no_value(answer) is not None:
        return None
    said, where = final_answer(completion, strict=strict)
    try:
        if said is None:
            check_readable(answer)
            return Score(0.0, note=where)
        if len(said) > LONGEST:
            check_readable(answer)
            return Score(0.0, parsed=shown(said), note=f"an answer of {len(said):,} characters")
        same, why = same_answer(answer, said)
    except Unreadable:
        return None
    if same and (undone := why_no_answer(answer, said, prompt)):
        same, why = False, undone
    return Score(float(same), parsed=shown(said), note=where if same else f"{where}: {why}")


def read_answer(completion: str, *, strict: bool = True, **row: Any) -> str | None:
    """The final answer as text, for votes among completions (`majority`); None without one that can be read."""
    said, _ = final_answer(completion, strict=strict)
    if said is None or not said.strip() or len(said) > LONGEST:
        return None
    return said


def same_value(one: str, other: str) -> bool:
    """Whether one of two answers says the other; what cannot be read equals only itself."""
    if one.strip() == other.strip():
        return True
    for gold, said in ((one, other), (other, one)):
        try:
            if same_answer(gold, said)[0]:
                return True
        except Unreadable:
            continue
    return False


read_answer.prepare = load  # type: ignore[attr-defined]
score.read_answer, score.same_answer = read_answer, same_value  # type: ignore[attr-defined]
score.prepare = load  # type: ignore[attr-defined]  # a worker imports math-verify before the first clock starts


def why_unreadable(answer: str | None) -> str | None:
    """Why a gold answer cannot be read, as `kind: answer: reason`; None when it can.

    The kinds are `empty`, `sentence` (words that end in no value), `computation` (a sum or an integral to be computed),
    `size` (too long, or too big to compute), `words` (words in the middle of a formula) and `notation` (all others).
    """
    answer = gold_answer(answer or "")
    if not answer.strip():
        return "empty: there is no answer"
    if (why := _why_no_value(answer)) is not None:
        return f"sentence: {shown(answer)!r}: {why}"
    try:
        check_readable(answer)
    except Unreadable as problem:
        return f"{_kind(str(problem))}: {shown(answer)!r}: {problem}"
    return None


def _why_no_value(gold: str) -> str | None:
    """Why a gold answer is a sentence that nobody could repeat word by word; None when it is something else."""
    answer = cleaned(gold)
    if answer.words:
        return why_no_answer_text(gold)
    return "words, and no value at their end" if len(_LONG_WORD.findall(_COMMAND.sub(" ", answer.math))) > 1 else None


def _kind(problem: str) -> str:
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(problem)), "notation")
