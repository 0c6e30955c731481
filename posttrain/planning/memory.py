"""What memory a process of a run holds at each of its moments, by part, and whether that is there.

Weights, gradients, optimizer states and copies of the policy are counted exactly. Activations, logits and the cache are
the cost model's (`cost`): counted work times coefficients that were fitted to float32 on a CPU. On a GPU they are an
upper estimate, for bfloat16 halves most of them; with gradient checkpointing what is kept of a layer is its input, in
float32, and the layer that is being computed again has its activations in full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from posttrain.models.cost_counts import Passes, StepWork, sft_passes, training_passes
from posttrain.planning.cost import CostModel
from posttrain.planning.machine import Machine
from posttrain.planning.model_facts import ModelFacts
from posttrain.recipe.optimizers import states_of
from posttrain.recipe.recipe import Recipe
from posttrain.recipe.section import AGAINST_START

GIB = 2**30
CONTEXT = int(0.6 * GIB)
"""What CUDA's context and its libraries take of a GPU: between 0.4 and 0.8 GiB on present ones."""
GPU_SIZES = (16, 24, 32, 40, 48, 80, 96, 141, 192)
"""GiB of GPUs that there are."""
FILLED = 0.92
"""Share of a memory that can be filled before pieces are too scattered."""

Parts = dict[str, float]

STARTING_POLICY = ("KL snapshot", "reference")
"""Parts that stage 1 has no use for, but for the losses that compare with its beginning."""
OLD_MODEL = "old model"
"""Of `warmup.muscle`, which is there in stage 1 alone."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What one process needs.

    Attributes:
        moments: By moment (`warmup`, `sft`, `grpo`, `sampling`, `evaluation`, as `remedies` names them), bytes by part.
        engine_share: Share of a GPU that a colocated vLLM takes beside what training holds.
        available: Bytes that a process can have; None: not known.
        of: What has that memory, in words.
        smallest_gpu: GiB of the smallest GPU that would do; None on a CPU, or where none does.
        exact: The names of the parts that are counted, not estimated.
    """

    moments: dict[str, Parts]
    engine_share: float
    available: int | None
    of: str
    smallest_gpu: int | None
    exact: tuple[str, ...]

    @property
    def worst(self) -> str:
        """The moment that needs most."""
        return max(self.moments, key=lambda moment: sum(self.moments[moment].values()))

    @property
    def peak(self) -> float:
        """Bytes of the worst moment."""
        return sum(self.moments[self.worst].values())

    @property
    def fits(self) -> bool | None:
        """Whether the peak is there; None: not known."""
        return None if self.available is None else needed(self.peak, self.engine_share) <= self.available


def needed(peak: float, engine_share: float) -> float:
    """Bytes of a device that leave `peak` to training beside an engine's share, not filled to the brim."""
    return peak / max(0.01, FILLED - engine_share)


def held(recipe: Recipe, model: ModelFacts, machine: Machine) -> Parts:
    """Bytes that a process holds throughout stage 2, by part, counted.

    Args:
        recipe: The recipe.
        model: Its model.
        machine: The processes, which may share the parts out.
    """
    shares = machine.shares
    adapter = model.trained if model.has_adapter else 0
    trained = model.trained * model.trained_bytes
    parts: Parts = {
        "weights": (model.base_bytes + adapter * model.trained_bytes) / shares["weights"],
        "gradients": trained / shares["gradients"],
        "optimizer": optimizer_bytes(recipe.hybrid.args, model) / shares["optimizer"],
    }
    if machine.config == "ddp" and machine.processes > 1:
        parts["gradient buckets"] = trained  # DDP's own copy, from which gradients are averaged
    hybrid = recipe.hybrid
    samples = hybrid.controller.shares()[1]
    if not hybrid.steps or not (samples or hybrid.sft_weight in AGAINST_START):
        return parts
    # A fresh adapter is turned off instead of copied (see `snapshot`)
    copied = trained if not model.has_adapter or recipe.warmup.steps else 0
    looked_at = (samples and hybrid.kl.sample > 0) or hybrid.sft_weight in AGAINST_START
    if looked_at and copied and not (hybrid.kl.offload and machine.device == "cuda"):
        parts[STARTING_POLICY[0]] = copied / shares["weights"]
    if samples and hybrid.grpo.beta > 0:
        reference = adapter * model.trained_bytes if model.has_adapter else model.base_bytes
        parts[STARTING_POLICY[1]] = reference / shares["weights"]
    return parts


def optimizer_bytes(args: Mapping[str, Any], model: ModelFacts) -> float:
    """What the optimizer of a stage keeps, by the stage's `args`."""
    linear, hidden = (model.shape.linear_weights, model.shape.hidden) if model.shape else (0, 1)
    linear = 0 if model.has_adapter else linear
    return states_of(args, trained=model.trained, linear=linear, hidden=hidden) * model.trained_bytes


