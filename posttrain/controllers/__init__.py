"""Controllers: what each optimizer step is made of. Pure Python over floats; importing this loads no torch."""

from __future__ import annotations

from posttrain.controllers.base import Controller, Mix, Signals, State, check_mix, replay
from posttrain.controllers.sasr import SASR
from posttrain.controllers.schedules import Alternate, Cosine, GRPOOnly, SFTOnly, Static

CONTROLLERS: dict[str, type] = {
    "sasr": SASR,
    "static": Static,
    "alternate": Alternate,
    "cosine": Cosine,
    "sft_only": SFTOnly,
    "grpo_only": GRPOOnly,
}
"""What a recipe can name under `hybrid.controller.name`."""

__all__ = [
    "CONTROLLERS",
    "SASR",
    "Alternate",
    "Controller",
    "Cosine",
    "GRPOOnly",
    "Mix",
    "SFTOnly",
    "Signals",
    "State",
    "Static",
    "check_mix",
    "replay",
]
