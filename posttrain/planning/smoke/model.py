"""The model of a smoke test: the recipe's architecture, tokenizer and vocabulary, a few tiny layers, random weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from posttrain.errors import ConfigError, PosttrainError
from posttrain.inputs.ends import with_own_end
from posttrain.inputs.inputs import check_model, hub_options, loading
from posttrain.models.generation import make_savable
from posttrain.models.gguf_files import gguf_file
from posttrain.models.gguf_reading import sharing
from posttrain.models.load import ADAPTER_CONFIG, build_model, load_tokenizer, tokenizer_from_rows
from posttrain.recipe.recipe import Recipe
from posttrain.running.policies import save_whole
from posttrain.tasks import TaskData

HEAD = 8
"""Width of an attention head."""
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
           "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}  # fmt: skip
RANKS = {"q_lora_rank": HEAD, "kv_lora_rank": HEAD, "qk_rope_head_dim": HEAD, "qk_nope_head_dim": HEAD,
         "v_head_dim": HEAD}  # fmt: skip
_MOST_PARAMETERS = 400e6  # of an architecture that only its number of layers could be made smaller of


def model_source(recipe: Recipe) -> str:
    """What the recipe calls its model, in words."""
    section = recipe.model
    return "model.init" if section.init else str(section.gguf or section.name)


def load_parts(recipe: Recipe, data: TaskData) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    """Configuration and tokenizer of the recipe's model, without its weights.

    Args:
        recipe: The recipe.
        data: All of its rows: what a model from scratch has its tokenizer trained on.

    Raises:
        ConfigError: They cannot be read, or fetched.
    """
    if (init := recipe.model.init) is not None:
        tokenizer = tokenizer_from_rows([*data.demonstrations, *data.train], init.vocab_size)
        with torch.device("meta"):
            return build_model(tokenizer, **init.model_dump(exclude={"vocab_size"})).config, tokenizer
    name, where = recipe.model.gguf or recipe.model.name or "", recipe.where("model")
    if file := gguf_file(name, where):
        with loading(file, where):
            tokenizer = with_own_end(load_tokenizer(file), recipe)
            with sharing(file):
                config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
            config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
            return config, tokenizer
    try:
        check_model(recipe)  # whose code is not trusted: first, for building the tiny model would run it
        with loading(name, where):
            base = _adapter(name).base_model_name_or_path if _is_adapter(name) else name
            options = hub_options(recipe)
            tokenizer = with_own_end(load_tokenizer(name, **options), recipe)
            return AutoConfig.from_pretrained(base, **options), tokenizer
    except ConfigError as error:
        if error.fix is None or not error.fix.startswith("correct the name, or download"):
            raise
        raise ConfigError(
            error.seen.replace("cannot be loaded", "has a configuration or a tokenizer that cannot be loaded"),
            expected="config.json and the tokenizer's files, in a folder, at the hub or in its cache; no weights",
            where=where,
            fix="correct the name; or where there is a network: hf download NAME --include '*.json' '*.txt' '*.jinja' "
            "'*.model' --local-dir FOLDER, and then model=FOLDER",
        ) from error


def save_tiny(
    folder: Path, recipe: Recipe, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> tuple[Any, list[str]]:
    """Write the tiny model into `folder`.

    Returns:
        The model, and what it leaves out of the original, in words.

    Raises:
        ConfigError: No model of the architecture could be built.
        CheckpointError: It cannot be written.
    """
    left_out = []
    if getattr(config, "quantization_config", None) is not None:
        left_out.append("the model's quantization")
    trusted = recipe.model.trust_remote_code
    model, why = None, []
    for small in (shrunk(config), fewer_layers(config)):
        try:
            torch.manual_seed(recipe.run.seed)
            candidate = _built(small, trusted)
            with torch.no_grad():
                candidate(input_ids=torch.arange(4)[None])
        except PosttrainError:
            raise
        except Exception as error:
            why.append(f"{type(error).__name__}: {error}")
            continue
        model = candidate
        break
    if model is None:
        raise ConfigError(
            f"no tiny model of the architecture {config.model_type} can be built: {' | '.join(why)}",
            expected="a causal language model of transformers, which runs on a CPU",
            where=recipe.where("model"),
            fix="if it is one, a smoke test has no way to make it small: test the recipe with a small model of a "
            "related kind, by model=NAME",
        )
    if why:
        left_out.append(f"a narrow model: of {config.model_type} only the number of layers was made smaller")
    name = recipe.model.name or ""
    if name and not gguf_file(name):
        with suppress(OSError, ValueError):  # it may have none
            source = _adapter(name).base_model_name_or_path if _is_adapter(name) else name
            model.generation_config = GenerationConfig.from_pretrained(source, **_revision(recipe))
            make_savable(model.generation_config)
    if _is_adapter(name):
        base = folder.with_name(f"{folder.name}-base")
        save_whole(base, model, tokenizer)
        adapter = _adapter(name)
        adapter.base_model_name_or_path, adapter.revision, adapter.inference_mode = str(base.resolve()), None, False
        model = get_peft_model(model, adapter)
    save_whole(folder, model, tokenizer)
    return model, left_out


def shrunk(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy with narrow layers and few of them; vocabulary, positions, and what is grouped or shared stay."""
    small = fewer_layers(config)
    text = small.get_text_config()
    heads = text.num_attention_heads
    grouped = getattr(text, "num_key_value_heads", None) or heads
    head = _head(text)
    text.num_attention_heads, groups = (2, 2) if grouped == heads else (2, 1) if grouped == 1 else (4, 2)
    if hasattr(text, "num_key_value_heads"):
        text.num_key_value_heads = groups
    text.hidden_size = text.num_attention_heads * head
    if getattr(text, "head_dim", None):
        text.head_dim = head
    sizes = {"intermediate_size": 2, "n_inner": 4, "moe_intermediate_size": 1, "shared_expert_intermediate_size": 1}
    for name, factor in sizes.items():
        if getattr(text, name, None):
            setattr(text, name, factor * text.hidden_size)
    for name, most in {**EXPERTS, **RANKS}.items():
        if getattr(text, name, None):
            setattr(text, name, min(getattr(text, name), most))
    return small


