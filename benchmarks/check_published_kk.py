"""Checks our solver against published Knights & Knaves files, by hand: every row, every claim.

    python benchmarks/check_published_kk.py FILE...

For each puzzle the solver must find the published solution and no other; the script stops at the first that fails.
It also counts how many claims our renderer words as the published quiz does.
"""

from __future__ import annotations

import sys
from collections import Counter

from posttrain.errors import DataError
from posttrain.tasks.knights_knaves.published import read_published, row_statements
from posttrain.tasks.knights_knaves.text import claim_text


def main(paths: list[str]) -> int:
    if not paths:
        print(__doc__)
        return 2
    solved: Counter[int] = Counter()
    worded: Counter[str] = Counter()
    for path in paths:
        try:
            rows = read_published([path])  # solves each puzzle that has statements
        except DataError as error:
            print(error)
            return 1
        for row in rows:
            statements = row_statements(row)
            if statements is None:
                continue
            solved[row["people"]] += 1
            for claim in statements:
                text = claim_text(claim, row["names"], row["knight_knave"])
                worded["found" if text.lower() in row["quiz"].lower() else f"missing: {text}"] += 1
    for people, count in sorted(solved.items()):
        print(f"{people} people: {count} puzzles")
    print(f"all: {solved.total()} puzzles, each with exactly the published solution")
    print(f"claims worded as in the quiz: {worded['found']} of {worded.total()}")
    for problem, count in worded.most_common():
        if problem != "found":
            print(f"  {problem} ({count})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
