"""What a curriculum will draw by: the sources that it finds, and the columns that it has or does without."""

from __future__ import annotations

from collections import Counter

from posttrain.inputs.curriculum import Columns, names_of
from posttrain.recipe.recipe import Recipe
from posttrain.tasks import TaskData

MOST_SOURCES = 12
"""Sources that are named; of more their number is said."""


def curriculum_in_words(recipe: Recipe, data: TaskData | None) -> list[str]:
    """The lines of a plan; none without a curriculum, or without rows."""
    curriculum = recipe.hybrid.curriculum
    if curriculum is None or not recipe.hybrid.steps or data is None or not data.train:
        return []
    names = names_of(data.train)
    column, by = curriculum.source_of(names), ", ".join(curriculum.wanted())
    said = f"curriculum {curriculum.name}" + (f", by {by}" if by else "")
    if column is None or column not in names:
        more = "set hybrid.curriculum.source to a column, and the report shows the draws by it"
        return [f"{said}: the prompts have no column of sources ({more})"]
    counts = Counter(map(str, Columns(data.train)[column]))
    if len(counts) > MOST_SOURCES:
        return [f"{said}: {len(counts):,} sources by the column {column}"]
    return [f"{said}: sources by the column {column}: " + ", ".join(f"{name} ({n:,})" for name, n in counts.items())]
