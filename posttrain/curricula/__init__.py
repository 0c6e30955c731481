"""Curricula: which prompt is sampled next, from what the rollouts before have given, as pure functions.

A controller says how much of each loss a step has; a curriculum says of which prompts its rollouts are. One is one
small file: frozen settings, `draw` and `observe` over a JSON state. Tensors, files and clocks never belong here: that
is what makes a run resumable, its draws the same on every process, and its record replayable.

Other rooms import: `base`, `beside`, `order`.
"""

from __future__ import annotations

from posttrain.curricula.aioli import Aioli
from posttrain.curricula.base import Curriculum, Outcome, Sampler, State, Table
from posttrain.curricula.bots import BOTS
from posttrain.curricula.difficulty_pools import DifficultyPools
from posttrain.curricula.dmt import DMT
from posttrain.curricula.dump import DUMP
from posttrain.curricula.easy_to_hard import EasyToHard
from posttrain.curricula.human import Human
from posttrain.curricula.mixed_sources import MixedSources
from posttrain.curricula.rif import RIF
from posttrain.curricula.skill_it import SkillIt
from posttrain.curricula.stat import STAT

CURRICULA: dict[str, type[Curriculum]] = {
    "easy_to_hard": EasyToHard,
    "rif": RIF,
    "dump": DUMP,
    "bots": BOTS,
    "difficulty_pools": DifficultyPools,
    "human": Human,
    "dmt": DMT,
    "mixed_sources": MixedSources,
    "stat": STAT,
    "skill_it": SkillIt,
    "aioli": Aioli,
}
"""What a recipe can name under `hybrid.curriculum.name`, and those that need no rollouts under `warmup.curriculum`."""

__all__ = [
    "BOTS",
    "CURRICULA",
    "DMT",
    "DUMP",
    "RIF",
    "STAT",
    "Aioli",
    "Curriculum",
    "DifficultyPools",
    "EasyToHard",
    "Human",
    "MixedSources",
    "Outcome",
    "Sampler",
    "SkillIt",
    "State",
    "Table",
]
