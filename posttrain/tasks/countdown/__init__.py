"""Countdown: reach a target with given numbers and + - * /.

`Countdown` is the task of a recipe; `generate_rows` and `write` serve `posttrain data countdown`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from posttrain.errors import ConfigError
from posttrain.storage.files import write_jsonl
from posttrain.tasks import Judges, TaskData
from posttrain.tasks.arguments import checked, parse_numbers
from posttrain.tasks.countdown.arithmetic import OPERATORS, text
from posttrain.tasks.countdown.generate import Bounds, split_puzzles
from posttrain.tasks.countdown.rows import Prompt, Row, puzzle_row, with_completion
from posttrain.tasks.countdown.search import dead_ends, thought, wrong_expression
from posttrain.tasks.noise import marked, noisy, note, thinking

__all__ = ["Countdown", "generate_rows", "parse_sizes", "write"]

FEWEST, MOST = 2, 5


def parse_sizes(value: Any) -> list[int]:
    """How many numbers, from `3`, `[3, 4]`, `"3-4"` or `"2,4-5"`.

    Raises:
        ConfigError: It is none of these, or not from 2 to 5.
    """
    expected = f"how many numbers a puzzle has, from {FEWEST} to {MOST}, such as 3, [3, 4] or 3-4"
    return parse_numbers(value, range(FEWEST, MOST + 1), expected=expected, where="numbers")


@dataclass(frozen=True, kw_only=True)
class Countdown:
    """Countdown puzzles, each of which its numbers can solve; generated.

    Args:
        label: What rewards and reports call the task, if not `countdown`: a mixture may have several.
        numbers: How many numbers a puzzle has, 2 to 5; each gets the same share. `"3-4"` is understood. A puzzle needs
            all of its numbers: no fewer of them reach the target by whole numbers above 0.
        train: How many prompts for the rollouts.
        eval: How many held-out puzzles.
        demonstrations: How many worked examples.
        operators: Which of + - * / the puzzles are made with, and an answer may use.
        largest: The largest number; the smallest is 1.
        target: The least and the largest target.
        use_all: Whether the prompt asks for each number exactly once, and only that is right.
        prompt: `full` says what to do and how to answer, `short` only the numbers, from the largest down, and the
            target, for tiny models.
        think_share: The share of the demonstrations that show a search; the others answer at once.
        tries: The most dead ends of such a search; how many it is, from 0 on, is drawn.
        noise_share: The share of the demonstrations that are wrong: an expression that misses the target; a search ends
            with it, and says of its last result that it is the target.
    """

    __pydantic_config__ = {"extra": "forbid"}
    reward: ClassVar[str] = "countdown"
    slice_by: ClassVar[str] = "difficulty"

    name: Literal["countdown"] = "countdown"
    label: str | None = None
    numbers: Annotated[list[int], BeforeValidator(parse_sizes)] = field(default_factory=lambda: [3, 4])
    train: Annotated[int, Field(ge=0)] = 4000
    eval: Annotated[int, Field(ge=0)] = 200
    demonstrations: Annotated[int, Field(ge=0)] = 500
    operators: Annotated[list[Literal["+", "-", "*", "/"]], Field(min_length=1)] = field(
        default_factory=lambda: ["+", "-", "*", "/"]
    )
    largest: Annotated[int, Field(ge=2, le=1000)] = 99
    target: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)] = field(
        default_factory=lambda: [10, 99]
    )
    use_all: bool = False
    prompt: Prompt = "full"
    think_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    tries: Annotated[int, Field(ge=0, le=20)] = 3
    noise_share: Annotated[float, Field(ge=0, le=1)] = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", parse_sizes(self.numbers))
        if self.target[0] > self.target[1]:
            raise ConfigError(
                f"target: {self.target}",
                expected="the least target and then the largest",
                where="target",
                fix=f"write [{self.target[1]}, {self.target[0]}]",
            )

    def load(self, seed: int, judges: Judges | None = None) -> TaskData:
        """The rows for one seed, the same in every process.

        Raises:
            DataError: There are not as many different puzzles as asked for.
        """
        operators = tuple(sign for sign in OPERATORS if sign in self.operators)
        bounds = Bounds(self.numbers, operators, self.largest, (self.target[0], self.target[1]))
        counts = {"eval": self.eval, "demonstrations": self.demonstrations, "train": self.train}
        puzzles = split_puzzles(bounds, seed, counts)
        parts = {
            part: [puzzle_row(puzzle, operators, self.prompt, use_all=self.use_all) for puzzle in some]
            for part, some in puzzles.items()
        }
        thinks = thinking(self.demonstrations, self.think_share, random.Random(f"countdown think {seed}"))
        wrongs = noisy(self.demonstrations, self.noise_share, random.Random(f"countdown noise {seed}"))
        rng, noise = random.Random(f"countdown search {seed}"), random.Random(f"countdown wrong {seed}")
        demonstrations = []
        given = zip(parts["demonstrations"], puzzles["demonstrations"], thinks, wrongs, strict=True)
        for row, puzzle, think, wrong in given:
            tries = dead_ends(puzzle, operators, rng.randint(0, self.tries), rng)
            answer = wrong_expression(puzzle, operators, noise) if wrong else puzzle.solution
            search = thought(puzzle.target, [one for one in tries if one != answer], answer) if think else None
            demonstrations.append(marked(with_completion(row, search, text(answer)), wrong, self.noise_share))
        notes = note(demonstrations, self.noise_share, "their expression misses the target")
        return TaskData(train=parts["train"], demonstrations=demonstrations, eval=parts["eval"], notes=notes)


def generate_rows(
    numbers: Any,
    count: int,
    seed: int = 0,
    *,
    operators: Sequence[str] = OPERATORS,
    largest: int = 99,
    target: Sequence[int] = (10, 99),
    use_all: bool = False,
    prompt: Prompt = "full",
    think_share: float = 1.0,
    tries: int = 3,
    noise_share: float = 0.0,
) -> list[Row]:
    """`count` different puzzles with their completions, in TRL's prompt/completion form plus columns.

    Args:
        numbers: What `parse_sizes` understands, such as `"3-4"`.
        count: How many rows.
        seed: The same seed gives the same rows, in every process.
        operators: This and all that follows: as in `Countdown`.
        largest: The largest number.
        target: The least and the largest target.
        use_all: Whether each number is to be used.
        prompt: The form of the prompt.
        think_share: The share of rows with a search.
        tries: The most dead ends of a search.
        noise_share: The share of rows that are wrong.

    Raises:
        ConfigError: An argument is out of bounds.
        DataError: There are not that many different puzzles.
    """
    options: dict[str, Any] = {
        "numbers": numbers,
        "operators": list(operators),
        "largest": largest,
        "target": list(target),
        "use_all": use_all,
        "prompt": prompt,
        "think_share": think_share,
        "tries": tries,
        "noise_share": noise_share,
    }
    return checked(Countdown, options, count=count).load(seed).demonstrations


def write(out: str | os.PathLike[str], numbers: Any, count: int, seed: int = 0, **options: Any) -> int:
    """Writes `generate_rows(numbers, count, seed, **options)` to `out` as JSON lines and returns their number.

    Raises:
        ConfigError: An argument is out of bounds.
        DataError: There are not that many different puzzles.
        CheckpointError: The file cannot be written; a file that was there stays as it was.
    """
    return write_jsonl(out, generate_rows(numbers, count, seed, **options))
