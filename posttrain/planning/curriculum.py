"""What the curricula will draw by: the sources that they find, and the columns that they have or do without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from posttrain.curricula import Curriculum
from posttrain.curricula.flad import FLAD
from posttrain.errors import DataError
from posttrain.inputs.curriculum import ROWS, Columns, names_of
from posttrain.recipe.adapter_serving import adapter_of
from posttrain.recipe.recipe import Recipe
from posttrain.tasks import TaskData

MOST_SOURCES = 12
"""Sources that are named; of more their number is said."""


def curriculum_in_words(recipe: Recipe, data: TaskData | None, warmup_rows_per_step: int) -> list[str]:
    """The lines of a plan; none without a curriculum, or without rows."""
    if data is None:
        return []
    return [
        *_of_stage(recipe, "warmup", data.demonstrations),
        *_compared(recipe, data.demonstrations, warmup_rows_per_step),
        *_of_stage(recipe, "hybrid", data.train),
    ]


def _compared(recipe: Recipe, rows: list[dict[str, Any]], per_step: int) -> Iterator[str]:
    """What a warm-up by gradients takes beside its steps."""
    curriculum, steps = recipe.warmup.curriculum, recipe.warmup.steps
    if not isinstance(curriculum, FLAD) or not steps or not rows:
        return
    with suppress(DataError):  # said already, as what a run refuses
        table = curriculum.table(Columns(rows), names_of(rows), of="demonstrations")
        held, over = len(curriculum.held(table, recipe.run.seed)), "adapter" if adapter_of(recipe) else "LM head"
        yield (
            f"warm-up's curriculum {curriculum.name}: {held:,} demonstrations are the target and not trained on; "
            f"gradients over the {over} take {curriculum.measured(table, steps, per_step):,} more passes of a "
            f"demonstration, beside {steps * per_step:,} that train"
        )


def _of_stage(recipe: Recipe, stage: str, rows: list[dict[str, Any]]) -> list[str]:
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
    counts = Counter(map(str, Columns(rows)[column]))
    if len(counts) > MOST_SOURCES:
        return [f"{said}: {len(counts):,} sources by the column {column}"]
    return [f"{said}: sources by the column {column}: " + ", ".join(f"{name} ({n:,})" for name, n in counts.items())]
