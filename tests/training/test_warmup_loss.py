"""What a warm-up records as `sft_loss` is the NLL of the labels, by whatever loss it trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from trl import SFTConfig

from posttrain.inputs.data import tokenize_demonstrations
from posttrain.training.warmup import warm_up
from tests.training.conftest import COMMON, ROWS


class Steps(list[dict[str, Any]]):
    def step(self, record: dict[str, Any]) -> None:
        self.append(record)


def recorded(model: Any, tokenizer: Any, folder: Any, **arguments: Any) -> list[dict[str, Any]]:
    """The steps of a warm-up of two, of two micro-batches of rows of unequal length."""
    rows = [{**row, "completion": str(row["completion"]) * (1 + i % 3)} for i, row in enumerate(ROWS)]
    args = SFTConfig(
        str(folder), max_steps=2, per_device_train_batch_size=3, gradient_accumulation_steps=2, **COMMON | arguments
    )
    steps = Steps()
    demonstrations = tokenize_demonstrations(rows, tokenizer)
    warm_up(model, tokenizer, demonstrations, args, norm_window=1, recorder=steps)  # type: ignore[arg-type]
    return steps


@pytest.mark.parametrize("arguments", [{"loss_type": "dft"}, {"label_smoothing_factor": 0.2}])
def test_the_nll_is_that_of_the_same_weights_under_the_plain_loss(arguments, model_folder, tokenizer, tmp_path):
    def load() -> Any:
        return AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)

    plain = recorded(load(), tokenizer, tmp_path / "plain")
    other = recorded(load(), tokenizer, tmp_path / "other", **arguments)
    assert other[0]["sft_norm"] != pytest.approx(plain[0]["sft_norm"], rel=0.02), "another loss was trained"
    assert other[0]["sft_loss"] == pytest.approx(plain[0]["sft_loss"], rel=1e-5)
    assert all(step["sft_loss"] > 1.0 for step in other), "in nats of a model that knows nothing"


def test_a_router_loss_is_not_part_of_it(tokenizer, tmp_path):
    def load() -> Any:
        torch.manual_seed(0)
        return Qwen3MoeForCausalLM(
            Qwen3MoeConfig(
                vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, moe_intermediate_size=16,
                num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=8, num_experts=4,
                num_experts_per_tok=2, decoder_sparse_step=1, max_position_embeddings=64,
            )
        )  # fmt: skip

    with_it = recorded(load(), tokenizer, tmp_path / "with", router_aux_loss_coef=0.5)
    without = recorded(load(), tokenizer, tmp_path / "without", router_aux_loss_coef=0.0)
    assert with_it[0]["sft_norm"] != pytest.approx(without[0]["sft_norm"], rel=1e-4)
    assert with_it[0]["sft_loss"] == pytest.approx(without[0]["sft_loss"], rel=1e-5)
