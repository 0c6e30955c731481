"""`posttrain rewards score`: what one reward says of the completions in a file."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from posttrain.commands.rewards.batches import call_as_a_run, needs
from posttrain.commands.rewards.lines import STDIN, BadLine, Line, count, read
from posttrain.errors import ConfigError, PosttrainError, RewardError
from posttrain.recipe.sections import RewardConfig
from posttrain.recipe.yamlfile import parse_value
from posttrain.scoring.loading import load_reward
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.score import Outcome, Reward
from posttrain.watching.progress import Progress, duration

_BATCH, _STDIN_BATCH = 256, 32  # rows scored at a time: a pipe should not wait long for its first results
_RESULTS = ("score", "parts", "note", "error", "seconds")


def score_rows(
    reward: str,
    source: str,
    output: str | None = None,
    *,
    kwargs: Sequence[str] = (),
    completion_column: str = "completion",
    workers: int | None = None,
    time_limit_s: float = 5.0,
) -> None:
    """Score every row of `source` and write it back with its score; a summary goes to standard error.

    Args:
        reward: What `reward_config` understands.
        source: A .jsonl, .json or .parquet file, or `-` for standard input.
        output: A file for the JSON lines; None writes them to standard output.
        kwargs: Fixed arguments of the reward, `key=value` each, or one JSON object.
        completion_column: The column that holds the completion.
        workers: Processes; None takes one a core, 0 scores in this process without a time limit.
        time_limit_s: Seconds for one completion.

    Raises:
        ConfigError: The reward cannot be loaded, or an argument is wrong.
        DataError: A row cannot be scored.
        RewardError: Not one completion could be scored.
    """
    if workers is not None and workers < 0:
        raise ConfigError(str(workers), expected="0 or more", where="--workers")
    if time_limit_s <= 0:
        raise ConfigError(f"{time_limit_s:g}", expected="seconds above 0", where="--time-limit")
    loaded = load(reward, parse_kwargs(kwargs))
    columns = _needed(loaded)
    total = None if source == STDIN else count(source, columns, completion_column)

    tally = Tally()
    # On a terminal the rows themselves show how far it is, and a bar would be in their way
    shown = total is not None and not (output is None and sys.stdout.isatty())
    with (
        RewardPool([loaded], workers=workers, time_limit_s=time_limit_s) as pool,
        Progress([("score", total or 0)], enabled=shown) as progress,
        _writing(output) as file,
    ):
        lines = read(source, columns, completion_column)
        size = _STDIN_BATCH if source == STDIN else _BATCH
        for batch in _batches(lines, size, completion_column if loaded.style == "trl" else None):
            if loaded.style == "trl":
                outcomes = _called(loaded, batch, completion_column)
            else:
                outcomes = pool.score(0, [line.completion for line in batch], [line.row for line in batch])
            for line, outcome in zip(batch, outcomes, strict=True):
                file.write(_dump(with_result(line.row, outcome)) + "\n")
                tally.add(outcome)
            file.flush()
            progress.update("score", tally.n)
    print(tally.summary(), file=sys.stderr)
    if tally.n and tally.failed == tally.n:
        raise RewardError(
            f"none of {tally.n} completions could be scored: {tally.errors.most_common(1)[0][0]}",
            expected="a number or None for each",
            where=f"reward {loaded.name!r}",
            fix="see `error` in the rows",
        )


def reward_config(text: str, kwargs: dict[str, Any]) -> RewardConfig:
    """A reward as it is named on the command line.

    With a `/`, or with `.py` at its end or before a colon, it is a file (`./mine.py:function`); otherwise with a dot or
    a colon, something importable (`package.module:function`); otherwise a name of `rewards list`.
    """
    if "/" in text or text.endswith(".py") or ".py:" in text:
        return RewardConfig(path=text, kwargs=kwargs)
    if ":" in text or "." in text:
        return RewardConfig.model_validate({"import": text, "kwargs": kwargs})
    return RewardConfig(name=text, kwargs=kwargs)


def load(text: str, kwargs: dict[str, Any]) -> Reward:
    """The reward that `--reward` names; ConfigError when it cannot be loaded."""
    if not text:
        raise ConfigError("nothing", expected="a name, FILE.py:FUNCTION or package.module:FUNCTION", where="--reward")
    here = str(Path.cwd())
    sys.path.insert(0, here)  # as `python -m` does, so that a module beside the user can be imported
    try:
        return load_reward(reward_config(text, kwargs))
    except RewardError as error:
        raise ConfigError(error.seen, expected=error.expected, where=f"--reward {text}", fix=error.fix) from error
    finally:
        sys.path.remove(here)


def parse_kwargs(texts: Sequence[str]) -> dict[str, Any]:
    """`["tolerance=0.01", "strict=true"]` or `['{"tolerance": 0.01}']`; values are read as YAML, as in a recipe."""
    if len(texts) == 1 and texts[0].lstrip().startswith("{"):
        value = parse_value(texts[0])
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ConfigError(texts[0], expected="an object of arguments by name", where="--kwargs")
        return value
    kwargs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(repr(text), expected="KEY=VALUE, or one JSON object", where="--kwargs")
        kwargs[name] = parse_value(value, text)
    return kwargs


def with_result(row: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    """The row with `score`, `parts` and `note`, and with `error` and `seconds` where there are such."""
    result = {key: value for key, value in row.items() if key not in _RESULTS}
    score = outcome.score
    result |= {"score": outcome.value, "parts": dict(score.parts) if score else {}, "note": score.note if score else ""}
    if outcome.error is not None:
        result["error"] = outcome.error
    if outcome.seconds:
        result["seconds"] = round(outcome.seconds, 6)
    return result


class Tally:
    """Counts of what was scored so far."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.n = self.failed = self.none = self.ones = self.zeros = 0
        self.total = 0.0
        self.errors: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self.n += 1
        if outcome.error is not None:
            self.failed += 1
            self.errors[outcome.error] += 1
        elif outcome.value is None:
            self.none += 1
        else:
            self.total += outcome.value
            self.ones += outcome.value == 1
            self.zeros += outcome.value == 0

    def summary(self) -> str:
        """Two lines, and one for each of the most frequent errors. Shares are of the completions with a score."""
        seconds = time.monotonic() - self.start
        pace = f"{self.n / seconds:.3g} a second" if seconds else "at once"
        lines = [f"{self.n} completions in {duration(seconds)}, {pace}; {self.none} None, {self.failed} failed"]
        scored = self.n - self.none - self.failed
        if scored:
            ones, zeros = (f"{count} ({100 * count / scored:.2f} %)" for count in (self.ones, self.zeros))
            lines.append(f"{scored} scores: mean {self.total / scored:.4f}, 1.0: {ones}, 0: {zeros}")
        lines += [f"  {count}x {error}" for error, count in self.errors.most_common(3)]
        return "\n".join(lines)


