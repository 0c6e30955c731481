"""A token that pads and ends has as much of a gradient after a stage as in the source model."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from posttrain.controllers import GRPOOnly
from posttrain.inputs.data import tokenize_demonstrations
from posttrain.training.trainer import HybridTrainer
from posttrain.training.warmup import WarmupTrainer
from tests.training.conftest import COMMON, ROWS, hybrid_args, reward


@pytest.fixture
def padded_by_end(tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer without a padding token of its own, as Llama's and GPT-2's."""
    end = tokenizer.eos_token
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token=end, pad_token=end, padding_side="left"
    )


@pytest.fixture
def source(padded_by_end, tmp_path):
    """A folder with an untied model, by the padding token of its configuration."""

    def save(pad):
        config = LlamaConfig(
            vocab_size=len(padded_by_end), hidden_size=32, intermediate_size=48, num_hidden_layers=1,
            num_attention_heads=2, tie_word_embeddings=False, pad_token_id=pad, eos_token_id=padded_by_end.eos_token_id,
        )  # fmt: skip
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(tmp_path / "source")
        return tmp_path / "source"

    return save


def end_gradient(folder, end: int) -> float:
    """Norm of the gradient that the end of sequence has as an input."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([[5, end, 6, 7]])
    model(ids, labels=ids).loss.backward()
    return float(model.get_input_embeddings().weight.grad[end].norm())


def warmed(kind, model, tokenizer, folder):
    args = SFTConfig(**COMMON | {"save_strategy": "steps"}, output_dir=str(folder), max_steps=1, save_steps=1)
    trainer = kind(
        model, args, train_dataset=tokenize_demonstrations(ROWS, tokenizer), processing_class=tokenizer
    )  # fmt: skip
    trainer.train()
    trainer.save_model(folder / "trained")
    return [folder / "trained", folder / "checkpoint-1"]


def test_trl_takes_the_gradient_away(source, padded_by_end, tmp_path):
    end = padded_by_end.eos_token_id
    model = AutoModelForCausalLM.from_pretrained(source(None), dtype=torch.float32)
    saved = warmed(SFTTrainer, model, padded_by_end, tmp_path / "out")
    assert end_gradient(source(None), end) > 1e-4
    assert [end_gradient(folder, end) for folder in saved] == [0.0, 0.0]


@pytest.mark.parametrize("pad", [None, 0, "end"])
@pytest.mark.parametrize("by_path", [False, True])
def test_stages_leave_the_padding_row_as_it_was(source, padded_by_end, prompts, tmp_path, pad, by_path):
    end = padded_by_end.eos_token_id
    folder = source(end if pad == "end" else pad)
    has_one = end_gradient(folder, end) > 0
    assert has_one is (pad != "end")

    def model():
        return str(folder) if by_path else AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    saved = warmed(WarmupTrainer, model(), padded_by_end, tmp_path / "warmup")
    args = hybrid_args(tmp_path / "hybrid", max_steps=1)
    trainer = HybridTrainer(model(), reward, args, prompts, processing_class=padded_by_end, controller=GRPOOnly())
    trainer.train()
    trainer.save_model(tmp_path / "hybrid" / "trained")
    for each in [*saved, tmp_path / "hybrid" / "trained"]:
        loaded = AutoModelForCausalLM.from_pretrained(each)
        assert loaded.config.pad_token_id == (end if pad == "end" else pad)
        assert (end_gradient(each, end) > 0) is has_one
        assert loaded.generation_config.pad_token_id == end
