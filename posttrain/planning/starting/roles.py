"""Which columns of a file look like the prompt, the demonstration and the answer, by their names and types."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posttrain.errors import DataError
from posttrain.planning.starting.columns import FEW, Column, is_empty
from posttrain.tasks.columns import RESERVED
from posttrain.tasks.row_files import RawRow

NAMES = {
    "messages": ("messages", "conversation", "conversations", "chat", "dialog", "dialogue"),
    "prompt": ("prompt", "question", "problem", "instruction", "query", "puzzle", "input", "text", "user"),
    "completion": (
        "completion", "solution", "worked_solution", "worked", "full_solution", "response", "output", "demonstration",
        "rationale", "reasoning", "chain_of_thought", "cot", "steps", "working", "explanation", "assistant",
    ),
    "answer": (
        "answer", "final_answer", "gold", "gold_answer", "correct_answer", "expected_answer", "expected", "target",
        "ground_truth", "reference", "label", "result",
    ),
}  # fmt: skip
"""What files call each part, the likeliest first."""
SLICES = ("difficulty", "level", "category", "subject", "topic", "kind", "type")
"""Names of columns by which evaluations are told apart."""
_PARTS = ("prompt", "completion", "messages", "system")
_IN_TEMPLATES = re.compile(r"[A-Za-z_][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Roles:
    """What the columns of a file are taken for.

    Args:
        prompt: The column of the prompt, or of the whole conversation.
        more: A column that belongs behind it, as `input` does behind `instruction`.
        conversation: Whether that column is the whole conversation, demonstrations included.
        completion: The column of the demonstration; may be the answer's.
        answer: The column of the answer.
        parameter: What a reward gets the answer as; None where there is nothing to judge by.
        slice_by: A column to tell evaluations apart by.
        guessed: Whether the prompt's column is called like none.
        settings: Of the task `rows`: prompt, columns, slice_by.
    """

    prompt: str
    more: str | None = None
    conversation: bool = False
    completion: str | None = None
    answer: str | None = None
    parameter: str | None = None
    slice_by: str | None = None
    guessed: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def of(self, column: str) -> str:
        """What a column is taken for, in words."""
        said = [
            name
            for name, which in (
                ("conversation" if self.conversation else "prompt", (self.prompt, self.more)),
                ("demonstration", (self.completion,)),
                ("answer", (self.answer,)),
            )
            if column in which
        ]
        return " and ".join(said)


def roles_of(
    columns: Mapping[str, Column], rows: Sequence[RawRow], where: str, eval_columns: Mapping[str, Column] | None = None
) -> Roles:
    """What the columns look like.

    Args:
        columns: Those of a file.
        rows: Its rows.
        where: The file.
        eval_columns: Those of the rows to evaluate on, where they are in another file.

    Raises:
        DataError: None of them could be a prompt.
    """
    conversation = _first(columns, "messages", ("messages",))
    prompt = conversation or _first(columns, "prompt", ("text", "messages"))
    guessed = prompt is None
    prompt = prompt or next((name for name, column in columns.items() if column.kind == "text"), None)
    if prompt is None:
        raise DataError(
            f"columns {', '.join(columns)}, and none of them is text or messages",
            expected="a column with a prompt, such as prompt, question or messages",
            where=where,
        )
    taken = [prompt]
    completion = None if conversation else _first(columns, "completion", ("text", "messages", "number"), taken)
    more = _behind(prompt, columns, rows, [*taken, *([completion] if completion else [])])
    taken += [name for name in (completion, more) if name]
    answer = _first(columns, "answer", ("text", "number", "yes or no", "list", "mapping"), taken)
    if not conversation:
        completion = completion or answer
    slice_by = next((name for name in columns if _plain(name) in SLICES and 1 < columns[name].values <= FEW), None)
    slice_by = None if slice_by in (*taken, answer) or slice_by not in (eval_columns or columns) else slice_by
    parameter, named = _parameter(columns, answer, prompt if conversation else completion)
    settings = _settings(columns, prompt, more, bool(conversation), completion, named)
    return Roles(
        prompt=prompt,
        more=more,
        conversation=bool(conversation),
        completion=completion,
        answer=answer,
        parameter=parameter,
        slice_by=slice_by,
        guessed=guessed,
        settings=settings | ({"slice_by": slice_by} if slice_by else {}),
    )


def _first(
    columns: Mapping[str, Column], part: str, kinds: Sequence[str], taken: Sequence[str | None] = ()
) -> str | None:
    """The likeliest column for a part: one that is called so, else one with such a word in its name."""
    named = {_plain(name): name for name in reversed([*columns]) if name not in taken and columns[name].kind in kinds}
    words = {word: name for plain, name in named.items() if "id" not in plain.split("_") for word in plain.split("_")}
    return next((its[name] for its in (named, words) for name in NAMES[part] if name in its), None)


def _plain(name: str) -> str:
    return "_".join(re.findall(r"[a-z0-9]+", name.lower()))


def _behind(prompt: str, columns: Mapping[str, Column], rows: Sequence[RawRow], taken: Sequence[str]) -> str | None:
    """The `input` of an `instruction`, where most rows have one."""
    if _plain(prompt) != "instruction" or not _templated(prompt):
        return None
    names = [name for name in columns if _plain(name) in ("input", "context") and name not in taken]
    both = next((name for name in names if _templated(name)), None)
    if both is None or sum(not is_empty(row.columns.get(both)) for row in rows) * 2 < len(rows):
        return None
    return both


def _parameter(
    columns: Mapping[str, Column], answer: str | None, demonstrated: str | None
) -> tuple[str | None, dict[str, str]]:
    """What a reward gets the answer as, and how the recipe has to call it so; without an answer the demonstration."""
    if answer is None and demonstrated is None:
        return None, {}
    if answer is not None and _is_parameter(answer):
        return answer, {}
    free = (name for name in ("gold", "answer", "gold_answer", "the_answer") if name not in columns)
    names: Iterator[str] = iter(("answer", *free)) if answer is not None and "answer" not in columns else free
    name = next(names)
    return name, {name: str(answer if answer is not None else demonstrated)}


def _is_parameter(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and name not in RESERVED and name not in _PARTS


def _templated(name: str) -> bool:
    return bool(_IN_TEMPLATES.fullmatch(name))


def _settings(
    columns: Mapping[str, Column],
    prompt: str,
    more: str | None,
    conversation: bool,
    completion: str | None,
    named: dict[str, str],
) -> dict[str, Any]:
    """The keys of the task that say so."""
    said: dict[str, Any] = {}
    renamed: dict[str, str] = {}
    part = "messages" if conversation else "prompt"
    if more:
        said["prompt"] = f"{{{prompt}}}\n\n{{{more}?}}\n"
    elif prompt != part and columns[prompt].kind == "text" and _templated(prompt):
        said["prompt"] = f"{{{prompt}}}\n"
    elif prompt != part:
        renamed[part] = prompt
    if completion is not None and completion != "completion":
        renamed["completion"] = completion
    renamed |= named
    for name in columns:
        if name in RESERVED - set(_PARTS) and name not in renamed.values():
            renamed[f"my_{name}"] = name
    if renamed:
        said["columns"] = renamed
    return said
