"""Kinds of LoRA that a run cannot keep the same from its start to what it leaves behind. Importing this loads no torch.

What is not named here has been tried (tests/training/test_adapter_kinds.py): making a trainer with it, saving, loading,
resuming and merging it leave the policy as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.errors import ConfigError

INITS = (True, False, "gaussian", "orthogonal", "mica")
"""The values of `init_lora_weights` that leave the base model's weights as they are and need no data."""

DATA_INITS = ("eva",)
"""Those that leave the base as it is, but are computed from data."""

SPLITS_BASE = ("pissa", "olora")
"""Kinds that begin with a part of the base's weights, which a run takes out of them once (`models.rest`)."""

ADALORA = "ADALORA"
"""PEFT's name for adapters whose ranks have a budget."""
NOT_OF_ADALORA = (
    "alpha_pattern", "bias", "init_lora_weights", "rank_pattern", "target_parameters", "total_step", "use_dora",
)  # fmt: skip
"""Fields that an AdaLoRA adapter has no use for, or that the stage decides."""

KIND_FIELDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "mica": {"init_lora_weights": "mica"},
    "pissa": {},
    "olora": {},
    "adalora": {"peft_type": ADALORA},
}
"""Value of `lora.kind` -> fields of `peft.LoraConfig` by which the adapter trains."""

HEADS = ("lm_head", "embed_out")
"""What families call their LM head."""

EMBEDDINGS = ("embed_tokens", "embed_in", "wte")
"""What families call the embedding that the LM head may be tied to."""

CHANGES_BASE = {
    "kasa_config": ("part of the base model's weights is cut off", "use_rslora or use_dora, which leave them whole"),
    "layer_replication": ("layers of the base model are repeated", "a model that has as many layers as it needs"),
}
"""Fields that make another model of the base: how, and what to train instead."""

REFUSED = {
    "lora_bias": (
        "over layers without a bias the adapter can never be merged, and vLLM serves it without its bias",
        "leave it out; bias: lora_only trains the biases that the layers have",
    ),
    "loftq_config": ("it goes with init_lora_weights: loftq, which rewrites the base", "leave it out"),
    "monteclora_config": ("the policy is drawn anew at each pass, from what no checkpoint holds", "leave it out"),
    "runtime_config": ("PEFT takes an object of Python there", "leave it out"),
    "trainable_token_indices": (
        "an LM head that is tied to the embedding has its log-probabilities taken past what single tokens learn",
        "set modules_to_save: [embed_tokens], with ensure_weight_tying: true in args if the LM head is tied to it",
    ),
    "use_qalora": ("it acts on GPTQ weights only, and a run trains on others", "leave it out"),
}
"""Fields that are refused when they are set: why, and what to do instead."""


def rewrites_base(init: Any) -> bool:
    """Whether an `init_lora_weights` takes part of the base model's weights into the adapter (PiSSA and its kin)."""
    return isinstance(init, str) and init not in (*INITS, *DATA_INITS)


def check_kind(args: Mapping[str, Any], target_modules: str | Sequence[str]) -> None:
    """Refuse an adapter that does not stay the same policy, or that cannot be trained.

    Args:
        args: Fields of `peft.LoraConfig` other than `target_modules`.
        target_modules: As in `peft.LoraConfig`.

    Raises:
        ConfigError: With the field as `where`, and what to set instead.
    """
    _check_init(args.get("init_lora_weights", True))
    for name, (why, fix) in REFUSED.items():
        if args.get(name):
            raise ConfigError(f"{args[name]!r}: {why}", expected="none", where=name, fix=fix)
    for name, (what, instead) in CHANGES_BASE.items():
        if args.get(name) is not None:
            seen = f"{args[name]!r}: {what}, so that the base which the adapter's folder names is another model"
            raise ConfigError(seen, expected="none", where=name, fix=f"leave it out, for {instead}")
    _check_head(args, [] if isinstance(target_modules, str) else target_modules)


