"""The model of a recipe without its weights: configuration, tokenizer, and how many parameters train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain.errors import ConfigError
from posttrain.inputs.inputs import hub_options, loading
from posttrain.inputs.misfits import continues_an_adapter
from posttrain.models.cost_counts import ModelShape
from posttrain.models.gguf_files import PACKAGED, gguf_file
from posttrain.models.gguf_reading import read_once
from posttrain.planning.padded import padded_of
from posttrain.recipe.recipe import Recipe

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FOUR_BIT_BYTES = {False: 1 / 2 + 4 / 64, True: 1 / 2 + 1 / 64 + 4 / (64 * 256)}
"""Of a weight in 4 bits with its share of the scales: a float32 for 64 weights, or nested, a byte for 64 and a float32
for 256 of those."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of a model before its weights are loaded.

    Attributes:
        kind: `model_type` of its configuration.
        parameters: All of them, an adapter's not counted.
        trained: Parameters that train: all, or an adapter's.
        weight_bytes: Of one of `parameters` that is not in 4 bits.
        four_bit: How many of `parameters` are held in 4 bits.
        four_bit_bytes: Of one of those.
        old_bytes: Of the weights of the old model that `warmup.muscle` names; 0: none, or not known.
        trained_bytes: Of one of `trained`: adapters stay in float32.
        positions: Longest sequence it takes; None: not said.
        shape: For counting work; None for a model whose work is not counted (a mixture of experts).
        uncounted: Why there is no shape.
        padded: Why rows will be padded, by moment (`warmup`, `sft`, `grpo`); at others they are packed.
    """

    kind: str
    parameters: int
    trained: int
    weight_bytes: int
    trained_bytes: int
    positions: int | None
    shape: ModelShape | None
    uncounted: str = ""
    padded: dict[str, str] = field(default_factory=dict)
    four_bit: int = 0
    four_bit_bytes: float = 0.0
    old_bytes: float = 0.0

    @property
    def base_bytes(self) -> float:
        """Of all `parameters`."""
        return (self.parameters - self.four_bit) * self.weight_bytes + self.four_bit * self.four_bit_bytes

    @property
    def has_adapter(self) -> bool:
        """Whether less than the whole model trains."""
        return self.trained < self.parameters


def is_hub_id(recipe: Recipe) -> bool:
    """Whether the recipe's model is to come from the hub."""
    name = recipe.model.name
    return bool(name) and not gguf_named(name) and not _is_path(str(name))


def is_absent(recipe: Recipe, *, offline: bool) -> bool:
    """Whether a model that cannot be read is merely not here: on the hub without a network, a folder that an earlier
    run will write, a package that is not installed."""
    return name_is_absent(recipe.model.gguf or recipe.model.name or "", offline=offline)


def name_is_absent(name: str, *, offline: bool) -> bool:
    """As `is_absent`, of what a key names."""
    hub = bool(name) and not gguf_named(name) and not _is_path(name)
    return name in PACKAGED or (offline if hub else not Path(name).expanduser().exists())


def gguf_named(name: str | None) -> bool:
    """Whether a name stands for a GGUF file."""
    return bool(name) and (name in PACKAGED or str(name).lower().endswith(".gguf"))


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).is_dir()


def tokenizer_of(recipe: Recipe, rows: Sequence[Mapping[str, Any]], *, offline: bool = False) -> Any:
    """The model's tokenizer, as the run will have it.

    Args:
        recipe: The recipe.
        rows: Demonstrations and prompts, of which a model from scratch gets its tokenizer.
        offline: Ask no hub.

    Raises:
        ConfigError: It cannot be had.
    """
    from posttrain.inputs.ends import with_own_end
    from posttrain.models.load import load_tokenizer, tokenizer_from_rows

    if recipe.model.init is not None:
        return with_own_end(tokenizer_from_rows(rows, recipe.model.init.vocab_size), recipe)
    name, where = recipe.model.gguf or recipe.model.name or "", recipe.where("model")
    file = gguf_file(name, where)
    with loading(file or name, where):
        tokenizer = load_tokenizer(file or name, **hub_options(recipe), **_local(file, offline))
    return with_own_end(tokenizer, recipe)


def config_of(recipe: Recipe, tokenizer: Any, *, offline: bool = False) -> Any:
    """The model's configuration: of the hub or a folder, of a GGUF file's header, or of `init`.

    Raises:
        ConfigError: It cannot be had.
    """
    from transformers import AutoConfig

    if recipe.model.init is not None:
        return _config_from_scratch(recipe, tokenizer)
    name, where = recipe.model.gguf or recipe.model.name or "", recipe.where("model")
    file = gguf_file(name, where)
    with loading(file or name, where):
        if file is not None:
            with read_once():
                return AutoConfig.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
        if (Path(name) / "adapter_config.json").is_file():
            from peft import PeftConfig

            name = PeftConfig.from_pretrained(name).base_model_name_or_path
        return AutoConfig.from_pretrained(name, **hub_options(recipe), **_local(file, offline))


