"""What of a model would end a run after hours of training, told by its configuration, tokenizer and the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain.errors import ConfigError
from posttrain.models.gguf_files import gguf_file
from posttrain.recipe.recipe import Recipe

SHOWN = 3
MODALITIES = ("image", "audio", "video")
HALF_PRECISION_FIX = "set model.dtype to float32: bf16 in the stages' args computes in bfloat16 all the same"


def misfits(recipe: Recipe, tokenizer: Any, config: Any, *, local: bool = False) -> Iterator[ConfigError]:
    """Everything of the kind.

    Args:
        recipe: Names the model.
        tokenizer: Its tokenizer.
        config: Its configuration.
        local: Ask no hub.
    """
    yield from precision_misfits(recipe)
    yield from _tokens(recipe, tokenizer, config.get_text_config())
    yield from _router_loss(recipe, config.get_text_config())
    yield from _generation(recipe, local)


def precision_misfits(recipe: Recipe) -> Iterator[ConfigError]:
    """What training weights in the recipe's dtype would ruin."""
    what = _in_model_dtype(recipe)
    if what is not None and recipe.model.dtype == "float16":
        yield ConfigError(
            f"float16, and {what} train: steps round to nothing or run over, and the model comes apart",
            expected="weights that train in float32",
            where=recipe.where("model.dtype"),
            fix="set model.dtype to float32 (auto does); fp16: true in the stages' args computes in float16",
        )


def continues_an_adapter(recipe: Recipe) -> bool:
    """Whether the model is a folder with an adapter, which goes on being trained."""
    return bool(recipe.model.name) and (Path(str(recipe.model.name)) / "adapter_config.json").is_file()


def half_precision(recipe: Recipe, *, on_gpu: bool) -> str | None:
    """What is lost where weights that train are kept in bfloat16, in words; `None` if none are."""
    dtype = recipe.model.dtype
    if dtype == "auto":
        dtype = "bfloat16" if on_gpu and recipe.lora else "float32"
    what = _in_model_dtype(recipe)
    if what is None or dtype != "bfloat16":
        return None
    rate = min((stage.learning_rate for stage in (recipe.warmup, recipe.hybrid) if stage.steps), default=0.0)
    return (
        f"{what} train in bfloat16, which has 8 bits of precision: a step at a learning rate of {rate:g} rounds to "
        "nothing for most of them"
    )


def _in_model_dtype(recipe: Recipe) -> str | None:
    """Which weights train in the dtype that the model is loaded in; PEFT keeps an adapter's own in float32."""
    if recipe.lora is None:
        return None if continues_an_adapter(recipe) else "all weights"
    return "those of lora.modules_to_save" if recipe.lora.modules_to_save else None


def _tokens(recipe: Recipe, tokenizer: Any, config: Any) -> Iterator[ConfigError]:
    if continues_an_adapter(recipe):  # PEFT resizes the base for its tokenizer
        return
    if seen := beyond_embedding(tokenizer, config):
        yield ConfigError(
            seen,
            expected=f"token ids below {config.vocab_size}",
            where=recipe.where("model"),
            fix="name one of the model's own tokens in tokenizer_config.json (pad_token may be the eos_token), or save "
            "the model with more: model.resize_token_embeddings(len(tokenizer))",
        )


def beyond_embedding(tokenizer: Any, config: Any) -> str | None:
    """Which tokens a model has no embedding for, in words; `None` if text can hold none.

    Placeholders of images and sounds are no matter: text models of a family with them have the tokenizer of all.

    Args:
        tokenizer: The model's.
        config: Its configuration of text.
    """
    size = getattr(config, "vocab_size", None)
    if size is None:
        return None
    roles = {name: getattr(tokenizer, name) for name in ("pad_token", "eos_token", "bos_token")}
    words = {token: name for name, token in roles.items()}
    beyond = sorted(
        (place, token)
        for token, place in tokenizer.get_vocab().items()
        if place >= size and (token in words or not any(kind in token for kind in MODALITIES))
    )
    if not beyond:
        return None
    named = [f"{token!r}, {place}{f' ({words[token]})' if token in words else ''}" for place, token in beyond[:SHOWN]]
    more = f" and {len(beyond) - SHOWN} more" if len(beyond) > SHOWN else ""
    return (
        f"the tokenizer has tokens that the model has no embedding for: {', '.join(named)}{more}; the model has {size}"
    )


def _router_loss(recipe: Recipe, config: Any) -> Iterator[ConfigError]:
    """Refused where the SFT half, which has none, is trained beside it or measured against it."""
    controller = recipe.hybrid.controller
    if not hasattr(config, "output_router_logits") or not (recipe.hybrid.steps and controller.shares()[0]):
        return
    compared = controller.needs_g_warmup and getattr(controller, "g_warmup", None) is None and recipe.warmup.steps
    stages = [("hybrid", recipe.hybrid), *([("warmup", recipe.warmup)] if compared else [])]
    own = getattr(config, "router_aux_loss_coef", 0.0)
    asked = {name: stage.args.get("router_aux_loss_coef") for name, stage in stages}
    on = [name for name, value in asked.items() if (own if value is None else value)]
    if on:
        yield ConfigError(
            f"a mixture of experts ({config.model_type}) with a router loss in {' and '.join(on)} (coefficient {own:g} "
            "by its configuration)",
            expected="none beside or before SFT steps: the SFT half is the likelihood alone",
            where=recipe.where(f"{on[0]}.args.router_aux_loss_coef"),
            fix=f"set {' and '.join(f'{name}.args.router_aux_loss_coef' for name in on)} to 0.0",
        )


def _generation(recipe: Recipe, local: bool) -> Iterator[ConfigError]:
    from posttrain.models.generation import generation_config, make_savable, unsavable

    name = recipe.model.name
    if not name or gguf_file(name) is not None or continues_an_adapter(recipe):
        return
    options: dict[str, Any] = {"local_files_only": True} if local else {}
    try:
        generation = generation_config(name, revision=recipe.model.revision, **options)
        make_savable(generation)
        why = unsavable(generation) if generation is not None else None
    except ValueError as error:
        why = str(error)
    if why:
        yield ConfigError(
            f"the model's generation_config.json could not be saved with the trained model: {why}",
            expected="one that transformers saves",
            where=recipe.where("model"),
            fix="correct it, or remove what it says from the model's folder (a hub id: download the model first)",
        )
