"""Curricula: which prompt is sampled next, from what the rollouts before have given, as pure functions.

A controller says how much of each loss a step has; a curriculum says of which prompts its rollouts are. One is one
small file: frozen settings, `draw` and `observe` over a JSON state. Tensors, files and clocks never belong here: that
is what makes a run resumable, its draws the same on every process, and its record replayable.

Other rooms import: `base`, `beside`, `flad`, `gain_rl`, `order`.
"""

from __future__ import annotations

from posttrain.curricula.aioli import Aioli
from posttrain.curricula.base import Curriculum, Outcome, Sampler, State, Table
from posttrain.curricula.bots import BOTS
from posttrain.curricula.difficulty_pools import DifficultyPools
from posttrain.curricula.dmt import DMT
from posttrain.curricula.dump import DUMP
from posttrain.curricula.easy_to_hard import EasyToHard
from posttrain.curricula.exp3 import EXP3
from posttrain.curricula.gain_rl import GAINRL
from posttrain.curricula.human import Human
from posttrain.curricula.mixed_sources import MixedSources
from posttrain.curricula.rif import RIF
from posttrain.curricula.skill_it import SkillIt
from posttrain.curricula.stat import STAT
from posttrain.curricula.ucb1 import UCB1

CURRICULA: dict[str, type[Curriculum]] = {
    "easy_to_hard": EasyToHard,
    "rif": RIF,
    "dump": DUMP,
    "bots": BOTS,
    "difficulty_pools": DifficultyPools,
    "gain_rl": GAINRL,
    "human": Human,
    "dmt": DMT,
    "mixed_sources": MixedSources,
    "stat": STAT,
    "exp3": EXP3,
    "ucb1": UCB1,
    "skill_it": SkillIt,
    "aioli": Aioli,
}
"""What a recipe can name under `hybrid.curriculum.name`, and those that need no rollouts under `warmup.curriculum`."""

__all__ = [
    "BOTS",
    "CURRICULA",
    "DMT",
    "DUMP",
    "EXP3",
    "GAINRL",
    "RIF",
    "STAT",
    "UCB1",
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
