"""Runs the reward `math_answer` over problems with known answers, by hand: what is right, what is wrong, how fast.

    python benchmarks/math_rewards.py FILE... [--limit N] [--timed N] [--repeats N]

Files are those that the task `math` reads. Each row is scored twice: with its gold solution as the completion (the
boxed answer where it has no solution), which has to score 1, and with the next row's, which has to score 0 unless
that row has the same answer. Every exception is printed. Then a random sample of these pairs is compared by
math-verify alone, one after the other with its own time limits, and the rates are printed as medians of interleaved
repeats, per second of computing on one core, so that a busy machine changes little.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable

from posttrain.errors import DataError
from posttrain.rewards import math_judge, math_text
from posttrain.rewards.math_answer import score, why_unreadable
from posttrain.rewards.math_compare import _same_plain
from posttrain.rewards.math_extract import final_answer
from posttrain.rewards.math_numbers import plain_number, rounding
from posttrain.rewards.math_text import cleaned
from posttrain.tasks.math import INSTRUCTION
from posttrain.tasks.math_rows import Columns, read_row
from posttrain.tasks.row_files import read_files

Pair = tuple[str, str, str]  # gold answer, completion, prompt


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--limit", type=int, default=None, help="rows of each file")
    parser.add_argument("--timed", type=int, default=1000, help="pairs of each kind that are timed")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    failed = False
    for path in options.files:
        try:
            failed |= not check(path, options.limit, options.timed, options.repeats)
        except DataError as error:
            print(error)
            return 2
    return int(failed)


def check(path: str, limit: int | None, timed: int, repeats: int) -> bool:
    """One file: prints everything, and says whether every readable gold answer scored 1."""
    rows, unreadable = [], []
    for raw in read_files([path])[:limit]:
        row = read_row(raw, Columns(), INSTRUCTION)
        why = why_unreadable(row["answer"])
        if why is None:
            rows.append(row)
        else:
            unreadable.append(f"  {raw.where}: {why}")
    print(f"{path}: {len(rows) + len(unreadable)} rows, {len(unreadable)} gold answers that cannot be read")
    print(*unreadable, sep="\n", end="\n" if unreadable else "")
    completions = [row["solution"] or f"So it is \\boxed{{{row['answer']}}}." for row in rows]
    own = [(row["answer"], completion, row["prompt"]) for row, completion in zip(rows, completions, strict=True)]
    other = [(gold, completions[(number + 1) % len(own)], prompt) for number, (gold, _, prompt) in enumerate(own)]
    right = _report("its own answer", own, expected=1.0)
    _report("the next row's answer", other, expected=0.0)
    pairs = [*own, *other]
    _agreement(pairs)
    random.Random(0).shuffle(pairs)
    kinds = {
        "plain numbers": [pair for pair in pairs if _fast(*pair[:2]) is not None],
        "all others": [pair for pair in pairs if _fast(*pair[:2]) is None],
    }
    for kind, some in kinds.items():
        if some:
            _print_rates(kind, len(some), some[:timed], repeats)
    return right == len(own)


def _print_rates(kind: str, there_are: int, pairs: list[Pair], repeats: int) -> None:
    rates: dict[str, list[float]] = {"this reward": [], "math-verify": []}
    for _ in range(repeats):
        rates["this reward"].append(_rate(_ours, pairs))
        rates["math-verify"].append(_rate(_theirs, pairs))
    print(f"  {kind} ({there_are} pairs, {len(pairs)} timed), a second, median of {repeats}:")
    for name, values in rates.items():
        print(f"    {name:12} {statistics.median(values):10,.0f}   ({min(values):,.0f} to {max(values):,.0f})")


def _report(what: str, pairs: list[Pair], expected: float) -> int:
    as_expected, slowest = 0, 0.0
    exceptions = []
    for gold, completion, prompt in pairs:
        start = time.perf_counter()
        result = score(completion, answer=gold, prompt=prompt)
        slowest = max(slowest, time.perf_counter() - start)
        if result is not None and result.value == expected:
            as_expected += 1
        else:
            said, _ = final_answer(completion)
            if expected or said != gold:  # the same text is the same answer: no news
                exceptions.append(f"    gold {gold!r}, said {said!r}: {result and (result.value, result.note)}")
    share = 100 * as_expected / len(pairs)
    print(f"  {what}: {as_expected} of {len(pairs)} score {expected:g} ({share:.2f} %), the slowest in {slowest:.2f} s")
    print(*exceptions, sep="\n", end="\n" if exceptions else "")
    return as_expected


def _fast(gold: str, completion: str) -> bool | None:
    """What the plain-number path says about a pair; None where it says nothing."""
    said, _ = final_answer(completion)
    return None if said is None else _same_plain(gold, said)


def _agreement(pairs: Iterable[Pair]) -> None:
    from math_verify import parse, verify

    compared, disagreed = 0, []
    for gold, completion, _ in pairs:
        fast = _fast(gold, completion)
        if fast is None:
            continue
        ours, theirs = cleaned(gold).math, cleaned(final_answer(completion)[0] or "").math
        places = rounding(plain_number(ours), plain_number(theirs))
        slow = verify(parse(f"\\boxed{{{ours}}}"), parse(f"\\boxed{{{theirs}}}"), float_rounding=places)
        compared += 1
        if fast != slow:
            disagreed.append(f"    gold {ours!r}, said {theirs!r}: plain {fast}, math-verify {slow}")
    print(f"  plain numbers against math-verify: {len(disagreed)} of {compared} pairs differ")
    print(*disagreed, sep="\n", end="\n" if disagreed else "")


def _ours(gold: str, completion: str, prompt: str) -> None:
    score(completion, answer=gold, prompt=prompt)


def _theirs(gold: str, completion: str, prompt: str) -> None:
    from math_verify import parse, verify

    verify(parse(f"\\boxed{{{gold}}}"), parse(completion))


def _rate(function: Callable[[str, str, str], None], pairs: list[Pair]) -> float:
    math_judge.load()
    for cache in (math_text.cleaned, math_judge._read):
        cache.cache_clear()
    start = time.process_time()
    for gold, completion, prompt in pairs:
        function(gold, completion, prompt)
    return len(pairs) / (time.process_time() - start)


if __name__ == "__main__":
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    sys.exit(main(sys.argv[1:]))
