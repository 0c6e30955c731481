"""Recipe keys that a run does not know because they came after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from posttrain.errors import ConfigError
from posttrain.recipe.recipe import Recipe
from posttrain.rundir.facts import NAMED, flatten


def added_since(was: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """Keys of a recipe that a run in a directory lacks, at what they are where nobody sets them.

    What is new is off until it is asked for, so that a run of an earlier version goes on as it was; a key that is set
    to anything else is a change like any other.

    Args:
        was, now: The two runs' facts by dotted keys, recipe and fingerprints.
    """
    absent = {key for key in now if key not in was and not key.startswith(NAMED)}
    if not absent:
        return set()
    kept = {key: value for key, value in now.items() if key not in absent and not key.startswith(NAMED)}
    try:
        unset = flatten(Recipe.model_validate(_nested(kept)).resolved())
    except (ValidationError, ConfigError):  # one of them is needed
        return set()
    return {key for key in absent if key in unset and unset[key] == now[key]}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections again."""
    found: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        into = found
        for section in sections:
            into = into.setdefault(section, {})
        into[name] = value
    return found
