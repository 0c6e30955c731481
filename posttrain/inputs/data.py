"""From a task's rows to what the trainers eat: chat wrapping, tokenised demonstrations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from posttrain.errors import DataError
from posttrain.inputs.rendering import After, chat_demonstration, check_rendering, text_demonstration

Row = Mapping[str, Any]

IGNORED = -100
"""Label of a position that no loss looks at."""


def to_chat(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The same rows with `prompt` and `completion` as chat messages, for a model that has a chat template."""
    wrapped = []
    for row in rows:
        if not isinstance(row["prompt"], str):  # messages already
            wrapped.append(dict(row))
            continue
        messages: dict[str, Any] = {"prompt": [{"role": "user", "content": row["prompt"]}]}
        if "completion" in row:
            messages["completion"] = [{"role": "assistant", "content": row["completion"]}]
        wrapped.append({**row, **messages})
    return wrapped


def fit_to_model(rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """Rows as messages where the tokenizer has a chat template, as plain text where it has none.

    Raises:
        DataError: A row is to be rendered by arguments of its own (`check_rendering`).
    """
    if not tokenizer.chat_template:
        return [dict(row) for row in rows]
    wrapped = to_chat(rows)
    check_rendering(wrapped, "task")
    return wrapped


def prompt_key(prompt: Any) -> str:
    """By which prompts are the same: their content, text or messages."""
    return json.dumps(prompt, sort_keys=True, ensure_ascii=False)


def with_demonstrated(data: Any) -> list[dict[str, Any]]:
    """A task's prompts and, behind them, those of its demonstrations that are not among them.

    Args:
        data: With `train` and `demonstrations`.
    """
    known = {prompt_key(row["prompt"]) for row in data.train}
    more = [row for row in data.demonstrations if prompt_key(row["prompt"]) not in known]
    return [*data.train, *({name: value for name, value in row.items() if name != "completion"} for row in more)]


def as_table(rows: Sequence[Row]) -> Dataset:
    """Rows as a data set that gives each value back as it was, of whatever kind the values of a column are.

    A table has one kind a column: whole numbers among others would become floats, mappings would get one another's
    keys, and text beside a number would be refused. Columns that it would change are kept as JSON text and read again
    when a row is asked for.

    Raises:
        DataError: Such a column has values that JSON has no word for either, such as dates beside text.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    changed = [name for name, values in columns.items() if name != "prompt" and not _kept_by_a_table(values)]
    for name in changed:
        try:
            columns[name] = [json.dumps(value, ensure_ascii=False) for value in columns[name]]
        except (TypeError, ValueError) as error:
            raise DataError(
                f"the column {name!r} has values of several kinds: {error}",
                expected="one kind of value a column, or what JSON has: text, numbers, true and false, lists, mappings",
                where="task",
                fix="write them as text in the file",
            ) from error
    table = Dataset.from_dict(columns)
    return table.with_transform(partial(_read_again, names=changed)) if changed else table


def _kept_by_a_table(values: list[Any]) -> bool:
    import pyarrow as pa

    try:
        return repr(pa.array(values).to_pylist()) == repr(values)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return False


def _read_again(batch: dict[str, list[Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    return {
        name: [json.loads(value) for value in values] if name in names else values for name, values in batch.items()
    }


def tokenize_demonstrations(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
    after: After = "template",
) -> Dataset:
    """Token ids and completion-only labels of prompt-completion rows: the prompt's ids, then the completion's.

    Both stages train on what this returns. A row begins with the very tokens that its prompt is sampled from, and none
    reaches over the border, so SFT and GRPO agree on where a completion begins. `trl.SFTTrainer` tokenises the two as
    one text; its rows are the same where no token would reach over.

    Args:
        rows: `prompt` and `completion`, both text or both chat messages.
        tokenizer: Text completions get its end-of-sequence token; messages go through its chat template.
        max_length: Tokens kept from the start of each example; `None` keeps all.
        template_kwargs: Arguments of the chat template, as TRL's `chat_template_kwargs`.
        after: Where the template does not render a demonstration behind what the sampler is given, `template` refuses
            it, and `generation_prompt` puts its completion there.

    Returns:
        Columns `input_ids` and `labels` (-100 on the prompt). Rows whose completion was cut off whole are dropped.

    Raises:
        UnlikePrompts: The template renders another prompt for the sampler, and `after` is `template`.
        DataError: A row lacks a column, or nothing is left; the template refuses a row.
    """
    return numbered_demonstrations(
        rows, tokenizer, max_length=max_length, template_kwargs=template_kwargs, after=after
    )[0]


def numbered_demonstrations(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
    after: After = "template",
) -> tuple[Dataset, list[int]]:
    """What `tokenize_demonstrations` gives, and of each of its rows the number of the row that it was made of."""
    kwargs, rows = template_kwargs or {}, list(rows)
    check_rendering(rows, "demonstrations")
    pairs = [demonstration_ids(row, number, tokenizer, kwargs, after) for number, row in enumerate(rows)]
    examples = [_labelled(*pair, max_length) for pair in pairs]
    numbers = [
        number for number, example in enumerate(examples) if any(label != IGNORED for label in example["labels"])
    ]
    if not numbers:
        raise DataError(
            "no demonstration has a completion token left" if examples else "there are no demonstrations",
            expected=f"completions that begin within {max_length} tokens" if examples else "at least one row",
            where="demonstrations",
            fix="raise max_length" if examples else "give some, or use a controller without SFT, such as grpo_only",
        )
    return Dataset.from_list([examples[number] for number in numbers]), numbers


def _labelled(prompt_ids: list[int], completion_ids: list[int], max_length: int | None) -> dict[str, list[int]]:
    ids, labels = prompt_ids + completion_ids, [IGNORED] * len(prompt_ids) + completion_ids
    return {"input_ids": ids[:max_length], "labels": labels[:max_length]}


def demonstration_ids(
    row: Row, number: int, tokenizer: PreTrainedTokenizerBase, template_kwargs: Mapping[str, Any], after: After
) -> tuple[list[int], list[int]]:
    """Token ids of a row's prompt, and of its completion with its end; `number` is the row's in what is said of it."""
    for column in ("prompt", "completion"):
        if column not in row:
            raise DataError(
                f"row {number} has no column {column!r}",
                expected="prompt and completion in every demonstration",
                where="demonstrations",
                fix=f"its columns are {', '.join(sorted(row))}",
            )
    prompt, completion = row["prompt"], row["completion"]
    _check_kinds(prompt, completion, number)
    if isinstance(prompt, str):
        return text_demonstration(tokenizer, prompt, completion)
    return chat_demonstration(tokenizer, prompt, completion, template_kwargs, after)


def _check_kinds(prompt: Any, completion: Any, number: int) -> None:
    """Both are text, or both are messages."""
    kinds = [
        "text" if isinstance(value, str) else "messages" if isinstance(value, list | tuple) else type(value).__name__
        for value in (prompt, completion)
    ]
    if kinds not in (["text", "text"], ["messages", "messages"]):
        raise DataError(
            f"row {number} has a prompt of kind {kinds[0]} and a completion of kind {kinds[1]}",
            expected="text and text, or lists of messages with a role and a content for both",
            where="demonstrations",
            fix="leave rows without a completion out; a text beside messages is written as one message",
        )
