"""What `plan` and a run say of leaks: the overlap of held-out rows with those trained on, at a bounded cost.

`posttrain data leaks` compares everything and shows pairs. Here a large data set is looked at in evenly spread parts,
and what was skipped is said. Rows that a generator wrote are not compared: they share their sentences without being the
same, and that none of them is trained on `leaks.check_disjoint` has made sure of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.inputs.overlap import MOST_OVERLAPPING, MOST_SHARED, SIZE, overlaps, summed_up, text_of
from posttrain.recipe.recipe import Recipe
from posttrain.tasks import TaskData, label_of
from posttrain.tasks.math import Math
from posttrain.tasks.rows import Rows

MOST_TRAINED = 10_000_000
"""Characters of prompts and demonstrations that are looked at: some seconds."""
MOST_HELD_OUT = 1_000_000
"""Characters of held-out prompts, whose n-grams are all in memory."""

Row = Mapping[str, Any]


def look_for_leaks(
    recipe: Recipe, data: TaskData, *, most: int = MOST_TRAINED, most_held_out: int = MOST_HELD_OUT
) -> dict[str, Any]:
    """The overlap as Tulu 3 counts it.

    Args:
        recipe: Says which tasks' rows a generator wrote.
        data: The rows.
        most: Characters of what is trained on that are looked at.
        most_held_out: The same of held-out prompts.

    Returns:
        `rows` looked at of `of_rows` held-out ones, `trained` of `of_trained` rows trained on, `overlapping`, `share`
        and `contaminated` of `summed_up`, `short` (rows with fewer than 8 tokens of their own), `generated` (the tasks
        that are left out).
    """
    parts = getattr(recipe.task, "tasks", [recipe.task])
    written = [label_of(part) for part in parts if isinstance(part, Math | Rows)]
    generated = [label_of(part) for part in parts if label_of(part) not in written]
    eval_rows, trained = (
        [row for row in rows if len(parts) == 1 or row.get("task") in written] if written else []
        for rows in (data.eval, [*data.train, *data.demonstrations])
    )
    held_out = spread([text_of({"prompt": row["prompt"]}) for row in eval_rows], most_held_out)
    looked = spread([text_of(row) for row in trained], most) if held_out else []
    found = overlaps(held_out, looked)
    told = {key: value for key, value in summed_up(found).items() if key != "buckets"}
    short = sum(each.tokens < SIZE for each in found)
    return {**told, "of_rows": len(eval_rows), "trained": len(looked), "of_trained": len(trained), "short": short,
            "generated": generated}  # fmt: skip


def spread(texts: Sequence[str], most: int) -> Sequence[str]:
    """All texts, or every so many-th of them, which together have about `most` characters."""
    every = -(-sum(map(len, texts)) // most)
    return texts[::every] if every > 1 else texts


def in_words(found: Mapping[str, Any] | None) -> str:
    """What `look_for_leaks` gave, in a sentence; empty where there was nothing to compare, or nobody looked."""
    if found is None:
        return ""
    rows, left = found["rows"], found["generated"]
    more = ""
    if left:
        more = f"; generated rows, which are alike without being the same, are not compared ({', '.join(left)})"
    if not rows:
        return f"leaks: no held-out row is trained on{more}" if left else ""
    skipped = [
        f"{found[name]:,} of {found[of]:,} {what}"
        for name, of, what in (("rows", "of_rows", "held-out rows"), ("trained", "of_trained", "rows trained on"))
        if found[name] < found[of]
    ]
    looked = f" (looked at {' and '.join(skipped)}; `posttrain data leaks` looks at all)" if skipped else ""
    short = f", {found['short']:,} are too short to tell" if found["short"] else ""
    verdict = "more" if found["contaminated"] else "no more"
    return (
        f"leaks: {found['overlapping']:,} of {rows:,} held-out rows ({found['share']:.1%}) share more than "
        f"{MOST_SHARED:.0%} of their tokens with one row trained on, {verdict} than the {MOST_OVERLAPPING:.0%} from "
        f"which Tulu 3 takes a data set for contaminated{short}{looked}{more}"
    )
