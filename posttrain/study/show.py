"""A study in the terminal: what it would do, and what it has come to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    settings = study.settings()
    lines = [(key, *(_value(value) for value in values)) for key, values in settings.items()]
    console.print(_grid(f"Study {study.name}: what differs", ("", *study.arms), lines))
    told = estimate(study, Queue(study, jobs, only))
    console.print(Text(f"budget: {amount:g} {kind} of the hybrid stage, each; seeds {study.file.seeds}"))
    for text in told.in_words(jobs):
        console.print(Text(text), soft_wrap=True)


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