def memory_of(
    recipe: Recipe, model: ModelFacts, machine: Machine, works: dict[str, StepWork], costs: CostModel
) -> Memory:
    """Memory of every moment that the recipe has.

    Args:
        recipe: The recipe.
        model: Its model, of which the shape is known.
        machine: Where it is to run.
        works: What one process does in each moment.
        costs: Coefficients; those of memory are of a float32 CPU.
    """
    assert model.shape is not None
    stage_two = held(recipe, model, machine)
    basic = {name: size for name, size in stage_two.items() if name not in STARTING_POLICY}
    on_gpu = machine.device == "cuda"
    moments: dict[str, Parts] = {}
    counted = dict.fromkeys(stage_two)
    for moment, work in works.items():
        if moment == "warmup":
            basic["optimizer"] = optimizer_bytes(recipe.warmup.args, model) / machine.shares["optimizer"]
        if moment in ("warmup", "sft", "grpo"):
            part = "training" if moment == "grpo" else "sft"
            passing = _training_parts(part, model, _checkpointed(recipe, moment, work, on_gpu), costs, on_gpu=on_gpu)
            before = basic | _teachers(recipe, model) if moment == "warmup" else basic
            counted |= dict.fromkeys(before)
            moments[moment] = (before if moment == "warmup" else stage_two) | passing
        elif not _engine(recipe):
            # Gradients are dropped after each step; the rest stays where it is
            stays = {name: size for name, size in stage_two.items() if name != "gradients"}
            parts = costs.part_bytes("generation", model.shape, replace(work, weight_bytes=2 if on_gpu else 4))
            passing = {name: parts[name] for name in ("cache", "activations", "logits", "other")}
            moments[moment] = {**stays, **passing}
        if on_gpu and moment in moments:
            moments[moment]["CUDA"] = CONTEXT
    colocated = _engine(recipe) and recipe.rollout.mode == "colocate" and on_gpu
    share = recipe.rollout.gpu_memory_utilization if colocated and not recipe.rollout.enable_sleep_mode else 0.0
    available, of = _available(machine)
    made = Memory(
        moments=moments, engine_share=share, available=available, of=of, smallest_gpu=None, exact=tuple(counted)
    )
    if not on_gpu:
        return made
    enough = [size for size in GPU_SIZES if needed(made.peak, share) <= size * GIB]
    return replace(made, smallest_gpu=enough[0] if enough else None)


def _teachers(recipe: Recipe, model: ModelFacts) -> Parts:
    """What the warm-up's loss compares with: the policy as it began, and the model before it."""
    warmup, parts = recipe.warmup, Parts()
    fresh = recipe.lora is not None and not recipe.lora.splits_base  # turned off instead of copied (see `snapshot`)
    if (warmup.sft_weight in AGAINST_START or warmup.muscle) and not fresh:
        parts[STARTING_POLICY[0]] = model.trained * model.trained_bytes
    if warmup.muscle:
        parts[OLD_MODEL] = model.old_bytes
        head = recipe.lora.modules_to_save if recipe.lora else None
        if model.shape and (not model.has_adapter or head):  # a head that trains is copied for the new model's logits
            parts[STARTING_POLICY[0]] = (
                parts.get(STARTING_POLICY[0], 0) + model.shape.vocab * model.shape.hidden * model.trained_bytes
            )
    return parts


def _engine(recipe: Recipe) -> bool:
    return recipe.rollout.uses_vllm()


def _checkpointed(recipe: Recipe, moment: str, work: StepWork, on_gpu: bool) -> StepWork:
    """The work with what the recipe says of gradient checkpointing; TRL's default is on, ours on a CPU off."""
    stage = recipe.warmup if moment == "warmup" else recipe.hybrid
    return replace(work, checkpointing=bool(stage.args.get("gradient_checkpointing", on_gpu)))


def _training_parts(part: str, model: ModelFacts, work: StepWork, costs: CostModel, *, on_gpu: bool) -> Parts:
    """What passes with gradients take beside what is held."""
    assert model.shape is not None
    estimated = costs.part_bytes(part, model.shape, work)
    passing = {name: estimated[name] for name in ("activations", "logits", "other")}
    if on_gpu and work.checkpointing:
        shape, passes = model.shape, _passes(part, work)
        positions = passes.positions * passes.largest
        one_layer = costs.part_bytes(part, replace(shape, layers=1), replace(work, checkpointing=False))["activations"]
        passing["activations"] = 4.0 * shape.layers * shape.hidden * positions + one_layer
    return passing


def _passes(part: str, work: StepWork) -> Passes:
    return training_passes(work) if part == "training" else sft_passes(work)


def _available(machine: Machine) -> tuple[int | None, str]:
    """Bytes that a process can have, and of what."""
    if machine.device == "cpu":
        return (math.floor(machine.memory / machine.per_node) or None), "this machine's memory" + (
            f", shared by {machine.per_node} processes" if machine.per_node > 1 else ""
        )
    if not machine.gpus:
        return None, "a GPU; none is visible here"
    several = len(machine.gpus) > 1
    return min(machine.gpus), f"the smallest of {len(machine.gpus)} visible GPUs" if several else "the GPU"
