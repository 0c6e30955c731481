"""The warm-up without padding is `SFTTrainer`'s: the same losses, norms, metrics and parameters, fewer positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PrinterCallback
from trl import SFTConfig, SFTTrainer

from posttrain.controllers import Alternate
from posttrain.training.trainer import HybridTrainer
from posttrain.training.warmup import WarmupTrainer
from tests.training.conftest import COMMON, hybrid_args, reward

LOGGED = ("loss", "grad_norm", "entropy", "mean_token_accuracy", "num_tokens")


@pytest.fixture
def rows(demonstrations):
    """Lengths that differ, so that there is padding to leave out."""
    lengthened = [{**row, "completion": row["completion"] * (1 + i % 4)} for i, row in enumerate(demonstrations)]
    return type(demonstrations).from_list(lengthened)


def trained(kind: type[SFTTrainer], folder, model, rows, tokenizer, arguments: dict[str, Any], **own: Any):
    """What a few steps logged, the parameters after them, and the shapes that the model was called with."""
    lora = isinstance(own.pop("lora", None), LoraConfig)
    shapes = []

    def look(module, args, kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))

    args = SFTConfig(
        str(folder), max_steps=4, per_device_train_batch_size=4, gradient_accumulation_steps=2,
        train_sampling_strategy="sequential", **{**COMMON, **arguments},
    )  # fmt: skip
    trainer = kind(model, args, train_dataset=rows, processing_class=tokenizer, **own)
    trainer.remove_callback(PrinterCallback)
    (model.base_model.model if lora else model).base_model.register_forward_pre_hook(look, with_kwargs=True)
    trainer.train()
    logs = [{key: log[key] for key in LOGGED} for log in trainer.state.log_history if "grad_norm" in log]
    return logs, torch.cat([p.detach().flatten() for p in model.parameters()]), shapes


def load(folder, lora: bool):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return (
        get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)) if lora else model
    )


@pytest.mark.parametrize(
    ("lora", "arguments"),
    [(False, {}), (True, {}), (False, {"loss_type": "dft"}), (False, {"gradient_checkpointing": True})],
    ids=["full", "lora", "dft", "checkpointing"],
)
def test_a_packed_warm_up_is_sft_trainers(lora, arguments, model_folder, rows, tokenizer, tmp_path):
    own = {"lora": LoraConfig() if lora else None}
    theirs = trained(SFTTrainer, tmp_path, load(model_folder, lora), rows, tokenizer, arguments, **own)
    ours = trained(WarmupTrainer, tmp_path, load(model_folder, lora), rows, tokenizer, arguments, **own)

    assert len(ours[0]) == 4
    for mine, trls in zip(ours[0], theirs[0], strict=True):
        assert mine == pytest.approx(trls, rel=2e-5)
    assert torch.linalg.norm(ours[1] - theirs[1]) <= 1e-5 * torch.linalg.norm(theirs[1])
    assert {rows for rows, _ in ours[2]} == {1}
    padded = sum(rows * width for rows, width in theirs[2])
    assert sum(width for _, width in ours[2]) < 0.8 * padded


@pytest.mark.parametrize(
    ("own", "arguments"),
    [
        ({"packed": False}, {}),
        ({}, {"label_smoothing_factor": 0.1}),
        ({}, {"neftune_noise_alpha": 5.0}),
        ({"compute_loss_func": lambda outputs, labels, num_items_in_batch=None: outputs.logits.mean()}, {}),
    ],
    ids=["not asked for", "label smoothing", "noise by length", "a loss of one's own"],
)
def test_what_packing_is_not_for_stays_trls(own, arguments, model_folder, rows, tokenizer, tmp_path):
    *_, shapes = trained(WarmupTrainer, tmp_path, load(model_folder, False), rows, tokenizer, arguments, **own)
    assert 4 in {rows for rows, _ in shapes}  # and the last one of 25 rows


def test_each_trainer_says_why_rows_are_padded(model_folder, rows, prompts, tokenizer, tmp_path):
    eager = AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation="eager")
    with pytest.warns(UserWarning, match="rows are padded, not packed: attention eager"):
        warm = WarmupTrainer(eager, SFTConfig(str(tmp_path), **COMMON), train_dataset=rows, processing_class=tokenizer)
    assert warm.padded is not None
    noisy = hybrid_args(tmp_path, neftune_noise_alpha=5.0)
    with pytest.warns(UserWarning, match="rows are padded, not packed: neftune_noise_alpha: the noise"):
        trainer = HybridTrainer(
            load(model_folder, False), reward, noisy, prompts, demonstrations=rows, processing_class=tokenizer,
            controller=Alternate(),
        )  # fmt: skip
    assert set(trainer.padded) == {"sft", "grpo"}


def test_nobody_is_warned_of_what_they_asked_for(model_folder, rows, tokenizer, tmp_path, recwarn):
    given = {"train_dataset": rows, "processing_class": tokenizer}
    args = SFTConfig(str(tmp_path), **COMMON)
    assert WarmupTrainer(load(model_folder, False), args, packed=False, **given).padded == "packed: false"
    assert WarmupTrainer(load(model_folder, False), args, **given).padded is None
    assert not [each for each in recwarn if "padded" in str(each.message)]
