"""An adapter added to the weights of its base model, and weights in another dtype."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from posttrain.errors import CheckpointError, ConfigError
from posttrain.models.ends import declare_end
from posttrain.models.four_bit import is_four_bit
from posttrain.models.load import load_policy, load_tokenizer
from posttrain.models.policy_weights import base_model, check_weights, is_tied, named_weights

SHARD = "5GB"
EXACT = 1e-3
"""How far logits may be apart, relative to the largest: far above float32's round-off, far below any real mistake."""


def merge(
    source: Path, folder: Path, *, trust_remote_code: bool = False, four_bit: dict[str, Any] | None = None
) -> str:
    """Write the base model of an adapter with the adapter added, in float32, and check it by its logits.

    An adapter on the embedding or the LM head parts the two where the base ties them, and the merged model has both.
    A base that was held in 4 bits is merged as what these stand for, with which the adapter was trained and evaluated;
    on the weights that they were made from it would be another model.

    Args:
        source: The adapter's folder.
        folder: Where config.json, generation_config.json and the weights are written.
        trust_remote_code: Of the base model.
        four_bit: How the base was held in 4 bits, as `load_policy` takes it.

    Returns:
        How close the merged model's logits are to the adapter's, in a sentence.

    Raises:
        CheckpointError: They are not the same but for round-off.
        ConfigError: An adapter of a kind that cannot be merged; or the base was held in 4 bits, and bitsandbytes is not
            installed or the adapter is no plain LoRA.
    """
    model = load_policy(
        source, dtype="float32", trainable=False, trust_remote_code=trust_remote_code, four_bit=four_bit
    ).eval()
    quantised = is_four_bit(model)
    base = base_model(model)
    ids = _tokens(base.config.get_text_config().vocab_size)
    with torch.no_grad():
        expected = model(ids).logits.float()
    if (source / "tokenizer_config.json").is_file():
        declare_end(base, load_tokenizer(source, trust_remote_code=trust_remote_code))
    config, generation = base.config, getattr(base, "generation_config", None)
    try:
        check_weights(model)
    except ConfigError as error:  # DoRA and others, which PEFT itself knows how to merge
        if quantised:  # to which PEFT would round the sum again
            raise ConfigError(
                f"{error.seen}; and its base was held in 4 bits",
                expected="plain LoRA, and modules_to_save",
                where="--merge-lora",
                fix="export the adapter as it is, without --merge-lora",
            ) from error
        model = _merged_by_peft(model)
    config.tie_word_embeddings = is_tied(model)
    if quantised:
        del config.quantization_config
    save_torch_state_dict(dict(named_weights(model)), folder, max_shard_size=SHARD)
    config.save_pretrained(folder)
    if generation is not None:
        generation.save_pretrained(folder)
    del model, base
    gc.collect()  # two whole models at a time may be more than fits
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", trust_remote_code=trust_remote_code).eval()
    with torch.no_grad():
        apart = float((merged(ids).logits.float() - expected).abs().max())
    largest = float(expected.abs().max())
    if not apart <= EXACT * largest:
        raise CheckpointError(
            f"the merged model's logits differ from the adapter's by {apart:.2g}, of {largest:.3g} at most",
            expected="differences of float32's round-off",
            where=str(source),
            fix="export the adapter as it is, without --merge-lora, and report this",
        )
    how = "in float32, onto what the 4 bits of the base stand for" if quantised else "in float32"
    return f"merged {how}: logits differ from the adapter's by {apart:.1e} at most (the largest is {largest:.3g})"


def _merged_by_peft(model: Any) -> Any:
    base = base_model(model)
    head = base.get_output_embeddings()
    if base.config.get_text_config().tie_word_embeddings and not is_tied(model):
        # PEFT adds an adapter to the very tensor that the LM head and the embedding share
        head = getattr(head, "token_adapter", head)
        inner = getattr(head, "base_layer", getattr(head, "original_module", head))
        inner.weight = torch.nn.Parameter(inner.weight.detach().clone(), requires_grad=False)
    try:
        return model.merge_and_unload(safe_merge=True)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the adapter is of a kind that PEFT cannot merge: {error}",
            expected="plain LoRA, DoRA, or modules that train as a whole",
            where="--merge-lora",
            fix="export the adapter as it is, without --merge-lora",
        ) from error


def _tokens(vocabulary: int) -> torch.Tensor:
    """(2, 16) token ids, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (2, 16), generator=generator)


def cast(folder: Path, dtype: str) -> None:
    """Rewrite the floating point weights of a folder in another dtype, a file at a time, and say so in config.json.

    Raises:
        CheckpointError: A weight that was finite is not in that dtype, as float16 ends at 65504.
    """
    wanted = getattr(torch, dtype)
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        fewer = {name: _as(wanted, name, each) if each.is_floating_point() else each for name, each in tensors.items()}
        save_file(fewer, path, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        value: dict[str, Any] = json.loads(index.read_text())
        value.get("metadata", {}).pop("total_size", None)
        index.write_text(json.dumps(value, indent=2))
    config = folder / "config.json"
    if config.is_file():
        value = json.loads(config.read_text())
        config.write_text(json.dumps(value | {"dtype": dtype}, indent=2))


def _as(wanted: torch.dtype, name: str, tensor: torch.Tensor) -> torch.Tensor:
    found = tensor.to(wanted)
    if bool((tensor.isfinite() & ~found.isfinite()).any()):
        raise CheckpointError(
            f"the tensor {name} has finite values that are not in {str(wanted).removeprefix('torch.')}: "
            f"up to {float(tensor[tensor.isfinite()].abs().max()):.6g}",
            expected=f"values of at most {torch.finfo(wanted).max:g}",
            where="--dtype",
            fix="--dtype bfloat16, which has float32's range",
        )
    return found