def fewer_layers(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy with two layers, or one of each kind if there are more kinds."""
    small = copy.deepcopy(config)
    if getattr(small, "quantization_config", None) is not None:
        del small.quantization_config
    text = small.get_text_config()
    kinds: Iterable[str] | None = getattr(text, "layer_types", None)
    layers = min(text.num_hidden_layers, 2)
    if kinds:
        each = list(dict.fromkeys(kinds))
        layers = max(layers, len(each))
        text.layer_types = (each * layers)[:layers]
    text.num_hidden_layers = layers
    if getattr(text, "max_window_layers", None):
        text.max_window_layers = min(text.max_window_layers, layers)
    return small


def _head(text: PreTrainedConfig) -> int:
    """The width of a head; kept where the rotary embedding has numbers for each of its places."""
    own = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    rope = str(getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or "")
    return own if any(name in rope for name in ("short_factor", "mrope_section")) else min(own, HEAD)


def _built(config: PreTrainedConfig, trusted: bool) -> Any:
    config.dtype = torch.float32
    with torch.device("meta"):
        size = sum(each.numel() for each in AutoModelForCausalLM.from_config(config, **_trust(trusted)).parameters())
    if size > _MOST_PARAMETERS:
        raise ValueError(f"{size / 1e6:.0f} million parameters, more than a smoke test can train in its time")
    return AutoModelForCausalLM.from_config(config, **_trust(trusted)).float().eval()


def _trust(trusted: bool) -> dict[str, Any]:
    return {"trust_remote_code": True} if trusted else {}


def _revision(recipe: Recipe) -> dict[str, Any]:
    return {"revision": recipe.model.revision} if recipe.model.revision else {}


def _is_adapter(name: str) -> bool:
    return bool(name) and (Path(name) / ADAPTER_CONFIG).is_file()


def _adapter(name: str) -> Any:
    return PeftConfig.from_pretrained(name)
