"""Which tokens end a completion, known before the weights are loaded; and the end that a recipe names itself."""

from __future__ import annotations

from typing import Any

from posttrain.errors import ConfigError
from posttrain.models.gguf_files import gguf_file
from posttrain.models.load import of_base
from posttrain.recipe.recipe import Recipe


def with_own_end(tokenizer: Any, recipe: Recipe) -> Any:
    """The tokenizer with `warmup.args.eos_token` as its end of sequence, where the recipe names one.

    Set in both stages and whatever is resumed: demonstrations end in it, completions do, and it is saved.

    Raises:
        ConfigError: The vocabulary has no such token.
    """
    end = recipe.warmup.args.get("eos_token")
    if end is None:
        return tokenizer
    if end not in tokenizer.get_vocab():
        special = ", ".join(map(repr, tokenizer.all_special_tokens))
        raise ConfigError(
            f"the model's vocabulary has no token {end!r}",
            expected=f"a token of it; this model's special ones are {special}",
            where=recipe.where("warmup.args.eos_token"),
            fix="name one that the chat template puts behind an answer",
        )
    tokenizer.eos_token = end
    return tokenizer


def ends_of(recipe: Recipe, tokenizer: Any, **options: Any) -> list[int]:
    """Every token that ends a completion of a recipe's model: its tokenizer's end, and those that it declares.

    Args:
        recipe: Names the model.
        tokenizer: The model's, as `with_own_end` gives it.
        options: `local_files_only`, to ask no hub.
    """
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    name = recipe.model.name
    if not name or gguf_file(name) is not None:  # made with the tokenizer's
        return own
    return list(dict.fromkeys([*own, *_declared(name, {"revision": recipe.model.revision, **options})]))


def _declared(source: str, options: dict[str, Any]) -> list[int]:
    """As the loaded model's generation config has them."""
    from transformers import AutoConfig, GenerationConfig

    place, options = of_base(source, options)
    try:
        config = GenerationConfig.from_pretrained(place, **options)
    except OSError:  # it has none, so that transformers makes it from the model's own
        config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(place, **options))
    ends = config.eos_token_id
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
