"""How often a model solves each prompt before it is trained on them: what some curricula begin with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.inputs.leaks import content_key
from posttrain.processes.ranks import Ranks
from posttrain.storage.files import read_lines, write_text

Row = Mapping[str, Any]


def pass_rates(lines: Iterable[Row], count: int) -> list[float]:
    """The share of passes among the completions of each row.

    Args:
        lines: Completions with `row`, `sample` and `passed`, as `Evaluation.rows` has them. The sampled ones count;
            where there are none, the greedy one does.
        count: The number of rows.
    """
    greedy: dict[int, list[bool]] = {row: [] for row in range(count)}
    sampled: dict[int, list[bool]] = {row: [] for row in range(count)}
    for line in lines:
        (greedy if line["sample"] is None else sampled)[line["row"]].append(bool(line["passed"]))
    tries = [sampled[row] or greedy[row] for row in range(count)]
    return [sum(passed) / len(passed) if passed else 0.0 for passed in tries]


def measured(
    rows: Sequence[Row], file: Path, measure: Callable[[], Sequence[float]], ranks: Ranks | None = None
) -> list[float]:
    """The pass rate of each prompt by the file, which is written first if it is not there.

    Args:
        rows: The prompts.
        file: JSON lines with the content key of a prompt and its `pass_rate`. Rates measured elsewhere may be put
            there; a prompt that is not in it counts as never solved.
        measure: Gives the pass rate of each row.
        ranks: The processes of the run: all of them measure, the main one writes and reads.
    """
    keys, ranks = [content_key(row) for row in rows], ranks or Ranks()
    if not ranks.decided(file.exists):
        written = "".join(_line(key, rate) for key, rate in zip(keys, measure(), strict=True))
        ranks.decided(lambda: write_text(file, written))
    known = {line["prompt"]: float(line["pass_rate"]) for line in ranks.decided(lambda: read_lines(file))}
    return [known.get(key, 0.0) for key in keys]


def _line(key: str, rate: float) -> str:
    return json.dumps({"prompt": key, "pass_rate": rate}, ensure_ascii=False) + "\n"
