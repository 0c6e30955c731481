"""Completions per second for each built-in reward: in the pool's worker processes, in process, and math-verify alone.

    python benchmarks/reward_rates.py [--count 3000] [--workers 2] [--repeats 5] [--math FILE...]

Half of the completions are right, half are another row's. Knights & Knaves and JSON rows are generated; the math rows
come from files that the task `math` reads (without any: sums, whose answers are all plain numbers). math-verify is
called as its documentation shows, parse twice and verify, one completion after the other. The rows are cut into a block
for each repeat and one to warm up; printed are medians of completions per second of wall-clock time.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from posttrain.recipe.sections import RewardConfig
from posttrain.scoring.calling import score_completion
from posttrain.scoring.loading import load_reward
from posttrain.scoring.pool import RewardPool
from posttrain.tasks.json_structure import generate_rows as json_rows
from posttrain.tasks.knights_knaves import generate_rows as puzzle_rows
from posttrain.tasks.math_rows import Columns, read_row
from posttrain.tasks.row_files import read_files

Row = dict[str, Any]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="rows in all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--math", nargs="*", default=[], metavar="FILE")
    options = parser.parse_args(arguments)
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    puzzles = puzzle_rows("2-4", options.count)
    rows = {
        "knights_knaves": puzzles,
        "format": puzzles,
        "json_structure": json_rows("1-5", options.count),
        "math_answer": math_rows(options.math, options.count),
    }
    print(f"{'reward':16} {'n':>6} {'in process':>12} {f'{options.workers} workers':>12} {'math-verify':>12}")
    for name, some in rows.items():
        rates = measure(name, half_wrong(some), options.workers, options.repeats)
        print(f"{name:16} {len(some):6} " + " ".join(f"{rate:12,.0f}" if rate else f"{'':12}" for rate in rates))


def math_rows(files: Sequence[str], count: int) -> list[Row]:
    if not files:
        return [
            {"answer": f"{17 * i % 1000}", "completion": f"The answer is \\boxed{{{17 * i % 1000}}}."}
            for i in range(count)
        ]
    read = [read_row(raw, Columns(), "").demonstration() for file in files for raw in read_files([file])]
    kept = [row for row in read if row["answer"]]
    every = max(1, len(kept) // count)
    return [
        {**row, "completion": row.get("completion") or f"\\boxed{{{row['answer']}}}"} for row in kept[::every][:count]
    ]


def half_wrong(rows: Sequence[Row]) -> list[Row]:
    return [{**row, "completion": rows[(i + i % 2) % len(rows)]["completion"]} for i, row in enumerate(rows)]


def measure(name: str, rows: list[Row], workers: int, repeats: int) -> tuple[float, float, float | None]:
    """Rates over blocks of rows that nobody has seen before: what a reward remembers of a text helps no repeat."""
    reward = load_reward(RewardConfig(name=name))
    size = len(rows) // (repeats + 1)
    with RewardPool([reward], workers=workers, time_limit_s=60) as pool:
        ways: list[Callable[[list[str], list[Row]], Any]] = [
            lambda texts, some: [score_completion(reward, *each) for each in zip(texts, some, strict=True)],
            lambda texts, some: pool.score(0, texts, some),
        ]
        if name == "math_answer":
            ways.append(lambda texts, some: [math_verify_alone(*each) for each in zip(texts, some, strict=True)])
        times: list[list[float]] = [[] for _ in ways]
        for repeat in range(repeats + 1):  # the first also pays for imports, and is not counted
            block = rows[repeat * size : (repeat + 1) * size]
            texts = [row["completion"] for row in block]
            columns = [{key: value for key, value in row.items() if key != "completion"} for row in block]
            for way, taken in zip(ways, times, strict=True):
                started = time.perf_counter()
                way(texts, columns)
                taken.append(time.perf_counter() - started)
    rates = [size / statistics.median(taken[1:]) for taken in times]
    return rates[0], rates[1], rates[2] if len(rates) > 2 else None


def math_verify_alone(completion: str, row: Row) -> bool:
    from math_verify import parse, verify

    return verify(parse(f"\\boxed{{{row['answer']}}}"), parse(completion))


if __name__ == "__main__":
    main(sys.argv[1:])
