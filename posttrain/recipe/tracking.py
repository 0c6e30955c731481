"""How a run is called at its trackers, and which tracker heeds what of it. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, field_validator

from posttrain.errors import ConfigError
from posttrain.recipe.section import Section

Name = Annotated[str, Field(min_length=1)]

HEEDED: dict[str, tuple[str, ...]] = {
    "project": ("clearml", "codecarbon", "comet_ml", "dagshub", "mlflow", "neptune", "swanlab", "trackio", "wandb"),
    "name": ("clearml", "comet_ml", "dagshub", "mlflow", "swanlab", "trackio", "wandb"),
    "tags": ("dagshub", "mlflow", "wandb"),
}
"""Key -> the trackers that heed it, as far as transformers' integrations pass it on."""


class TrackingSection(Section):
    """How a run is called at the trackers of `report_to`. A key that none of them heeds is refused.

    Args:
        project: Where it is kept there; MLflow calls it an experiment.
        name: Of the run; null is its directory's name and an id.
        tags: Words to find it by, without commas; for MLflow tags of the value `true`.
    """

    project: Name | None = None
    name: Name | None = None
    tags: list[Name] = []

    @field_validator("tags", mode="before")
    @classmethod
    def _as_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("tags")
    @classmethod
    def _no_commas(cls, tags: list[str]) -> list[str]:
        for tag in tags:
            if "," in tag:
                raise ConfigError(f"{tag!r}", expected="tags without commas", fix="write a list, one tag an item")
        return tags

    def unheeded(self, trackers: Sequence[str]) -> list[str]:
        """The keys that are set and that none of these trackers heeds."""
        return [key for key, by in HEEDED.items() if getattr(self, key) and not set(by) & set(trackers)]