def _check_init(init: Any) -> None:
    if init in INITS:
        return
    seen = (
        f"{init!r} takes part of the base model's weights into the adapter, so that the base which the adapter's "
        "folder names is another model"
        if rewrites_base(init)
        else f"{init!r} is computed from data, which no stage does: the adapter would be a plain one"
    )
    expected, fix = "true, false, gaussian, orthogonal or mica", "set orthogonal, or leave it out"
    if init in SPLITS_BASE:
        fix = f"leave it out and set lora.kind: {init}, which keeps what is left of the base as a model of the run"
    raise ConfigError(seen, expected=expected, where="init_lora_weights", fix=fix)


def _check_head(args: Mapping[str, Any], targets: Sequence[str]) -> None:
    if head := [name for name in [*targets, *(args.get("target_parameters") or ())] if names(name, HEADS)]:
        raise ConfigError(
            f"an adapter on {head[0]}: log-probabilities are taken from the LM head's own weight, past the adapter",
            expected="other layers, such as all-linear, which leaves the LM head out",
            where="target_modules" if head[0] in targets else "target_parameters",
            fix=f"leave it out, or train it as a whole: modules_to_save: [{head[0].removesuffix('.weight')}]",
        )
    if args.get("ensure_weight_tying") and (tied := [name for name in targets if names(name, EMBEDDINGS)]):
        raise ConfigError(
            f"true, with {tied[0]} in target_modules: the adapter goes on the LM head, too, where it is passed over",
            expected="true with the embedding in modules_to_save, or false",
            where="ensure_weight_tying",
            fix=f"leave {tied[0]} out of target_modules and set modules_to_save: [{tied[0]}]",
        )


def check_saved(config: Mapping[str, Any], where: str) -> None:
    """Refuse an adapter's folder whose base is not the model that it names.

    Args:
        config: Its adapter_config.json.
        where: The folder.

    Raises:
        ConfigError: With how to save it otherwise.
    """
    init = config.get("init_lora_weights")
    named = [f"init_lora_weights {init!r}"] * rewrites_base(init)
    named += [name for name in CHANGES_BASE if config.get(name) is not None]
    if named:
        raise ConfigError(
            f"an adapter with {named[0]}: it was trained on another base than the one that its folder names, and "
            "PEFT makes that anew, perhaps otherwise, whenever it is loaded",
            expected="an adapter on the base as it is",
            where=where,
            fix="where it was trained, save it as plain LoRA (PEFT's save_pretrained with "
            "path_initial_model_for_weight_conversion), or merge it and start from the merged model",
        )


def check_trains_on(config: Mapping[str, Any], *, beta: float, where: str) -> None:
    """Refuse an adapter's folder that `check_saved` lets through, but that training cannot go on from.

    Args:
        config: Its adapter_config.json.
        beta: The weight of the hybrid stage's penalty, 0 without that stage.
        where: The key that names the folder.

    Raises:
        ConfigError: With what to begin from instead.
    """
    targets = config.get("target_modules") or []
    try:
        _check_head(config, [] if isinstance(targets, str) else targets)
    except ConfigError as error:
        raise ConfigError(f"its {error.where}: {error.seen}", expected=error.expected, where=where) from error
    if config.get("trainable_token_indices"):
        name = "trainable_token_indices"
        raise ConfigError(f"its {name}: {REFUSED[name][0]}", expected="an adapter without", where=where)
    if beta and config.get("bias", "none") != "none":
        seen, expected = one_bias(config["bias"], beta)
        raise ConfigError(f"its bias: {seen}", expected=expected, where=where, fix="set hybrid.grpo.beta to 0")


def one_bias(bias: str, beta: float) -> tuple[str, str]:
    """What is seen and what is expected where an adapter that trains biases has a reference."""
    return f"{bias!r}, and hybrid.grpo.beta {beta:g}: its reference would be a second adapter with a bias", (
        "PEFT allows one at a time"
    )


def names(name: str, modules: tuple[str, ...]) -> bool:
    """Whether the name of a module or of its weight ends in one of these."""
    return name.removesuffix(".weight").rpartition(".")[2] in modules
