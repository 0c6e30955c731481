"""What the curricula will draw by: the sources that they find, and the columns that they have or do without."""

from __future__ import annotations

from collections import Counter
from typing import Any

from posttrain.curricula import Curriculum
from posttrain.curricula.flad import GRADIENTS
from posttrain.errors import PosttrainError
from posttrain.inputs.curriculum import ROWS, Columns, names_of
from posttrain.recipe.recipe import Recipe
from posttrain.tasks import TaskData

MOST_SOURCES = 12
"""Sources that are named; of more their number is said."""


def curriculum_in_words(recipe: Recipe, data: TaskData | None, warmup_rows_per_step: int) -> list[str]:
    """The lines of a plan; none without a curriculum, or without rows."""
    if data is None:
        return []
    return [
        *_of_stage(recipe, "warmup", data.demonstrations, warmup_rows_per_step),
        *_of_stage(recipe, "hybrid", data.train),
    ]


def _of_stage(recipe: Recipe, stage: str, rows: list[dict[str, Any]], per_step: int = 0) -> list[str]:
    section = getattr(recipe, stage)
    curriculum: Curriculum | None = section.curriculum
    if curriculum is None or not section.steps or not rows:
        return []
    names = names_of(rows)
    column, by = curriculum.source_of(names), ", ".join(curriculum.wanted())
    said = ("warm-up's " if stage == "warmup" else "") + f"curriculum {curriculum.name}" + (f", by {by}" if by else "")
    if column is None or column not in names:
        shows = "the report shows the draws by it" if stage == "hybrid" else "the record has the draws by it"
        more = f"set {stage}.curriculum.source to a column, and {shows}"
        return [f"{said}: the {ROWS[stage]} have no column of sources ({more})"]
    said += _measured(curriculum, rows, section.steps, per_step)
    counts = Counter(map(str, Columns(rows)[column]))
    if len(counts) > MOST_SOURCES:
        return [f"{said}: {len(counts):,} sources by the column {column}"]
    return [f"{said}: sources by the column {column}: " + ", ".join(f"{name} ({n:,})" for name, n in counts.items())]


def _measured(curriculum: Curriculum, rows: list[dict[str, Any]], steps: int, per_step: int) -> str:
    """What its measurements take, beside the steps."""
    if not curriculum.asks:
        return ""
    try:
        passes = curriculum.passes(curriculum.table(Columns(rows), names_of(rows)), steps, per_step)
    except PosttrainError:  # which is told of where the rows are checked
        return ""
    of = "demonstrations, trained and" if curriculum.asks == GRADIENTS else "demonstrations that are"
    return f", with {passes:,} passes of {of} held out, for their {curriculum.asks}, not in the seconds below"
