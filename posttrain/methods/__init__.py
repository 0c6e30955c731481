"""Methods: what a GRPO step makes of a prompt's own demonstration, decided prompt by prompt.

A controller says how much of each loss a step has; a method looks at what the rollouts of a prompt gave, and brings
that prompt's demonstration in. A method is one small file: frozen settings, decisions over floats, and token losses
that use nothing but the methods of the tensors they are given. What carries them out is `training.method_side`.

Other rooms import: `base`.
"""

from __future__ import annotations

from posttrain.methods.base import Method
from posttrain.methods.escalate import Escalate
from posttrain.methods.hpt import HPT
from posttrain.methods.luffy import LUFFY
from posttrain.methods.prefix_rft import PrefixRFT
from posttrain.methods.relift import ReLIFT
from posttrain.methods.rlsd import RLSD
from posttrain.methods.srft import SRFT
from posttrain.methods.uft import UFT

METHODS: dict[str, type[Method]] = {
    "escalate": Escalate,
    "hpt": HPT,
    "luffy": LUFFY,
    "prefix_rft": PrefixRFT,
    "relift": ReLIFT,
    "rlsd": RLSD,
    "srft": SRFT,
    "uft": UFT,
}
"""What a recipe can name under `hybrid.method.name`."""

__all__ = ["HPT", "LUFFY", "METHODS", "RLSD", "SRFT", "UFT", "Escalate", "Method", "PrefixRFT", "ReLIFT"]
