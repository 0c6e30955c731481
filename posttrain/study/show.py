"""A study in the terminal: what it would do, and what it has come to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from posttrain.study import tables
from posttrain.study.queue import Queue
from posttrain.study.study import Study

if TYPE_CHECKING:
    from rich.console import Console


def table(judged: Mapping[str, Any], console: Console) -> None:
    """Print the judgement."""
    from rich.text import Text

    console.print(_grid(f"Study {judged['name']}", tables.HEADS, tables.rows(judged)))
    if forgotten := tables.second(judged):
        console.print(_grid("On the second held-out set", ("arm", "at its warm-up", "at its end"), forgotten))
    failed = [f"{arm['name']} failed: {arm['why']}" for arm in judged["arms"] if arm["why"]]
    for text in [tables.legend(judged), *tables.verdicts(judged), *judged["notes"], *failed]:
        console.print(Text(text), soft_wrap=True)


def dry_run(study: Study, jobs: int, only: Sequence[str], console: Console) -> None:
    """Print the arms, what differs between them, the runs, and about how long they will take."""
    from rich.text import Text

    from posttrain.study.estimate import estimate

    kind, amount = study.budget
    heads = ("arm", "differs from most in", "tuned over")
    console.print(_grid(f"Study {study.name}", heads, list(_arms(study))))
    told = estimate(study, Queue(study, jobs, only))
    console.print(Text(f"budget: {amount:g} {kind} of the hybrid stage, each; seeds {study.file.seeds}"))
    for text in [*told.in_words(jobs), *_going_on(study)]:
        console.print(Text(text), soft_wrap=True)


def _going_on(study: Study) -> list[str]:
    """What tuning may add to the runs that are known."""
    keys = {key: count for arm in study.arms for key, count in study.further(arm).items()}
    if not keys:
        return []
    by = ", ".join(f"{key} by up to {count}" for key, count in keys.items())
    return [f"more where an arm's best value is the last of its grid, which then goes on: {by}"]


def _arms(study: Study) -> Iterator[tuple[str, str, str]]:
    """Each arm, the keys whose values are not those of most arms, and how many settings are tried for it."""
    keys = study.settings()
    usual = {key: Counter(map(_value, values)).most_common(1)[0][0] for key, values in keys.items()}
    for place, arm in enumerate(study.arms):
        own = {key: _value(values[place]) for key, values in keys.items()}
        # What a section lacks that others have is told by its name; what an arm sets to null is not
        told = [
            f"{key} {value}"
            for key, value in own.items()
            if value != usual[key] and (value != "null" or key in study.arms[arm])
        ]
        tried = {key: list(dict.fromkeys(_value(p[key]) for p in study.points(arm))) for key in _tuned(study, arm)}
        grid = "; ".join(f"{key}: {', '.join(values)}" for key, values in tried.items())
        yield arm, "\n".join(told) or "nothing", grid or "not tuned"


def _tuned(study: Study, arm: str) -> list[str]:
    return list(dict.fromkeys(key for point in study.points(arm) for key in point))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _grid(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for head in heads:
        grid.add_column(Text(head), overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    return grid
