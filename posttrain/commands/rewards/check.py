"""`posttrain rewards check`: a recipe's rewards on completions whose worth is known, before any training."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from posttrain.commands.rewards.batches import Caller, caller
from posttrain.commands.rewards.table import show
from posttrain.commands.rewards.variants import NUMBER_OF_TRIES, Example, Tries, equal_and_near, spread, tries
from posttrain.commands.rewards.verdict import record
from posttrain.errors import ConfigError, DataError, PosttrainError, RewardError
from posttrain.inputs.inputs import load_data, load_rewards
from posttrain.inputs.judged import rows_of
from posttrain.nearest import hint
from posttrain.recipe.recipe import Recipe, load_recipe
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.score import Reward
from posttrain.scoring.scorer import message_text
from posttrain.storage.files import write_json
from posttrain.tasks import TaskData, label_of, own_rewards
from posttrain.tasks.math import Math
from posttrain.tasks.noise import without_noise
from posttrain.watching.progress import Progress

_LIMITS = {"workers", "time_limit_s", "memory_limit_mb"}  # of a run, for the same rewards


def check_recipe(
    path: str | Path,
    overrides: Iterable[str] = (),
    *,
    rows: int = 50,
    allow: Sequence[str] = (),
    json_file: str | Path | None = None,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Check every reward of a recipe and print a table for each.

    Args:
        path: The recipe. Its model is not loaded.
        overrides: `key=value`, as in `load_recipe`.
        rows: How many demonstrations, and how many train and eval rows together; of a mixture, of each task.
        allow: Names of rewards that gold completions need not satisfy.
        json_file: Where to write the figures.
        console: Where to print the tables.

    Returns:
        One record for each reward, as `record` gives it.

    Raises:
        ConfigError: The recipe, an argument or a reward is wrong.
        DataError: There are no demonstrations to take gold completions from.
        RewardError: A gold completion got less than 1.0. The tables are printed by then.
    """
    if rows < 1:
        raise ConfigError(str(rows), expected="at least 1", where="--rows")
    recipe = load_recipe(path, overrides)
    of_a_run = load_data(recipe, to_train=False)
    data = _with_demonstrations(recipe, of_a_run, rows)
    try:
        rewards = load_rewards(recipe, data)
    except RewardError as error:
        raise ConfigError(error.seen, expected=error.expected, where=error.where, fix=error.fix) from error
    for name in allow:
        if name not in (names := [reward.name for reward in rewards]):
            raise ConfigError(
                f"no reward {name!r}{hint(name, names)}", expected="one of " + ", ".join(names), where="--allow"
            )
    tasks = list(own_rewards(recipe.task))
    gold = _examples("demonstrations", data.demonstrations, rows, tasks)
    others = _examples("train", data.train, (rows + 1) // 2, tasks) + _examples("eval", data.eval, rows // 2, tasks)
    call, lacking = caller(recipe, rewards, [*of_a_run.demonstrations, *of_a_run.train])
    for note in [*data.notes, *([lacking] if lacking else [])]:
        print(note, file=sys.stderr)
    golds = [[example for example in gold if reward.applies_to(example.row)] or gold for reward in rewards]
    forms = [equal_and_near(reward, its) for reward, its in zip(rewards, golds, strict=True)]
    with (
        RewardPool(rewards, **recipe.scoring.model_dump(include=_LIMITS)) as pool,
        Progress([(one.name, NUMBER_OF_TRIES + len(its)) for one, its in zip(rewards, forms, strict=True)]) as progress,
    ):
        records = [
            _check(
                reward, index, pool, call, golds[index], others, forms[index], progress, allowed=reward.name in allow
            )
            for index, reward in enumerate(rewards)
        ]
    if json_file is not None:
        write_json(Path(json_file), {"recipe": str(path), "rewards": records})
    show(records, console)
    failed = [record for record in records if record["gold"] == "failed"]
    if failed:
        raise RewardError(
            "; ".join(f"{record['reward']}: {record['why']}" for record in failed),
            expected="1.0 for every gold completion, or of a TRL-style function any number",
            where=str(path),
            fix="repair the reward or the demonstrations, or name a reward that gold need not satisfy with --allow",
        )
    return records


def _with_demonstrations(recipe: Recipe, data: TaskData, rows: int) -> TaskData:
    """The data, with demonstrations also of a task of which the recipe asks for none: gold completions come from them.

    A task of a mixture that has none to give gets a note instead.
    """
    parts: list[Any] = getattr(recipe.task, "tasks", [recipe.task])
    mixed = len(parts) > 1
    columns = {name: None for row in (*data.train[:1], *data.eval[:1]) for name in row} if mixed else {}
    found, notes = without_noise(data.demonstrations), list(data.notes)
    there = {row["task"] if mixed else label_of(recipe.task) for row in found}
    for task in parts:
        label = label_of(task)
        if label in there:
            continue
        train, held_out = (
            [row for row in part if not mixed or row["task"] == label] for part in (data.train, data.eval)
        )
        more = _made(recipe, task, rows, len(train)) or _boxed_answers(task, [*train, *held_out])
        found += [{**columns, **row, "task": label} for row in more] if mixed else more
        if mixed and not more:
            notes.append(f"{label}: there is no demonstration to take gold completions from")
    data = dataclasses.replace(data, demonstrations=found, notes=notes)
    if not found:
        raise DataError(
            "the task has no demonstration",
            expected="at least one: its completion is what every reward must give 1.0",
            where=recipe.where("task.demonstrations"),
            fix="set task.demonstrations above 0",
        )
    return data


def _made(recipe: Recipe, task: Any, rows: int, train: int) -> list[dict[str, Any]]:
    """Demonstrations of a task that has been loaded without: beside its train rows, or else in their place."""
    task = dataclasses.replace(task, **({"noise_share": 0.0} if hasattr(task, "noise_share") else {}))
    for changes in ({"demonstrations": rows}, {"demonstrations": min(rows, train), "train": 0}):
        try:
            return rows_of(recipe, task=dataclasses.replace(task, **changes)).demonstrations
        except PosttrainError:  # no worked solutions, or not so many
            continue
    return []


def _boxed_answers(task: Any, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Math problems come without worked solutions often enough; their answers alone are gold completions too."""
    return [
        {**row, "completion": f"The final answer is \\boxed{{{row['answer']}}}."}
        for row in rows
        if task.reward == Math.reward and isinstance(row.get("answer"), str)
    ]


def _examples(part: str, rows: Sequence[dict[str, Any]], at_most: int, tasks: Sequence[str]) -> list[Example]:
    """Rows of one part of the data, spread evenly over it; of a mixture, as many of each task."""
    numbered = list(enumerate(rows))
    kinds = (
        [[(i, row) for i, row in numbered if row["task"] == name] for name in tasks] if len(tasks) > 1 else [numbered]
    )
    return [
        Example(
            f"{part} row {number}",
            {key: value for key, value in row.items() if key != "completion"},
            message_text(row["prompt"]),
            None if row.get("completion") is None else message_text(row["completion"]),
        )
        for some in kinds
        for number, row in spread(some, at_most)
    ]


def _check(
    reward: Reward,
    index: int,
    pool: RewardPool,
    call: Caller,
    gold: Sequence[Example],
    others: Sequence[Example],
    forms: Sequence[Tries],
    progress: Progress,
    *,
    allowed: bool,
) -> dict[str, Any]:
    others = [example for example in others if reward.applies_to(example.row)]
    said = []
    for number, some in enumerate(tries(reward, gold, others, forms), 1):
        if reward.style == "trl":
            said.append((some, call(reward, some.pairs)))
        else:
            rows = [{**example.row, "prompt": example.prompt} for example, _ in some.pairs]
            said.append((some, pool.score(index, [completion for _, completion in some.pairs], rows)))
        progress.update(reward.name, number)
    progress.finish(reward.name)
    return record(reward, said, allowed=allowed)
