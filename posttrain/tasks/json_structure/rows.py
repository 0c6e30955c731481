"""Records as rows, and rows of the user's own from files."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from posttrain.errors import DataError
from posttrain.tasks.columns import own_columns
from posttrain.tasks.json_structure.generate import Record, Split, canonical, is_held_out
from posttrain.tasks.row_counts import listed
from posttrain.tasks.row_files import BadRow, each_row

Prompt: TypeAlias = Literal["full", "short"]
Style: TypeAlias = Literal["compact", "indent"]
Row: TypeAlias = dict[str, Any]


def record_row(record: Record, prompt: Prompt) -> Row:
    """A generated record as a row without a completion; schema and gold are JSON text."""
    return {
        "prompt": prompt_text(record.text, record.schema, prompt),
        "schema": record.schema_text,
        "gold": json.dumps(record.gold, ensure_ascii=False),
        "difficulty": record.level,
        "text": record.text,
    }


def prompt_text(text: str, schema: Any, prompt: Prompt) -> str:
    """What the model reads: the request, the schema and the text, or only keys and text."""
    if prompt == "short":
        return f"{_brief(schema, schema)}\n{text}\n"
    return (
        "Read the text and write down what it says as one JSON value that fits the schema. "
        "Answer with the JSON and nothing else.\n\n"
        f"Schema:\n{json.dumps(schema, ensure_ascii=False)}\n\nText:\n{text}\n\nJSON:\n"
    )


def _brief(schema: Any, root: Any) -> str:
    """A schema in a few words, such as `name string, address {city string}`; limits are left out."""
    if not isinstance(schema, dict):
        return json.dumps(schema)
    reference = schema.get("$ref", "")
    definitions = root.get("$defs", {})
    if reference.startswith("#/$defs/") and reference[8:] in definitions:
        return _brief(definitions[reference[8:]], {**root, "$defs": {**definitions, reference[8:]: True}})
    for word in ("oneOf", "anyOf"):
        if word in schema:
            return "|".join(_brief(each, root) for each in schema[word])
    if "enum" in schema:
        return "|".join(each if isinstance(each, str) else json.dumps(each) for each in schema["enum"])
    if "properties" in schema:
        required = schema.get("required", ())
        keys = [
            f"{name}{'' if name in required else '?'} {_brief(part, root)}"
            for name, part in schema["properties"].items()
        ]
        return ", ".join(keys) if schema is root else "{" + ", ".join(keys) + "}"
    if "items" in schema:
        return f"[{_brief(schema['items'], root)}]"
    kind = schema.get("type", "any")
    return kind if isinstance(kind, str) else "|".join(kind)


def with_completion(row: Row, style: Style, value: Any) -> Row:
    """The row as a demonstration: its prompt, a value (the gold one, mostly) as the completion, its columns."""
    options: dict[str, Any] = {"separators": (",", ":")} if style == "compact" else {"indent": 2}
    completion = json.dumps(value, ensure_ascii=False, **options)
    return {"prompt": row["prompt"], "completion": completion, **{k: v for k, v in row.items() if k != "prompt"}}


def read_rows(paths: Sequence[str], prompt: Prompt, levels: Sequence[int] | None, notes: list[str]) -> list[Row]:
    """The rows of files (`row_files.py`): `prompt` or `text`, `schema`, `gold`, and perhaps `difficulty` (else 0).

    Schema and gold may be JSON text or the objects themselves. Other columns are kept, except `completion`. Of rows
    with the same prompt only the first is.

    Args:
        paths: The files.
        prompt: The form of the prompt of rows that have none.
        levels: The values of `difficulty` to keep; None keeps all.
        notes: Gets a paragraph about the rows that are left out because their schema is of a draft that is not known.

    Raises:
        DataError: A file can't be read, or rows that no completion could be judged by; the first are named.
    """
    from posttrain.rewards.json_structure import why_unreadable

    rows: dict[str, Row] = {}
    unfit: list[str] = []
    unreadable: list[str] = []
    raw = list(each_row(paths))
    for given in raw:
        why = None if isinstance(given, BadRow) else why_unreadable(given.columns.get("schema"))
        if why is not None:
            unreadable.append(f"{given.where}: {why}")
            continue
        row = given.seen if isinstance(given, BadRow) else _own_row(given.columns, prompt)
        if isinstance(row, str):
            unfit.append(f"{given.where}: {row}")
        elif levels is None or row["difficulty"] in levels:
            rows.setdefault(" ".join(row["prompt"].lower().split()), row)
    if unfit:
        raise DataError(
            listed("rows can't be used:", unfit),
            expected="text or prompt, a JSON Schema (Draft 4 to 2020-12) and a gold value that fits it in every row",
            where="task json_structure, path",
            fix="mend or delete those rows",
        )
    if unreadable:
        notes.append(listed("rows are left out: the draft of their schema is not known", unreadable, len(raw)))
    return list(rows.values())


def _own_row(given: Mapping[str, Any], prompt: Prompt) -> Row | str:
    """The row with these columns, or what is wrong with it."""
    from posttrain.rewards.json_structure import check_row
    from posttrain.rewards.json_text import shorten

    said = [name for name in ("prompt", "text") if not _blank(given.get(name))]
    missing = [name for name in _JSON if given.get(name) is None] + ([] if said else ["text or prompt"])
    if missing:
        return "no " + " and no ".join(missing)
    if not isinstance(given[said[0]], str):
        return f"{said[0]} {shorten(given[said[0]])} is not a string"
    difficulty = _level(given.get("difficulty"))
    if difficulty is None:
        return f"difficulty {given['difficulty']!r} is not a whole number"
    try:
        as_text = {name: given[name] if isinstance(given[name], str) else json.dumps(given[name]) for name in _JSON}
    except TypeError as error:  # parquet has dates and bytes
        return f"schema or gold: {error}"
    wrong = check_row(as_text["schema"], as_text["gold"])
    if wrong:
        return wrong
    own = given["prompt"] if said[0] == "prompt" else prompt_text(given["text"], json.loads(as_text["schema"]), prompt)
    columns = own_columns(given)
    return {"prompt": own, **columns, **as_text, "difficulty": difficulty}


_JSON = ("schema", "gold")


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _level(value: Any) -> int | None:
    """A row's difficulty as a number: 0 without one, None when it is no whole number."""
    if value is None:
        return 0
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        return int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    return None