def _local(file: Path | None, offline: bool) -> dict[str, bool]:
    return {"local_files_only": True} if offline and file is None else {}


def _config_from_scratch(recipe: Recipe, tokenizer: Any) -> Any:
    from posttrain.models.load import build_model

    init = recipe.model.init
    assert init is not None
    with _on_meta():
        return build_model(tokenizer, **init.model_dump(exclude={"vocab_size"})).config


def _on_meta() -> Any:
    import torch

    return torch.device("meta")  # not accelerate's init_empty_weights, which counts tied weights twice


def describe_model(recipe: Recipe, config: Any, *, on_gpu: bool) -> ModelFacts:
    """Sizes of a model of a configuration, counted on a copy of it without memory (the `meta` device).

    Args:
        recipe: Says what trains and in which dtype.
        config: Of the model.
        on_gpu: Whether it will compute on a GPU: there the base of an adapter is in bfloat16 (see `Policies`).

    Raises:
        ConfigError: transformers does not know the architecture, or the adapter does not fit it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = recipe.model.dtype
    if dtype == "auto":
        dtype = "bfloat16" if on_gpu and recipe.lora else "float32"
    with loading(recipe.model.name or recipe.model.gguf or "init", recipe.where("model")), _on_meta():
        model = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype), trust_remote_code=recipe.model.trust_remote_code
        )
    parameters, section = model.num_parameters(), recipe.model
    four_bit = _linear(model) if section.load_in_4bit else 0
    trained, trained_bytes = parameters, BYTES[dtype]
    if recipe.lora or continues_an_adapter(recipe):
        model = _adapted(recipe, model)
        trained, trained_bytes = sum(each.numel() for each in model.parameters() if each.requires_grad), 4
    shape, uncounted = None, ""
    try:
        shape = ModelShape.of(config)
    except (ConfigError, AttributeError) as error:
        uncounted = error.seen if isinstance(error, ConfigError) else str(error)
    text = config.get_text_config()
    return ModelFacts(
        kind=str(getattr(config, "model_type", "")),
        parameters=parameters,
        trained=trained,
        weight_bytes=BYTES[dtype],
        trained_bytes=trained_bytes,
        positions=getattr(text, "max_position_embeddings", None),
        shape=shape,
        uncounted=uncounted,
        padded=padded_of(recipe, model),
        four_bit=four_bit,
        four_bit_bytes=FOUR_BIT_BYTES[section.use_bnb_nested_quant] if four_bit else 0.0,
    )


def old_bytes(recipe: Recipe, config: Any, *, on_gpu: bool) -> float:
    """What the weights of the model that `warmup.muscle` names take, held as the policy's base is.

    Args:
        recipe: The recipe.
        config: The old model's.
        on_gpu: As for `describe_model`.
    """
    section = recipe.warmup.muscle
    assert section is not None
    named = recipe.model.model_copy(update={"name": section.old, "revision": section.revision})
    some = recipe.model_copy(update={"model": named})
    facts = describe_model(some, config, on_gpu=on_gpu)
    adapter = facts.trained * facts.trained_bytes if continues_an_adapter(some) else 0
    return facts.base_bytes + adapter


def _linear(model: Any) -> int:
    """Weights of linear layers but the LM head's: what is held in 4 bits."""
    from torch import nn

    head = model.get_output_embeddings()
    linear = (each for each in model.modules() if isinstance(each, nn.Linear) and each is not head)
    return sum(each.weight.numel() for each in linear)


def _adapted(recipe: Recipe, model: Any) -> Any:
    """A model with the recipe's adapter on it, or with the one that it goes on training."""
    from peft import PeftConfig, get_peft_model

    from posttrain.models.new_adapter import adapter_config

    try:
        if recipe.lora is None:
            saved = PeftConfig.from_pretrained(str(recipe.model.name))
            saved.inference_mode = False
            with _on_meta():
                return get_peft_model(model, saved)
        with _on_meta():
            return get_peft_model(model, adapter_config(recipe.lora.peft_kwargs()))
    except ValueError as error:
        seen = " ".join(str(error).split())[:300]
        raise ConfigError(f"the adapter does not fit the model: {seen}", where=recipe.where("lora")) from error
