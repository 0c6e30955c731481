"""Knights & Knaves: who tells the truth and who lies, given what each of them claims.

`KnightsKnaves` is the task of a recipe; `generate_rows` and `write` serve `posttrain data knights_knaves`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from posttrain.errors import ConfigError
from posttrain.storage.files import write_jsonl
from posttrain.tasks import Judges, TaskData
from posttrain.tasks.arguments import checked, parse_numbers
from posttrain.tasks.knights_knaves.generate import PuzzleSource, Split, split_puzzles
from posttrain.tasks.knights_knaves.logic import CONNECTIVES
from posttrain.tasks.knights_knaves.published import read_published, row_statements, split_rows
from posttrain.tasks.knights_knaves.rows import (
    Cot,
    Prompt,
    Row,
    puzzle_row,
    row_prompt,
    with_completion,
    with_wrong_completion,
)
from posttrain.tasks.knights_knaves.text import NAMES, complete_roles
from posttrain.tasks.noise import marked, noisy, note, thinking

__all__ = ["KnightsKnaves", "generate_rows", "parse_people", "write"]

MOST_PEOPLE = 8


def parse_people(value: Any) -> list[int]:
    """Numbers of people from `3`, `[2, 4]`, `"2-4"` or `"2,5-7"`.

    Raises:
        ConfigError: It is none of these, or a number is not from 2 to 8.
    """
    expected = f"numbers from 2 to {MOST_PEOPLE}, such as 3, [2, 3] or 2-4"
    return parse_numbers(value, range(2, MOST_PEOPLE + 1), expected=expected, where="people")


@dataclass(frozen=True, kw_only=True)
class KnightsKnaves:
    """Knights & Knaves puzzles with exactly one solution, generated or read from published files.

    Args:
        label: What rewards and reports call the task, if not `knights_knaves`: a mixture may have several.
        people: The numbers of people, 2 to 8; each gets the same share of the puzzles. `"2-4"` is understood.
            Not given: 2 to 4 when generating, all there are when reading files.
        train: How many prompts for the rollouts.
        eval: How many held-out puzzles.
        demonstrations: How many worked examples.
        depth: The most connectives inside one another; 1 is the published data's.
        connectives: Which of and, or, not, if, iff the claims use; one besides `not`, or no puzzle has a single
            solution (swapping everybody's role fits bare claims and their negations just as well).
        prompt: `full` is the published wording and a request for the answer format, `short` the bare claims.
        cot: The form of the chain of thought (see `cot.py`); `auto` is the published one where a file has it, else
            `assume`. `copy` suits tiny models and at most 3 people.
        think_share: The share of the demonstrations that show a chain of thought; the others answer at once.
        noise_share: The share of the demonstrations that are wrong: a claim is misread, and the answer, and the chain
            of thought where there is one, are right for what was read (`noise.py`).
        split: What no eval puzzle shares with any other: see `generate.split_puzzles`. Puzzles of 2 people at depth 1
            have only 180 structures, too few for most purposes: use `statements` or a depth of 2 there.
        names: How many of the built-in names to use.
        knight_knave: Other words for the roles, at least `knight` and `knave`, as in the published perturbations.
        path: Published files (.jsonl, .json, .parquet) to read instead of generating. `people` then selects rows,
            and depth, connectives, names and knight_knave do not apply.
    """

    __pydantic_config__ = {"extra": "forbid"}
    reward: ClassVar[str] = "knights_knaves"
    slice_by: ClassVar[str] = "people"

    name: Literal["knights_knaves"] = "knights_knaves"
    label: str | None = None
    people: Annotated[list[int], BeforeValidator(parse_people)] = field(default_factory=list)
    train: Annotated[int, Field(ge=0)] = 4000
    eval: Annotated[int, Field(ge=0)] = 200
    demonstrations: Annotated[int, Field(ge=0)] = 500
    depth: Annotated[int, Field(ge=1, le=4)] = 1
    connectives: list[Literal["and", "or", "not", "if", "iff"]] = field(
        default_factory=lambda: ["and", "or", "not", "if", "iff"]
    )
    prompt: Prompt = "full"
    cot: Cot = "auto"
    think_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    noise_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    split: Split = "structure"
    names: Annotated[int, Field(ge=2, le=len(NAMES))] = len(NAMES)
    knight_knave: dict[str, str] | None = None
    path: Annotated[list[str] | None, BeforeValidator(lambda value: [value] if isinstance(value, str) else value)] = (
        None
    )

    def __post_init__(self) -> None:
        if isinstance(self.path, str):
            object.__setattr__(self, "path", [self.path])
        default = f"2-{MOST_PEOPLE}" if self.path else "2-4"
        object.__setattr__(self, "people", parse_people(self.people or default))
        if self.names < max(self.people) and not self.path:
            raise ConfigError(
                f"names: {self.names} for puzzles of {max(self.people)} people",
                expected="at least one name per person",
                where="names",
                fix=f"set names to {max(self.people)} or more",
            )
        if not set(self.connectives) - {"not"}:
            raise ConfigError(
                f"connectives: {self.connectives}",
                expected="at least one besides not, since bare claims never have a single solution",
                where="connectives",
                fix=f"choose from {', '.join(CONNECTIVES)}",
            )
        complete_roles(self.knight_knave)

    def load(self, seed: int, judges: Judges | None = None) -> TaskData:
        """The rows for one seed, the same in every process.

        Raises:
            DataError: There are not as many different puzzles as asked for, or a file is not as published.
        """
        counts = {"eval": self.eval, "demonstrations": self.demonstrations, "train": self.train}
        if self.path:
            parts = self._from_files(self.path, seed, counts)
        else:
            source = PuzzleSource(self.people, self.depth, self.connectives, NAMES[: self.names])
            puzzles = split_puzzles(source, seed, counts, self.split)
            rng, roles = random.Random(f"knights_knaves words {seed}"), complete_roles(self.knight_knave)
            parts = {part: [puzzle_row(p, roles, self.prompt, rng) for p in some] for part, some in puzzles.items()}
        flags = thinking(self.demonstrations, self.think_share, random.Random(f"knights_knaves think {seed}"))
        wrongs = noisy(self.demonstrations, self.noise_share, random.Random(f"knights_knaves noise {seed}"))
        rng = random.Random(f"knights_knaves misread {seed}")
        demonstrations = [
            marked(self._demonstration(row, rng, think=think, wrong=wrong), wrong, self.noise_share)
            for row, think, wrong in zip(parts["demonstrations"], flags, wrongs, strict=True)
        ]
        notes = note(demonstrations, self.noise_share, "a claim is misread")
        return TaskData(train=parts["train"], demonstrations=demonstrations, eval=parts["eval"], notes=notes)

    def _demonstration(self, row: Row, rng: random.Random, *, think: bool, wrong: bool) -> Row:
        statements = row_statements(row)
        if wrong:
            return with_wrong_completion(row, statements, self.cot, rng, think=think)
        return with_completion(row, statements, self.cot, think=think)

    def _from_files(self, paths: Sequence[str], seed: int, counts: Mapping[str, int]) -> dict[str, list[Row]]:
        parts = split_rows(read_published(paths, self.people), seed, counts, self.split)
        return {
            part: [{"prompt": row_prompt(row, row_statements(row), self.prompt), **row} for row in rows]
            for part, rows in parts.items()
        }


def generate_rows(
    people: Any,
    count: int,
    seed: int = 0,
    *,
    depth: int = 1,
    connectives: Sequence[str] = tuple(CONNECTIVES),
    prompt: Prompt = "full",
    cot: Cot = "auto",
    think_share: float = 1.0,
    noise_share: float = 0.0,
    names: int = len(NAMES),
    knight_knave: Mapping[str, str] | None = None,
) -> list[Row]:
    """`count` different puzzles with their completions, in TRL's prompt/completion form plus columns.

    Args:
        people: What `parse_people` understands, such as `"2-4"`.
        count: How many rows.
        seed: The same seed gives the same rows, in every process.
        depth: This and all that follows: as in `KnightsKnaves`.
        connectives: Which connectives the claims use.
        prompt: The form of the prompt.
        cot: The form of the chain of thought.
        think_share: The share of rows with a chain of thought.
        noise_share: The share of rows that are wrong.
        names: How many names to use.
        knight_knave: Other words for the roles.

    Raises:
        ConfigError: An argument is out of bounds.
        DataError: There are not that many different puzzles.
    """
    options: dict[str, Any] = {
        "people": people,
        "depth": depth,
        "connectives": list(connectives),
        "prompt": prompt,
        "cot": cot,
        "think_share": think_share,
        "noise_share": noise_share,
        "names": names,
        "knight_knave": None if knight_knave is None else dict(knight_knave),
    }
    return checked(KnightsKnaves, options, count=count).load(seed).demonstrations


def write(out: str | os.PathLike[str], people: Any, count: int, seed: int = 0, **options: Any) -> int:
    """Writes `generate_rows(people, count, seed, **options)` to `out` as JSON lines and returns their number.

    Raises:
        ConfigError: An argument is out of bounds.
        DataError: There are not that many different puzzles.
        CheckpointError: The file cannot be written; a file that was there stays as it was.
    """
    return write_jsonl(out, generate_rows(people, count, seed, **options))
