"""One prompt's completions across a run: what evaluations and rollouts made of it, in the order of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from posttrain.errors import ConfigError
from posttrain.reading.view import Found, Reader, nothing_recorded, reward_weights, tables
from posttrain.reading.view_query import Query, Row, Table
from posttrain.reading.view_refusals import not_recorded
from posttrain.rundir import reading as run_reading
from posttrain.rundir.layout import STAGES, Layout

_NAMED = 5  # prompts that an error names


def of_prompt(layout: Layout, wanted: str, query: Query) -> Found:
    """The completions of one prompt: held-out row N, or the one prompt that is, or holds, a text.

    Args:
        layout: The run.
        wanted: A number or a text. Case is not looked at.
        query: Filters; the order is the run's.

    Raises:
        ConfigError: No prompt or several are meant.
    """
    files = _files(layout, query)
    found = Found(files=len(files), note="" if files else nothing_recorded(layout, query.stage))
    if not files:
        return found
    weights = reward_weights(layout)
    readers = ((file, Reader(file, weights)) for file in files)
    hits = _by_number(readers, int(wanted)) if wanted.isdigit() else _by_text(readers, wanted)
    found.looked_at = len(files)
    found.prompt = hits[0][2]
    plain = replace(query, order="newest")
    for file, rows, _ in sorted(hits, key=lambda each: each[0].place):
        reader = Reader(file, weights)
        for row in reader.rows(reader.matching(plain, among=rows)):
            if len(found.rows) == query.limit:
                found.more = True
                return found
            found.rows.append(row)
    return found


def _files(layout: Layout, query: Query) -> list[Table]:
    """The evaluations of all stages, or of one, and the rollouts; a range of steps is of the hybrid stage."""
    ranged = query.step is not None or query.first is not None or query.last is not None
    if query.stage is not None:
        return tables(layout, query if ranged else replace(query, first=0))
    evals = [Table(*each) for each in run_reading.eval_files(layout)]
    if ranged:
        hybrid = replace(query, stage="hybrid", parts=(), step=None, **_range(query))
        within = {each.path for each in tables(layout, hybrid, strict=False)}
        evals = [each for each in evals if each.path in within]
    found = [*evals, *tables(layout, replace(query, step=None, **_range(query)), strict=False)]
    recorded = [] if found else tables(layout, Query())
    if recorded:
        raise not_recorded(recorded, query)
    return found


def _range(query: Query) -> dict[str, Any]:
    step = query.step
    return {"first": query.first if step is None else step, "last": query.last if step is None else step}


Hits = list[tuple[Table, Any, str]]
"""A file, the numbers of its rows with the prompt, and the prompt."""


def _by_number(readers: Iterable[tuple[Table, Reader]], number: int) -> Hits:
    hits, highest = [], -1
    for file, reader in readers:
        if "row" not in reader.names:
            continue
        places = reader.column("row")
        highest = max(highest, int(places.max(initial=-1)))
        rows = np.flatnonzero(places == number)
        if len(rows):
            prompt = reader.file.read(["prompt"]).column(0).take(rows[:1]).to_pylist()[0]
            hits.append((file, rows, prompt))
    if not hits:
        known = f"one of the held-out problems 0 to {highest}" if highest >= 0 else "an evaluation with its completions"
        raise ConfigError(
            f"there is no problem {number}", expected=f"{known}, or a text", where="--prompt",
            fix="posttrain view RUN --eval final shows their numbers as rows",
        )  # fmt: skip
    return hits


def _by_text(readers: Iterable[tuple[Table, Reader]], text: str) -> Hits:
    part, by_prompt = text.casefold(), {}  # type: ignore[var-annotated]
    for file, reader in readers:
        if "prompt" not in reader.names or not reader.count:
            continue
        column = reader.file.read(["prompt"]).column(0).combine_chunks().dictionary_encode()
        values = column.dictionary.to_pylist()
        codes = column.indices.to_numpy(zero_copy_only=False)
        for code, value in enumerate(values):
            if value is not None and part in value.casefold():
                by_prompt.setdefault(value, []).append((file, np.flatnonzero(codes == code), value))
    exact = [prompt for prompt in by_prompt if prompt.casefold().strip() == part.strip()]
    meant = exact[:1] or list(by_prompt)
    if len(meant) == 1:
        return by_prompt[meant[0]]
    shown = "".join(f"\n    {prompt[:100]!r}" for prompt in meant[:_NAMED])
    more = len(meant) > _NAMED
    seen = f"{len(meant)} prompts hold {text!r}" if meant else f"no prompt holds {text!r}"
    raise ConfigError(
        seen + (f"{', such as' if more else ''}:{shown}" if shown else "") + ("\n    \u2026" if more else ""),
        expected="a text that one prompt holds, or the number of a held-out one", where="--prompt",
        fix="give more of the prompt" if meant else "--text REGEX looks in the completions instead",
    )  # fmt: skip


def prompt_rows(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows each stage has, in the order of the run."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["stage"]] = counts.get(row["stage"], 0) + 1
    order = [*STAGES, "rollout"]
    return {stage: counts[stage] for stage in sorted(counts, key=order.index)}