def split_rows(rows: Sequence[Row], seed: int, counts: Mapping[str, int], split: Split) -> dict[str, list[Row]]:
    """Disjoint `eval`, `demonstrations` and `train` rows in random order.

    Rows differ by their prompts already. With `split="schema"` eval takes every row of a schema or none.

    Raises:
        DataError: There are not as many rows as asked for.
    """
    pool = list(rows)
    random.Random(f"json_structure files {seed}").shuffle(pool)
    if split == "schema":
        held_out = [row for row in pool if is_held_out(canonical(json.loads(row["schema"])), seed)]
        rest = [row for row in pool if not is_held_out(canonical(json.loads(row["schema"])), seed)]
    else:
        held_out, rest = pool[: counts["eval"]], pool[counts["eval"] :]
    train = counts["demonstrations"]
    parts = {"eval": held_out[: counts["eval"]], "demonstrations": rest[:train], "train": rest[train:]}
    parts["train"] = parts["train"][: counts["train"]]
    for part, some in parts.items():
        if len(some) < counts[part]:
            raise DataError(
                f"{len(pool)} different rows in the files leave {len(some)} for {part}",
                expected=f"{counts[part]}, after {counts['eval']} for eval and then the demonstrations",
                where=f"task json_structure, {part}",
                fix=f"set {part} to {len(some)} or less, or name more files",
            )
    return parts
