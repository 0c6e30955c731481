"""What a recipe asks for by `model.load_in_4bit`, and what cannot be had with it, said before torch is loaded."""

from __future__ import annotations

from typing import Any

from posttrain.errors import ConfigError
from posttrain.models.bitsandbytes_package import PACKAGE, check_installed
from posttrain.models.gguf_files import PACKAGED
from posttrain.recipe.model_sections import ModelSection
from posttrain.recipe.recipe import Recipe


def four_bit_options(section: ModelSection, *, on_gpu: bool) -> dict[str, Any] | None:
    """How `load_policy` is to hold the base in 4 bits; `None` where the recipe does not want that."""
    if not section.load_in_4bit:
        return None
    settings = {"quant_type": section.bnb_4bit_quant_type, "use_double_quant": section.use_bnb_nested_quant}
    return {f"bnb_4bit_{name}": value for name, value in settings.items()} | {"on_gpu": on_gpu}


def check_four_bit(recipe: Recipe) -> None:
    """Make sure that a base in 4 bits can be had here.

    Raises:
        ConfigError: bitsandbytes is not installed, or the model's name stands for a GGUF file.
    """
    section, where = recipe.model, recipe.where("model.load_in_4bit")
    if not section.load_in_4bit:
        return
    if section.name in PACKAGED:
        raise ConfigError(
            f"load_in_4bit, and {section.name} is a GGUF file: its weights were rounded once, and would be again",
            expected="the weights that the file was made from: a hub id, or a folder",
            where=where,
            fix="name those as model.name, or leave load_in_4bit out: the file is dequantised, then",
        )
    check_installed(where)


def check_saved_quantised(recipe: Recipe, method: str | None) -> None:
    """Refuse what cannot be done with weights that were quantised before they were saved.

    Args:
        recipe: Names them.
        method: What they were quantised by; `None`: they are whole.

    Raises:
        ConfigError: They would be quantised again, nothing would train, or bitsandbytes is not installed.
    """
    if method is None:
        return
    seen, where = f"the weights of {recipe.model.name} are quantised already ({method})", recipe.where("model")
    if recipe.model.load_in_4bit:
        where = recipe.where("model.load_in_4bit")
        raise ConfigError(seen, expected="whole weights, or no load_in_4bit", where=where, fix="leave it out")
    if not recipe.lora:
        fix = "add lora: {r: 16}, or name the weights that these were made from"
        raise ConfigError(seen, expected="lora: quantised weights cannot train", where=where, fix=fix)
    if method == PACKAGE:
        check_installed(where)


def check_unsharded(recipe: Recipe, sharded_by: str | None) -> None:
    """Refuse a base in 4 bits whose weights would be cut up: nobody has compared that with one that is whole.

    Args:
        recipe: The recipe.
        sharded_by: "FSDP" or "DeepSpeed"; `None` where each process has the model whole.

    Raises:
        ConfigError: With what does the same.
    """
    if recipe.model.load_in_4bit and sharded_by:
        raise ConfigError(
            f"a base in 4 bits under {sharded_by}, which has not been tested",
            expected="one process, or several with --config ddp",
            where=recipe.where("model.load_in_4bit"),
            fix="launch with --config ddp, or set it to false",
        )
