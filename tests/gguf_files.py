"""GGUF files as llama.cpp's converter writes them, of models small enough to build in a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = ["Ann has 12 eggs\n\n3 hens  and 4 ducks\n", "it's 10:30 and  we'll see\n\n\n", "x = 7\n    y = 42\n"] * 3
NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def byte_level_bpe(pre_tokenizer: Any, vocab_size: int = 300) -> Tokenizer:
    """A tokenizer with the control tokens first, trained on `TEXTS`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=CONTROLS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def tiny_llama(vocab_size: int) -> LlamaForCausalLM:
    """Grouped heads and widths that differ, so that a mistaken shape or order shows."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, rope_theta=10000.0, rms_norm_eps=1e-5,
            tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip


def write_gguf(
    file: Path,
    tokenizer: Tokenizer,
    model: LlamaForCausalLM,
    *,
    pre: str = "smollm",
    kind: str = "gpt2",
    quantized: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    without: str = "",
    more: Mapping[str, int] | None = None,
) -> Path:
    """Write model and tokenizer; weights (not norms) as `quantized`, the tensor `without` left out."""
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(pre)
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_token_list([token for token, _ in vocab])
    writer.add_token_types([3 if token in CONTROLS else 1 for token, _ in vocab])
    writer.add_token_merges(_merges(tokenizer))
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, value in (more or {}).items():
        writer.add_uint16(name, value)
    for name, values in _tensors(model):
        if name == without:
            continue
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _merges(tokenizer: Tokenizer) -> list[str]:
    import json

    return [" ".join(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def _tensors(model: LlamaForCausalLM) -> list[tuple[str, np.ndarray]]:
    config, found = model.config, []
    for name, values in model.state_dict().items():
        array, name = values.float().numpy(), name.removesuffix(".weight")
        if name.endswith("q_proj"):
            array = _interleaved(array, config.num_attention_heads)
        if name.endswith("k_proj"):
            array = _interleaved(array, config.num_key_value_heads)
        if name.startswith("model.layers."):
            layer, part = name.removeprefix("model.layers.").split(".", 1)
            found.append((f"blk.{layer}.{NAMES[part]}.weight", array))
        elif name in ("model.embed_tokens", "model.norm"):
            found.append(("token_embd.weight" if "embed" in name else "output_norm.weight", array))
    return found


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows in the order of llama.cpp's rotary embedding: the two halves of a head in turns."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))
