"""Policies and tokenizers: loaded from a hub or a folder, or built small from scratch on a task's own texts.

Loading runs no code that a model brings, unless it is trusted by name, and reads no weights but safetensors (and GGUF):
any other file of weights is a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import AutoPeftModelForCausalLM
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from posttrain.errors import ConfigError
from posttrain.models.four_bit import loading_options, without_cpu_shortcut
from posttrain.models.generation import make_savable
from posttrain.models.gguf_model import gguf_policy, gguf_tokenizer
from posttrain.processes.zero import load_whole
from posttrain.recipe.adapter_kinds import check_saved
from posttrain.recipe.model_sections import GGUF_SUFFIX

END, PAD = "<|end|>", "<|pad|>"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

WORDS = r"<[^<>\s]+>| ?[A-Za-z]+|[0-9]| ?(?:(?!<[^<>\s]+>)[^\sA-Za-z0-9])+|\s+"
"""A tag, a word with the space before it, one digit, other signs, or white space: what a token never crosses."""

CONVERSATION = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}" + END + "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""The chat template of a model from scratch: a tag for whose turn it is, and the end of sequence after each turn."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `texts`: about a token a word on templated text, and never an unknown.

    Args:
        texts: Prompts and completions of the task; the order does not matter, the counts do.
        vocab_size: Upper bound of the vocabulary, the 256 bytes and two special tokens included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def tokenizer_from_rows(rows: Iterable[Mapping[str, Any]], vocab_size: int) -> PreTrainedTokenizerFast:
    """The tokenizer of a model from scratch, trained on what the rows say.

    It has a chat template, a plain one, where some rows are conversations, and none where all are text.

    Args:
        rows: Each with a `prompt` and perhaps a `completion`, text or messages.
        vocab_size: As of `train_tokenizer`.
    """
    rows = list(rows)
    texts = [_written(row["prompt"]) + _written(row.get("completion") or "") for row in rows]
    tokenizer = train_tokenizer(texts, vocab_size)
    if any(not isinstance(row["prompt"], str) for row in rows):
        tokenizer.chat_template = CONVERSATION
    return tokenizer


def _written(part: Any) -> str:
    if isinstance(part, str):
        return part
    return "".join(f"<|{message['role']}|>{message['content']}" for message in part)


def build_model(
    tokenizer: PreTrainedTokenizerBase,
    *,
    hidden_size: int,
    layers: int,
    heads: int,
    intermediate_size: int | None = None,
    max_position_embeddings: int = 1024,
    seed: int = 0,
) -> LlamaForCausalLM:
    """A Llama-style model with random weights that depend on `seed` alone.

    Args:
        tokenizer: Gives the size of the vocabulary and the end and padding tokens.
        hidden_size: Width of the residual stream.
        layers: Decoder layers.
        heads: Attention heads; must divide `hidden_size`.
        intermediate_size: Width of the gated MLP; 4 * hidden_size if `None`.
        max_position_embeddings: Longest sequence, prompt and completion.
        seed: Of the weights.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size or 4 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=max_position_embeddings,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def load_tokenizer(source: str | Path, *, trust_remote_code: bool = False, **options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub id, folder or GGUF file, padding left, its end of sequence as padding if it has none."""
    if str(source).lower().endswith(GGUF_SUFFIX):
        return gguf_tokenizer(Path(source))
    tokenizer = AutoTokenizer.from_pretrained(
        source, padding_side="left", trust_remote_code=trust_remote_code, **options
    )
    if set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids):  # transformers makes one up
        raise ConfigError(
            f"{str(source)!r} has no tokenizer",
            expected="the tokenizer's files beside config.json and the weights, tokenizer.json among them",
            where="model",
            fix="save the tokenizer there: tokenizer.save_pretrained(FOLDER)",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(
    source: str | Path,
    *,
    dtype: str = "float32",
    trainable: bool = True,
    trust_remote_code: bool = False,
    four_bit: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """A causal LM of a hub id, folder or GGUF file; a folder with an adapter gives its base model with that on top.

    With `four_bit` the base's linear layers are held in 4 bits (see `four_bit.loading_options`); never a GGUF file's.

    Raises:
        ConfigError: The weights are a pickle, or the model's configuration names code of the hub and is not trusted;
            or they are to be held in 4 bits, and bitsandbytes is not installed.
    """
    folder = Path(source)
    if str(source).lower().endswith(GGUF_SUFFIX):
        return gguf_policy(folder, dtype=dtype)
    check_model_files(source, trust_remote_code=trust_remote_code, revision=options.get("revision"))
    # Said outright: left out, transformers asks at the terminal
    options |= {"dtype": dtype, "trust_remote_code": trust_remote_code, "use_safetensors": True}
    if four_bit is not None:
        options |= loading_options(four_bit, dtype)
    load_whole()
    if (folder / ADAPTER_CONFIG).is_file():
        model = AutoPeftModelForCausalLM.from_pretrained(folder, is_trainable=trainable, **options)
    else:
        model = AutoModelForCausalLM.from_pretrained(source, **options)
    make_savable(getattr(model, "generation_config", None))
    return without_cpu_shortcut(model)


def config_of(source: str | Path, **options: Any) -> PreTrainedConfig:
    """The configuration of a hub id or folder; of an adapter, that of its base model."""
    source, options = of_base(source, options)
    return AutoConfig.from_pretrained(source, **options)


def of_base(source: str | Path, options: dict[str, Any]) -> tuple[str | Path, dict[str, Any]]:
    """What to load from, and with which options: of an adapter its base model in the revision that it names."""
    file = Path(source) / ADAPTER_CONFIG
    if not file.is_file():
        return source, options
    adapter = json.loads(file.read_text())
    return adapter["base_model_name_or_path"], {**options, "revision": adapter.get("revision")}


def check_model_files(source: str | Path, *, trust_remote_code: bool = False, revision: str | None = None) -> None:
    """Refuse what is not trusted, before any weights are read.

    Raises:
        ConfigError: An adapter's weights are a pickle, or it stands on another base than it names; or the configuration
            has transformers download a kernel: code, of which `auto_map` knows nothing.
        ValueError: The model brings code of its own.
    """
    folder = Path(source)
    if (folder / ADAPTER_CONFIG).is_file():
        if not (folder / ADAPTER_WEIGHTS).is_file():
            raise ConfigError(
                f"{folder} holds an adapter without {ADAPTER_WEIGHTS}",
                expected="weights as safetensors: adapter_model.bin is a pickle, which can run code when it is read",
                where="model",
                fix="convert it where you trust it: load it with PEFT and save it again",
            )
        adapter = json.loads((folder / ADAPTER_CONFIG).read_text())
        check_saved(adapter, str(folder))
        source, revision = adapter["base_model_name_or_path"], adapter.get("revision")
    if trust_remote_code:
        return
    config, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
    for key, value in _leaves(config):
        if "attn_implementation" in key and "/" in str(value):
            raise ConfigError(
                f"the model's config.json asks for {value!r}: a kernel of the hub, code that is downloaded",
                expected="a model that transformers can run by itself",
                where="model",
                fix="remove it from config.json, or set model.trust_remote_code: true if you trust its owner",
            )
    AutoConfig.from_pretrained(source, trust_remote_code=False, revision=revision)


def quantised_by(source: str | Path, *, revision: str | None = None) -> str | None:
    """The method that a model's weights were quantised by before they were saved, such as `bitsandbytes`."""
    config, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
    return (config.get("quantization_config") or {}).get("quant_method")


def _leaves(config: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value
