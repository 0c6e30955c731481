"""Controllers: what each optimizer step is made of, SFT, GRPO or both, as pure functions over floats.

A method is one small file and a line in `CONTROLLERS`. Tensors, files and clocks never belong here: that is what makes
a run resumable and its decisions replayable.

Other rooms import: `base`, `sasr`.
"""

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
