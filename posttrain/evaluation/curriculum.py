"""Prompts from easy to hard, by how often a model solved them before it was trained on them (SARI, arXiv 2504.15900).

Prompts that were never solved are left out: a group of completions that all fail teaches GRPO nothing. The paper does
not say how it goes on after the last prompt; here the order begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.errors import DataError
from posttrain.inputs.leaks import content_key
from posttrain.processes.ranks import Ranks
from posttrain.storage.files import read_lines, write_text

Row = Mapping[str, Any]


def easy_to_hard(rates: Sequence[float]) -> list[int]:
    """The places of pass rates above 0, from the highest to the lowest, equal ones as they stood."""
    return sorted((place for place, rate in enumerate(rates) if rate > 0), key=lambda place: -rates[place])


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


def ordered(
    rows: Sequence[Row], file: Path, measure: Callable[[], Sequence[float]], ranks: Ranks | None = None
) -> list[Row]:
    """The rows from easy to hard, by the pass rates in `file`, which is written first if it is not there.

    Args:
        rows: The prompts.
        file: JSON lines with the content key of a prompt and its `pass_rate`. Rates measured elsewhere may be put
            there; then a prompt that is not in it is left out.
        measure: Gives the pass rate of each row.
        ranks: The processes of the run: all of them measure, the main one writes and reads.

    Raises:
        DataError: No prompt was solved.
    """
    keys, ranks = [content_key(row) for row in rows], ranks or Ranks()
    if not ranks.decided(file.exists):
        measured = "".join(_line(key, rate) for key, rate in zip(keys, measure(), strict=True))
        ranks.decided(lambda: write_text(file, measured))
    known = {line["prompt"]: float(line["pass_rate"]) for line in ranks.decided(lambda: read_lines(file))}
    order = easy_to_hard([known.get(key, 0.0) for key in keys])
    if not order:
        error = DataError(
            f"none of the {len(rows)} prompts was ever solved: see {file}",
            expected="prompts of which the model solves some",
            where="hybrid.curriculum",
            fix="use easier prompts or more samples, or measure the warmed-up model: hybrid.curriculum.model=warmup",
        )
        error.shared = ranks.count > 1
        raise error
    return [rows[place] for place in order]


def _line(key: str, rate: float) -> str:
    return json.dumps({"prompt": key, "pass_rate": rate}, ensure_ascii=False) + "\n"
