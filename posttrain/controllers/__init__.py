"""Controllers: what each optimizer step is made of, SFT, GRPO or both, as pure functions over floats.

A method is one small file and a line in `CONTROLLERS`. Tensors, files and clocks never belong here: that is what makes
a run resumable and its decisions replayable.

Other rooms import: `base`, `gac`, `sasr`.
"""

from __future__ import annotations

from posttrain.controllers.base import Controller, Mix, Signals, State, check_mix, replay
from posttrain.controllers.chord import Chord
from posttrain.controllers.gac import GAC
from posttrain.controllers.sasr import SASR
from posttrain.controllers.schedules import Alternate, Cosine, GRPOOnly, SFTOnly, Static
from posttrain.controllers.switch import Switch

CONTROLLERS: dict[str, type] = {
    "sasr": SASR,
    "static": Static,
    "alternate": Alternate,
    "cosine": Cosine,
    "switch": Switch,
    "chord": Chord,
    "gac": GAC,
    "sft_only": SFTOnly,
    "grpo_only": GRPOOnly,
}
"""What a recipe can name under `hybrid.controller.name`."""

__all__ = [
    "CONTROLLERS",
    "GAC",
    "SASR",
    "Alternate",
    "Chord",
    "Controller",
    "Cosine",
    "GRPOOnly",
    "Mix",
    "SFTOnly",
    "Signals",
    "State",
    "Static",
    "Switch",
    "check_mix",
    "replay",
]
