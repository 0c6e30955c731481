"""What a recipe calls its run, as transformers' integrations are told of it: by a few arguments and the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from posttrain.recipe.tracking import TrackingSection

PROJECT = {
    "clearml": "CLEARML_PROJECT",
    "codecarbon": "CODECARBON_PROJECT_NAME",
    "comet_ml": "COMET_PROJECT_NAME",
    "dagshub": "MLFLOW_EXPERIMENT_NAME",
    "mlflow": "MLFLOW_EXPERIMENT_NAME",
    "neptune": "NEPTUNE_PROJECT",
    "swanlab": "SWANLAB_PROJECT",
    "wandb": "WANDB_PROJECT",
}
"""Tracker -> the variable that its integration, or its client, reads the project from; trackio has an argument."""


def arguments(tracking: TrackingSection, own: str, tracker: str) -> dict[str, str]:
    """The fields of `transformers.TrainingArguments` by which a tracker is told.

    Args:
        tracking: Of the recipe.
        own: The run's own name, with its id.
        tracker: trackio knows a run again by its name, so that there the id stays in it.
    """
    name = tracking.name or own
    if tracker == "trackio" and tracking.name:
        name = f"{tracking.name}-{own.rsplit('-', 1)[-1]}"
    return {"run_name": name} | ({"project": tracking.project} if tracking.project else {})


def variables(tracking: TrackingSection, tracker: str) -> dict[str, str]:
    """The environment variables by which a tracker is told."""
    told = {}
    if tracking.project and tracker in PROJECT:
        told[PROJECT[tracker]] = tracking.project
    if tracking.name and tracker == "clearml":
        told["CLEARML_TASK"] = tracking.name
    if tracking.tags and tracker == "wandb":
        told["WANDB_TAGS"] = ",".join(tracking.tags)
    if tracking.tags and tracker in ("mlflow", "dagshub"):
        told["MLFLOW_TAGS"] = json.dumps(dict.fromkeys(tracking.tags, "true"))
    return told


@contextmanager
def environment(defaults: Mapping[str, str], told: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for a client to start by.

    Args:
        defaults: What is set already is the user's, and stays.
        told: By the recipe; it wins.
    """
    new: dict[str, Any] = {**defaults, **{name: os.environ[name] for name in defaults if name in os.environ}, **told}
    before = {name: os.environ.get(name) for name in new}
    os.environ.update(new)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