def _needed(reward: Reward) -> list[str]:
    """The columns that every row has to have besides its completion; of a TRL-style function what TRL would add, too.

    Without a model there are no token ids but those of the rows.
    """
    ours = {"prompts": "prompt", "completion_ids": "completion_ids"} if reward.style == "trl" else {}
    return [*reward.required_columns(), *(column for argument, column in ours.items() if needs(reward, argument))]


def _called(reward: Reward, batch: Sequence[Line], completion_column: str) -> list[Outcome]:
    """A batch by a TRL-style function: text where the rows have text, messages where they have messages."""
    rows = [{key: value for key, value in line.row.items() if key != completion_column} for line in batch]
    said = [line.row[completion_column] for line in batch]
    completions = [[one] if isinstance(one, Mapping) else one for one in said]
    ids = [row["completion_ids"] for row in rows if row.get("completion_ids") is not None]
    there = ids if len(ids) == len(rows) else None
    return call_as_a_run(reward, [row.get("prompt", "") for row in rows], completions, rows, there)


def _batches(lines: Iterable[Line | BadLine], size: int, completion_column: str | None = None) -> Iterator[list[Line]]:
    """Rows in batches; at one that cannot be scored, first what came before it, then its error.

    With `completion_column`, rows of one prompt that follow one another are in one batch, however many they are.
    """
    batch: list[Line] = []
    for line in lines:
        if isinstance(line, BadLine):
            if batch:
                yield batch
            raise line.error()
        if len(batch) >= size and completion_column and not _same_group(batch[-1], line, completion_column):
            yield batch
            batch = []
        batch.append(line)
        if len(batch) == size and not completion_column:
            yield batch
            batch = []
    if batch:
        yield batch


def _same_group(one: Line, other: Line, completion_column: str) -> bool:
    """Whether two rows are completions of one prompt: equal in it, or where there is none in all columns."""
    if "prompt" in one.row and "prompt" in other.row:
        return bool(one.row["prompt"] == other.row["prompt"])
    apart = (completion_column, "completion_ids", *_RESULTS)
    first, second = ({k: v for k, v in line.row.items() if k not in apart} for line in (one, other))
    return first == second


def _dump(row: dict[str, Any]) -> str:
    text = json.dumps(row, ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can carry
        return json.dumps(row, default=str)
    return text


@contextlib.contextmanager
def _writing(output: str | None) -> Iterator[TextIO]:
    """Standard output, or a file that fills beside its place and is renamed at the end."""
    if output is None:
        yield sys.stdout
        return
    path = Path(output)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        if partial.is_file():
            print(f"the rows scored so far are in {partial}", file=sys.stderr)
        if isinstance(error, OSError) and not isinstance(error, PosttrainError):
            raise PosttrainError(f"cannot be written: {error.strerror}", where=output) from error
        raise
