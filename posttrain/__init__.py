"""posttrain: warm-up SFT, then an adaptive mix of SFT and GRPO with verifiable rewards, on top of TRL.

Three ways in: `posttrain run RECIPE`, `posttrain.run(recipe, rewards=[my_function])`, and `HybridTrainer`, which is
used like TRL's `GRPOTrainer`. Importing this package loads nothing heavy; the names below load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posttrain.controllers import (
        GAC,
        SASR,
        Alternate,
        Chord,
        Cosine,
        GRPOOnly,
        Mix,
        SFTOnly,
        Signals,
        Static,
        Switch,
    )
    from posttrain.methods import HPT, LUFFY, RLSD, SRFT, UFT, Escalate, PrefixRFT, ReLIFT
    from posttrain.recipe.recipe import Recipe, load_recipe
    from posttrain.running.alarm_callback import AlarmCallback
    from posttrain.running.pipeline import run
    from posttrain.scoring.score import Score
    from posttrain.training.config import HybridConfig
    from posttrain.training.trainer import HybridTrainer

_HOME = (
    {
        "AlarmCallback": "posttrain.running.alarm_callback",
        "HybridConfig": "posttrain.training.config",
        "HybridTrainer": "posttrain.training.trainer",
        "Recipe": "posttrain.recipe.recipe",
        "Score": "posttrain.scoring.score",
        "load_recipe": "posttrain.recipe.recipe",
        "run": "posttrain.running.pipeline",
    }
    | dict.fromkeys(
        ("GAC", "SASR", "Alternate", "Chord", "Cosine", "GRPOOnly", "Mix", "SFTOnly", "Signals", "Static", "Switch"),
        "posttrain.controllers",
    )
    | dict.fromkeys(("HPT", "LUFFY", "RLSD", "SRFT", "UFT", "Escalate", "PrefixRFT", "ReLIFT"), "posttrain.methods")
)

__all__ = [
    "GAC",
    "HPT",
    "LUFFY",
    "RLSD",
    "SASR",
    "SRFT",
    "UFT",
    "AlarmCallback",
    "Alternate",
    "Chord",
    "Cosine",
    "Escalate",
    "GRPOOnly",
    "HybridConfig",
    "HybridTrainer",
    "Mix",
    "PrefixRFT",
    "ReLIFT",
    "Recipe",
    "SFTOnly",
    "Score",
    "Signals",
    "Static",
    "Switch",
    "load_recipe",
    "run",
]


def __dir__() -> list[str]:
    """What users are meant to use, and no module that happens to be loaded."""
    return [*__all__, *(name for name in globals() if name.startswith("__"))]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'posttrain' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
