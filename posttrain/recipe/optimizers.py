"""Optimizers by name: what each needs and keeps, and which a run cannot train with. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.errors import ConfigError
from posttrain.nearest import did_you_mean

TWO_POINTS = "schedule_free"
"""How transformers' names of optimizers begin that keep two sets of weights: those that gradients are taken at, and
their average, which is the model (Defazio et al. 2024, arXiv 2405.15682)."""

FIX = "set optim: adamw_torch, with lr_scheduler_type: constant_with_warmup if no schedule is wanted"

OWN = ("frugal",)
"""Those of ours (`training.frugal`)."""

FRUGAL: dict[str, float] = {"density": 0.25, "update_gap": 200, "inactive_scale": 0.1}
"""Arguments of `frugal`, as in `optim_args`, and their defaults; the last is for fine-tuning, and 1 in pre-training."""

PROJECTED = ("galore", "apollo")
"""How names begin of optimizers that project the weights of `optim_target_modules`."""

IN_BACKWARD = ("lomo", "adalomo")
"""Beside `*_layerwise`: those that step while gradients are computed, and keep none."""

PACKAGES = {
    "galore": ("galore_torch", "galore-torch"), "apollo": ("apollo_torch", "apollo-torch"),
    TWO_POINTS: ("schedulefree", "schedulefree"), "grokadamw": ("grokadamw", "grokadamw"),
    "stable_adamw": ("optimi", "torch-optimi"),
}  # fmt: skip
"""How names begin -> the module that they need, and the package that brings it."""

STATES: dict[str, float] = {
    "adamw_torch": 2, "adamw_torch_fused": 2, "adamw_anyprecision": 2, "adamw_torch_8bit": 0.5,
    "adamw_torch_4bit": 0.25, "adamw_bnb_8bit": 0.5, "adamw_8bit": 0.5, "paged_adamw_32bit": 2,
    "paged_adamw_8bit": 0.5, "ademamix": 3,
    "ademamix_8bit": 0.75, "paged_ademamix_32bit": 3, "paged_ademamix_8bit": 0.75, "adafactor": 0, "sgd": 0,
    "adagrad": 1, "rmsprop": 1, "rmsprop_bnb": 1, "rmsprop_bnb_8bit": 0.25, "rmsprop_bnb_32bit": 1, "lion_32bit": 1,
    "lion_8bit": 0.25, "paged_lion_32bit": 1, "paged_lion_8bit": 0.25, "schedule_free_adamw": 2,
    "schedule_free_radam": 2, "schedule_free_sgd": 1, "stable_adamw": 2, "grokadamw": 3,
}  # fmt: skip
"""Optimizer -> numbers of the size of a weight that it keeps for each that trains, rows and columns not counted."""
UNKNOWN_STATES = 2.0
GALORE_RANK = 128


def name_of(args: Mapping[str, Any]) -> str:
    """The optimizer that a stage's `args` name."""
    return str(args.get("optim") or "adamw_torch")


def states_of(args: Mapping[str, Any], *, trained: int, linear: int, hidden: int) -> float:
    """Numbers that an optimizer keeps in all.

    Args:
        args: A stage's.
        trained: Numbers that train.
        linear: Of these, in weights of linear layers.
        hidden: The smaller side of those, about.
    """
    name = name_of(args)
    if name == "frugal":
        density = float(frugal_settings(args.get("optim_args"), "optim")["density"])
        return 2 * (density * linear + trained - linear)
    if name.startswith(PROJECTED):
        rank = float(_parsed(args.get("optim_args")).get("rank", GALORE_RANK))
        kept = min(rank / max(hidden, 1), 1.0)
        return 3 * kept * linear + 2 * (trained - linear)  # moments of the projected weights, and the projection
    return STATES.get(name, UNKNOWN_STATES) * trained


