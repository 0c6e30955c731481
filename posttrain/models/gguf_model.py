"""Model and tokenizer of a GGUF file, as transformers keeps them.

The weights are transformers' own conversion, dequantised. The tokenizer is built here from what the file says:
transformers 5.17 takes the beginning of a text for its end when it reads one of a Llama, and splits digits and line
breaks otherwise than the model was trained with.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX as QWEN2

from posttrain.errors import ConfigError
from posttrain.models.gguf_reading import read, read_once

CONTROL, USER_DEFINED = 3, 4
"""Kinds of tokens (`gguf.TokenType`) that are found in a text before anything is split."""


_ENDS = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}


def _byte_level(*before: Any, use_regex: bool = True) -> Any:
    return pre_tokenizers.Sequence(
        [*before, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex, trim_offsets=False)]
    )


def _qwen2() -> Any:
    return _byte_level(pre_tokenizers.Split(Regex(QWEN2), "isolated"), use_regex=False)


PRE_TOKENIZERS = {
    "gpt-2": _byte_level,
    "smollm": lambda: _byte_level(pre_tokenizers.Digits(individual_digits=True)),
    "qwen2": _qwen2,
    "deepseek-r1-qwen": _qwen2,
}
"""How a text is split before byte pairs are merged, by the name that `tokenizer.ggml.pre` gives to it."""


def gguf_tokenizer(file: Path, where: str = "model") -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file with a byte-level BPE vocabulary: vocabulary, ends, chat template.

    Raises:
        ConfigError: This is no whole GGUF file, or its tokenizer is of a kind that is not known here.
    """
    fields = _Fields(file, where)
    kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise ConfigError(
            f"{file.name} has a tokenizer of kind {kind}, pre-tokenizer {pre}",
            expected="kind gpt2 (byte-level BPE) with the pre-tokenizer " + " or ".join(PRE_TOKENIZERS),
            where=where,
            fix="use the model's folder in the form that transformers saves, or its hub id",
        )
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.normalizer = normalizers.NFC() if "qwen" in pre else None
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields.get("tokenizer.ggml.token_type") or []
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind == CONTROL)
            for token, kind in zip(tokens, kinds, strict=False)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    ids = {end: fields.get(f"tokenizer.ggml.{name}_token_id") for end, name in _ENDS.items()}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **{f"{end}_token": tokens[index] for end, index in ids.items() if index is not None},
    )
    fast.pad_token = fast.pad_token or fast.eos_token
    fast.chat_template = fields.get("tokenizer.chat_template")
    return fast


def gguf_policy(file: Path, *, dtype: str = "float32", where: str = "model", **options: Any) -> Any:
    """The model of a GGUF file, its weights dequantised to `dtype`; saved, it is like any other.

    Raises:
        ConfigError: The file lacks weights of the model, or has its weights in several files.
        ValueError: transformers does not know the architecture.
    """
    with read_once() as known:
        fields = _Fields(file, where, known)
        if (fields.get("split.count") or 1) > 1:
            raise ConfigError(
                f"{file.name} is one of {fields['split.count']} files of a model",
                expected="one whole file",
                where=where,
                fix="merge them with llama.cpp's `llama-gguf-split --merge`",
            )
        with redirect_stderr(io.StringIO()):  # a progress bar that cannot be switched off
            model, loaded = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=dtype, output_loading_info=True, trust_remote_code=False,
                **options,
            )  # fmt: skip
    missing = sorted(loaded["missing_keys"])
    if missing:  # transformers makes them up, with a warning
        raise ConfigError(f"{file.name} has no weights for {len(missing)} tensors, the first {missing[0]}", where=where)
    del model.config.quantization_config  # the weights are not quantised any more, and would not save with it
    model.is_quantized, model.hf_quantizer = False, None
    ends = {end: fields.get(f"tokenizer.ggml.{_ENDS[end]}_token_id") for end in ("bos", "eos", "pad")}
    ends["pad"] = ends["eos"] if ends["pad"] is None else ends["pad"]
    for end, index in ends.items():
        setattr(model.config, f"{end}_token_id", index)
    model.generation_config = GenerationConfig(**{f"{end}_token_id": index for end, index in ends.items()})
    return model


class _Fields:
    """The header of a GGUF file."""

    def __init__(self, file: Path, where: str, reader: Callable[[Path], Any] = read):
        try:
            self.fields = reader(file).fields
        except (ValueError, IndexError, KeyError) as error:
            raise ConfigError(
                f"{file.name} is not a GGUF file, or not a whole one: {error}",
                where=where,
                fix="fetch it again and compare its size",
            ) from error

    def __getitem__(self, name: str) -> Any:
        return self.fields[name].contents()

    def get(self, name: str) -> Any:
        return self[name] if name in self.fields else None
