"""Structured output: an object that fits a JSON Schema, extracted from a text.

`JsonStructure` is the task of a recipe; `generate_rows` and `write` serve `posttrain data json_structure`.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from posttrain.errors import ConfigError
from posttrain.storage.files import write_jsonl
from posttrain.tasks import Judges, TaskData
from posttrain.tasks.arguments import checked, parse_numbers
from posttrain.tasks.json_structure.domains import DOMAINS
from posttrain.tasks.json_structure.generate import LEVELS, Split, split_records
from posttrain.tasks.json_structure.noise import values_by_place, with_wrong_values
from posttrain.tasks.json_structure.rows import (
    Prompt,
    Row,
    Style,
    read_rows,
    record_row,
    split_rows,
    with_completion,
)
from posttrain.tasks.noise import marked, noisy, note

__all__ = ["JsonStructure", "generate_rows", "parse_levels", "write"]


_LISTED = 5  # words that are no keywords


def parse_levels(value: Any) -> list[int]:
    """Levels from `3`, `[2, 4]`, `"2-4"` or `"1,3-5"`.

    Raises:
        ConfigError: It is none of these, or a level is not from 1 to 5.
    """
    expected = "levels from 1 to 5, such as 3, [1, 2] or 1-3"
    return parse_numbers(value, range(LEVELS[0], LEVELS[-1] + 1), expected=expected, where="difficulty")


@dataclass(frozen=True, kw_only=True)
class JsonStructure:
    """Texts to extract a JSON object from, each with its schema; generated, or read from files.

    Args:
        label: What rewards and reports call the task, if not `json_structure`: a mixture may have several.
        difficulty: The levels, 1 to 5 (see `generate.py`); each gets the same share. `"1-3"` is understood. Not given:
            all of them.
        train: How many prompts for the rollouts.
        eval: How many held-out texts.
        demonstrations: How many worked examples: the JSON itself.
        prompt: `full` has the schema, `short` only keys and types, for tiny models.
        style: How demonstrations are written: `compact` without any space, `indent` over several lines.
        noise_share: The share of the demonstrations that are wrong: half of the values of each, rounded up, are of
            other texts (`noise.py`).
        split: What no eval row shares with any other part: `content`, the text and the gold object; `schema`, the
            schema besides.
        domains: What the texts are about.
        vocabulary: How many of the built-in words of each kind to use.
        synonyms: Whether the same key comes in several spellings.
        path: Files (.jsonl, .json, .parquet) to read instead, with `text` or `prompt`, `schema` and `gold`.
            `difficulty` then selects rows, `split: content` keeps prompts apart, and domains, vocabulary and synonyms
            do not apply.
    """

    __pydantic_config__ = {"extra": "forbid"}
    reward: ClassVar[str] = "json_structure"
    slice_by: ClassVar[str] = "difficulty"

    name: Literal["json_structure"] = "json_structure"
    label: str | None = None
    difficulty: Annotated[list[int] | None, BeforeValidator(lambda v: None if v is None else parse_levels(v))] = None
    train: Annotated[int, Field(ge=0)] = 4000
    eval: Annotated[int, Field(ge=0)] = 200
    demonstrations: Annotated[int, Field(ge=0)] = 500
    prompt: Prompt = "full"
    style: Style = "compact"
    noise_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    split: Split = "content"
    domains: Annotated[list[str], Field(min_length=1)] = field(default_factory=lambda: list(DOMAINS))
    vocabulary: Annotated[int, Field(ge=4)] | None = None
    synonyms: bool = True
    path: Annotated[list[str] | None, BeforeValidator(lambda value: [value] if isinstance(value, str) else value)] = (
        None
    )

    def __post_init__(self) -> None:
        if isinstance(self.path, str):
            object.__setattr__(self, "path", [self.path])
        if self.difficulty is not None:
            object.__setattr__(self, "difficulty", parse_levels(self.difficulty))
        unknown = [name for name in self.domains if name not in DOMAINS]
        if unknown:
            raise ConfigError(repr(unknown[0]), expected="one of " + ", ".join(DOMAINS), where="domains")

    def load(self, seed: int, judges: Judges | None = None) -> TaskData:
        """The rows for one seed, the same in every process.

        Rows of a file whose schema is of a draft that is not known are left out and listed in `notes`.

        Raises:
            DataError: There are not as many different texts as asked for, or rows of a file can't be used.
        """
        counts = {"eval": self.eval, "demonstrations": self.demonstrations, "train": self.train}
        notes: list[str] = []
        if self.path:
            rows = read_rows(self.path, self.prompt, self.difficulty, notes)
            notes += _words_that_are_no_keywords(rows)
            parts = split_rows(rows, seed, counts, self.split)
        else:
            records = split_records(
                seed,
                counts,
                self.difficulty or LEVELS,
                self.domains,
                self.vocabulary,
                synonyms=self.synonyms,
                split=self.split,
            )
            parts = {part: [record_row(record, self.prompt) for record in some] for part, some in records.items()}
        wrongs = noisy(self.demonstrations, self.noise_share, random.Random(f"json_structure noise {seed}"))
        rng = random.Random(f"json_structure wrong {seed}")
        golds = [json.loads(row["gold"]) for row in parts["demonstrations"]]
        elsewhere = values_by_place(golds) if self.noise_share else {}
        demonstrations = [
            marked(
                with_completion(row, self.style, with_wrong_values(gold, elsewhere, rng) if wrong else gold),
                wrong,
                self.noise_share,
            )
            for row, gold, wrong in zip(parts["demonstrations"], golds, wrongs, strict=True)
        ]
        notes += note(demonstrations, self.noise_share, "half of their values are of other texts")
        return TaskData(train=parts["train"], demonstrations=demonstrations, eval=parts["eval"], notes=notes)


def _words_that_are_no_keywords(rows: Sequence[Row]) -> list[str]:
    """A note about misspelt and outdated keywords, with in how many rows the schema has each; none without such."""
    from posttrain.rewards.json_unknown import unknown_keywords  # here: naming a task needs no reward

    said: Counter[str] = Counter()
    for schema, count in Counter(str(row["schema"]) for row in rows).items():
        said.update(dict.fromkeys(unknown_keywords(schema), count))
    if not said:
        return []
    lines = [f"{count} {'row' if count == 1 else 'rows'}: {one}" for one, count in said.most_common(_LISTED)]
    more = [f"and {len(said) - _LISTED} more"] if len(said) > _LISTED else []
    return ["words in schemas that are no keywords count for nothing\n  " + "\n  ".join([*lines, *more])]


def generate_rows(
    difficulty: Any,
    count: int,
    seed: int = 0,
    *,
    prompt: Prompt = "full",
    style: Style = "compact",
    noise_share: float = 0.0,
    domains: Sequence[str] = tuple(DOMAINS),
    vocabulary: int | None = None,
    synonyms: bool = True,
) -> list[Row]:
    """`count` different texts with their completions, in TRL's prompt/completion form plus columns.

    Args:
        difficulty: What `parse_levels` understands, such as `"1-3"`.
        count: How many rows.
        seed: The same seed gives the same rows, in every process.
        prompt: This and all that follows: as in `JsonStructure`.
        style: How the completion is written.
        noise_share: The share of rows that are wrong.
        domains: What the texts are about.
        vocabulary: How many words of each kind to use.
        synonyms: Whether the same key comes in several spellings.

    Raises:
        ConfigError: An argument is out of bounds.
        DataError: There are not that many different texts.
    """
    options: dict[str, Any] = {
        "difficulty": difficulty,
        "prompt": prompt,
        "style": style,
        "noise_share": noise_share,
        "domains": list(domains),
        "vocabulary": vocabulary,
        "synonyms": synonyms,
    }
    return checked(JsonStructure, options, count=count).load(seed).demonstrations


def write(out: str | os.PathLike[str], difficulty: Any, count: int, seed: int = 0, **options: Any) -> int:
    """Writes `generate_rows(difficulty, count, seed, **options)` to `out` as JSON lines and returns their number.

    Raises:
        ConfigError: An argument is out of bounds.
        DataError: There are not that many different texts.
        CheckpointError: The file cannot be written; a file that was there stays as it was.
    """
    return write_jsonl(out, generate_rows(difficulty, count, seed, **options))