def check_optim(optim: Any, where: str, *, rollouts: bool = True) -> None:
    """Refuse optimizers whose model is the average of the weights that train, and those that keep no gradients.

    Every place that looks at the policy would have to exchange the two, and rollouts could not be right: what is
    sampled by one set of weights would be trained at the other, while GRPO takes the two for one policy. The warm-up,
    which samples nothing, hands on the average.

    Args:
        optim: As in `transformers.TrainingArguments`.
        where: The key.
        rollouts: Whether the stage samples.

    Raises:
        ConfigError: With what to set instead.
    """
    name = str(getattr(optim, "value", optim) or "")
    if name.startswith(TWO_POINTS) and rollouts:
        raise _refused(name, where)
    if name.endswith("_layerwise") or name in IN_BACKWARD:
        raise ConfigError(
            f"{name}, which steps while gradients are computed: none is there to be accumulated, averaged over "
            "processes, measured, clipped, mixed, or skipped where it is not finite",
            expected="an optimizer that steps behind the gradients",
            where=where,
            fix=f"set optim: {name.removesuffix('_layerwise')}" if name.endswith("_layerwise") else FIX,
        )


def check_optim_args(args: Mapping[str, Any], where: str) -> None:
    """Refuse what an optimizer lacks, before it is made.

    Raises:
        ConfigError: With what to write.
    """
    name = name_of(args)
    if name.startswith(PROJECTED) and not args.get("optim_target_modules"):
        raise ConfigError(
            f"{name} without optim_target_modules", expected="which linear layers it projects", where=where,
            fix='set optim_target_modules: ["attn", "mlp"], or all-linear',
        )  # fmt: skip
    if name == "frugal":
        frugal_settings(args.get("optim_args"), where)
    if args.get("optim_target_modules") and not name.startswith(PROJECTED):
        raise ConfigError(
            f"optim_target_modules with {name}, which has no use for it", expected="galore_* or apollo_*", where=where,
            fix="leave it out",
        )  # fmt: skip


def frugal_settings(text: Any, where: str) -> dict[str, Any]:
    """The arguments of `frugal` in `optim_args`, such as `density=0.25,update_gap=200`.

    Raises:
        ConfigError: One that it does not take, or a value that is none.
    """
    found: dict[str, Any] = dict(FRUGAL)
    for key, value in _parsed(text).items():
        if key not in FRUGAL:
            raise ConfigError(
                f"optim_args {key} with frugal", expected=", ".join(FRUGAL), where=where,
                fix=did_you_mean(key, FRUGAL) or "leave it out",
            )  # fmt: skip
        try:
            found[key] = int(value) if key == "update_gap" else float(value)
        except ValueError:
            raise ConfigError(f"optim_args {key}={value}", expected="a number", where=where) from None
    if not 0 <= found["density"] <= 1 or found["update_gap"] < 1 or found["inactive_scale"] < 0:
        raise ConfigError(
            f"optim_args {text}", expected="density from 0 to 1, update_gap 1 or more, inactive_scale 0 or more",
            where=where, fix='set optim_args: "density=0.25,update_gap=200"',
        )  # fmt: skip
    return found


def _parsed(text: Any) -> dict[str, str]:
    pairs = (part.partition("=") for part in str(text or "").replace(" ", "").split(",") if part)
    return {key: value for key, _, value in pairs}


def package_of(name: str) -> tuple[str, str] | None:
    """The module that an optimizer needs beside torch, and the package that brings it."""
    return next((needs for begins, needs in PACKAGES.items() if name.startswith(begins)), None)


def check_given(optimizer: Any, where: str) -> None:
    """As `check_optim`, of an optimizer that was made already: one with `train` and `eval`, as a model has them."""
    if all(callable(getattr(optimizer, name, None)) for name in ("train", "eval")):
        raise _refused(type(optimizer).__name__, where)


def _refused(name: str, where: str) -> ConfigError:
    return ConfigError(
        f"{name}, which trains at other weights than the averaged ones that are its model: rollouts would be of "
        "another policy than the one that is trained, and evaluations and saved models of weights that are no model",
        expected="an optimizer whose weights are the policy's",
        where=where,
        fix=FIX,
    )
