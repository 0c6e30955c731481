"""Tables as text, HTML and LaTeX, from texts: further forms of what `json_structure` extracts (Struc-Bench).

`TableStructure` is the task of a recipe; `generate_rows` and `write` serve `posttrain data table_structure`.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field

from posttrain.errors import ConfigError
from posttrain.storage.files import write_jsonl
from posttrain.tasks import Judges, TaskData
from posttrain.tasks.arguments import checked, parse_numbers
from posttrain.tasks.json_structure.domains import DOMAINS
from posttrain.tasks.json_structure.noise import values_by_place, with_wrong_values
from posttrain.tasks.noise import marked, noisy, note
from posttrain.tasks.table_structure.generate import Bounds, TableRecord, fields_of, split_tables
from posttrain.tasks.table_structure.writing import ASKED, FORMS, TableForm, written

__all__ = ["FORMS", "Prompt", "TableStructure", "generate_rows", "parse_columns", "parse_rows", "write"]

Prompt: TypeAlias = Literal["full", "short"]
Kind: TypeAlias = Literal["text", "integer", "code", "decimal", "choice", "flag"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_ROWS, MOST_COLUMNS = 6, 6


def parse_rows(value: Any) -> list[int]:
    """How many rows a table has, from `3`, `[2, 4]`, `"2-4"`.

    Raises:
        ConfigError: It is none of these, or not from 1 to 6.
    """
    return _sizes(value, 1, MOST_ROWS, "table_rows")


def parse_columns(value: Any) -> list[int]:
    """How many columns a table has, the same way.

    Raises:
        ConfigError: It is none of these, or not from 2 to 6.
    """
    return _sizes(value, 2, MOST_COLUMNS, "columns")


def _sizes(value: Any, least: int, most: int, where: str) -> list[int]:
    expected = f"{where} of a table, from {least} to {most}, such as 3, [2, 3] or 2-4"
    return parse_numbers(value, range(least, most + 1), expected=expected, where=where)


@dataclass(frozen=True, kw_only=True)
class TableStructure:
    """Texts to put into a table, in the form that the prompt asks for; generated.

    Args:
        label: What rewards and reports call the task, if not `table_structure`: a mixture may have several.
        forms: `text`, `html`, `latex`; each gets the same share.
        table_rows: How many rows tables have below the names, 1 to 6. `"2-4"` is understood.
        columns: How many columns they have, 2 to 6; the first names the row.
        train: How many prompts for the rollouts.
        eval: How many held-out texts.
        demonstrations: How many worked examples: the table itself.
        prompt: `full` says what to do, `short` only the form and the columns, for tiny models.
        kinds: What columns other than the first may hold: `text`, `integer`, `code`, `decimal`, `choice`, `flag`.
        noise_share: The share of the demonstrations that are wrong: half of the cells of each, rounded up, are of other
            texts.
        domains: What the texts are about.
        vocabulary: How many of the built-in words of each kind to use, at least as many as a table may have rows.
        synonyms: Whether the same column comes in several spellings.
    """

    __pydantic_config__ = {"extra": "forbid"}
    reward: ClassVar[str] = "table_structure"
    slice_by: ClassVar[str] = "form"

    name: Literal["table_structure"] = "table_structure"
    label: str | None = None
    forms: Annotated[list[TableForm], Field(min_length=1)] = field(default_factory=lambda: list(FORMS))
    table_rows: Annotated[list[int], BeforeValidator(parse_rows)] = field(default_factory=lambda: [2, 3, 4])
    columns: Annotated[list[int], BeforeValidator(parse_columns)] = field(default_factory=lambda: [2, 3, 4])
    train: Annotated[int, Field(ge=0)] = 4000
    eval: Annotated[int, Field(ge=0)] = 200
    demonstrations: Annotated[int, Field(ge=0)] = 500
    prompt: Prompt = "full"
    kinds: Annotated[list[Kind], Field(min_length=1)] = field(default_factory=lambda: list(KINDS))
    noise_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    domains: Annotated[list[str], Field(min_length=1)] = field(default_factory=lambda: list(DOMAINS))
    vocabulary: Annotated[int, Field(ge=MOST_ROWS)] | None = None
    synonyms: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "table_rows", parse_rows(self.table_rows))
        object.__setattr__(self, "columns", parse_columns(self.columns))
        unknown = [name for name in self.domains if name not in DOMAINS]
        if unknown:
            raise ConfigError(repr(unknown[0]), expected="one of " + ", ".join(DOMAINS), where="domains")
        for name in self.domains:
            most = len(fields_of(DOMAINS[name], self.kinds)) + ("text" not in self.kinds)
            if max(self.columns) > most:
                raise ConfigError(
                    f"{max(self.columns)} columns of {', '.join(self.kinds)} about {name}",
                    expected=f"at most {most}",
                    where="columns",
                    fix="ask for fewer, or allow more kinds",
                )

    def load(self, seed: int, judges: Judges | None = None) -> TaskData:
        """The rows for one seed, the same in every process.

        Raises:
            DataError: There are not as many different texts as asked for.
        """
        bounds = Bounds(
            self.forms, self.table_rows, self.columns, self.domains, self.kinds, self.vocabulary, self.synonyms
        )
        counts = {"eval": self.eval, "demonstrations": self.demonstrations, "train": self.train}
        records = split_tables(bounds, seed, counts)
        wrongs = noisy(self.demonstrations, self.noise_share, random.Random(f"table_structure noisy {seed}"))
        rng = random.Random(f"table_structure wrong {seed}")
        golds = [[dict(zip(each.columns, row, strict=True)) for row in each.rows] for each in records["demonstrations"]]
        elsewhere = values_by_place(golds) if self.noise_share else {}
        demonstrations = []
        for record, gold, wrong in zip(records["demonstrations"], golds, wrongs, strict=True):
            said = with_wrong_values(gold, elsewhere, rng) if wrong else gold
            completion = written(record.form, record.columns, [[*row.values()] for row in said])
            row = _row(record, self.prompt)
            row = {"prompt": row.pop("prompt"), "completion": completion, **row}
            demonstrations.append(marked(row, wrong, self.noise_share))
        notes = note(demonstrations, self.noise_share, "half of their cells are of other texts")
        parts = {part: [_row(record, self.prompt) for record in records[part]] for part in ("train", "eval")}
        return TaskData(train=parts["train"], demonstrations=demonstrations, eval=parts["eval"], notes=notes)


def _row(record: TableRecord, prompt: Prompt) -> dict[str, Any]:
    """A table as a row without a completion; the table is JSON text."""
    names = ", ".join(record.columns)
    short = f"{record.form}: {names}\n{record.text}\n"
    full = (
        f"Read the text and write down what it says as {ASKED[record.form]}. There is a row for each line of the text, "
        "in that order. Answer with the table and nothing else.\n\n"
        f"Columns: {names}\n\nText:\n{record.text}\n\nTable:\n"
    )
    return {
        "prompt": short if prompt == "short" else full,
        "table": json.dumps({"columns": record.columns, "rows": record.rows}, ensure_ascii=False),
        "form": record.form,
        "text": record.text,
    }


def generate_rows(
    forms: Sequence[str],
    count: int,
    seed: int = 0,
    *,
    table_rows: Any = (2, 3, 4),
    columns: Any = (2, 3, 4),
    prompt: Prompt = "full",
    kinds: Sequence[str] = KINDS,
    noise_share: float = 0.0,
    domains: Sequence[str] = tuple(DOMAINS),
    vocabulary: int | None = None,
    synonyms: bool = True,
) -> list[dict[str, Any]]:
    """`count` different texts with their completions, in TRL's prompt/completion form plus columns.

    Args:
        forms: Some of `text`, `html` and `latex`.
        count: How many rows.
        seed: The same seed gives the same rows, in every process.
        table_rows: This and all that follows: as in `TableStructure`.
        columns: How many columns.
        prompt: The form of the prompt.
        kinds: What columns hold.
        noise_share: The share of rows that are wrong.
        domains: What the texts are about.
        vocabulary: How many words of each kind to use.
        synonyms: Whether the same column comes in several spellings.

    Raises:
        ConfigError: An argument is out of bounds.
        DataError: There are not that many different texts.
    """
    options: dict[str, Any] = {
        "forms": list(forms),
        "table_rows": table_rows,
        "columns": columns,
        "prompt": prompt,
        "kinds": list(kinds),
        "noise_share": noise_share,
        "domains": list(domains),
        "vocabulary": vocabulary,
        "synonyms": synonyms,
    }
    return checked(TableStructure, options, count=count).load(seed).demonstrations


def write(out: str | os.PathLike[str], forms: Sequence[str], count: int, seed: int = 0, **options: Any) -> int:
    """Writes `generate_rows(forms, count, seed, **options)` to `out` as JSON lines and returns their number.

    Raises:
        ConfigError: An argument is out of bounds.
        DataError: There are not that many different texts.
        CheckpointError: The file cannot be written; a file that was there stays as it was.
    """
    return write_jsonl(out, generate_rows(forms, count, seed, **options))
