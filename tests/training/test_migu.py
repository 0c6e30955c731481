"""Gradients of the rows with large outputs alone: which rows, of what, and the same ones in other pieces."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM
from trl import SFTConfig

from posttrain.controllers import Static
from posttrain.errors import ConfigError
from posttrain.inputs.data import IGNORED
from posttrain.packing.tree import grow
from posttrain.training.migu import RowsByMagnitude, counts_of, kept_rows
from posttrain.training.trainer import HybridTrainer
from posttrain.training.warmup import warm_up
from tests.training.conftest import COMMON, hybrid_args, sparse_reward
from tests.training.test_token_weights import Steps, rows  # noqa: F401


def test_the_threshold_is_the_papers_quantile():
    assert kept_rows(torch.arange(1.0, 11.0), 0.7).nonzero().flatten().tolist() == [7, 8, 9]
    assert kept_rows(torch.zeros(3), 0.7).all(), "a layer that was not called"


def test_a_prompt_counts_for_each_row_of_its_group_and_padding_and_last_tokens_for_none():
    ids, mask = torch.tensor([[5, 6], [5, 6], [0, 7]]), torch.tensor([[1, 1], [1, 1], [0, 1]])
    done, kept = torch.tensor([[8, 9, 1], [8, 0, 0], [3, 4, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]])
    tree = grow(ids, mask, done, kept)
    counts = counts_of({"tree": tree})
    by_id = dict(zip(tree.input_ids[0].tolist(), counts[0].tolist(), strict=True))
    assert by_id == {5: 2.0, 6: 2.0, 7: 1.0, 8: 1.0, 9: 1.0, 3: 1.0}
    padded = counts_of({"attention_mask": torch.cat([mask, kept], dim=1)})
    assert padded.tolist() == [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0]]
    assert padded.sum() == counts.sum()


@pytest.fixture
def step(model_folder, tokenizer, prompts, rows, tmp_path):  # noqa: F811
    """The masked gradients of one step of both losses."""

    def of(*, lora=False, **changes):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        if lora:
            model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
        trainer = HybridTrainer(
            model, sparse_reward,
            hybrid_args(
                tmp_path / str(len(list(tmp_path.iterdir()))),
                **{"max_steps": 1, "migu": 0.7, "kl_sample": 0.0, "drop_zero_advantage": False, **changes},
            ),
            prompts, processing_class=tokenizer, demonstrations=rows, controller=Static(sft_share=0.5, mode="blend"),
        )  # fmt: skip
        seen = SimpleNamespace(before={}, after={})
        (mask,) = (each for each in trainer.callback_handler.callbacks if isinstance(each, RowsByMagnitude))
        inner = mask.on_pre_optimizer_step

        def watched(*args, **kwargs):
            seen.before = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            inner(*args, **kwargs)
            seen.after = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

        mask.on_pre_optimizer_step = watched
        trainer.train()
        return seen

    return of


def kept_of(seen, name):
    return seen.after[name].abs().sum(1) > 0


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_the_rows_with_the_largest_outputs_keep_their_gradient_and_no_others(step, lora):
    seen = step(lora=lora, per_device_train_batch_size=16, demonstration_batch_size=8)
    linear = [name for name in seen.before if ("lora_B" in name if lora else "proj" in name and "weight" in name)]
    assert len(linear) == 14
    for name, before in seen.before.items():
        after = seen.after[name]
        if name not in linear:
            assert torch.equal(before, after), name
            continue
        kept = kept_of(seen, name)
        assert torch.equal(after[kept], before[kept]), name
        assert 0.25 * len(kept) <= int(kept.sum()) <= 0.4 * len(kept), name
    other = step(
        lora=lora,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        demonstration_batch_size=2,
        packed=False,
    )
    for name in linear:
        assert torch.equal(kept_of(other, name), kept_of(seen, name)), name
        torch.testing.assert_close(other.after[name], seen.after[name], rtol=1e-3, atol=1e-6)


def test_what_is_left_out_of_the_passes_counts_for_the_mask_all_the_same(step):
    """Which completions pass through the model depends on the cut and the processes; what is masked must not."""
    seen = step(per_device_train_batch_size=16, demonstration_batch_size=8)
    other = step(per_device_train_batch_size=16, demonstration_batch_size=8, drop_zero_advantage=True)
    for name in (name for name in seen.before if "proj" in name and "weight" in name):
        assert torch.equal(kept_of(other, name), kept_of(seen, name)), name


def test_a_warm_up_masks_too_and_by_the_magnitudes_by_hand(model_folder, tokenizer, rows, tmp_path):  # noqa: F811
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    sums: dict[str, torch.Tensor] = {}
    twin = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    for name, module in twin.named_modules():
        if isinstance(module, nn.Linear) and "proj" in name:
            module.register_forward_hook(
                lambda m, a, out, at=name: sums.__setitem__(at, sums.get(at, 0.0) + out[0, :-1].detach().abs().sum(0))
            )
    for row in rows:
        assert row["labels"][-1] != IGNORED
        twin(input_ids=torch.tensor([row["input_ids"]]))
    args = SFTConfig(
        str(tmp_path), max_steps=1, per_device_train_batch_size=5, gradient_accumulation_steps=2,
        **COMMON | {"optim": "sgd"},
    )  # fmt: skip
    warm_up(model, tokenizer, Dataset.from_list(rows), args, norm_window=1, recorder=Steps(), migu=0.7)
    for name, total in sums.items():
        moved = (model.get_parameter(f"{name}.weight") != start[f"{name}.weight"]).any(1)
        assert torch.equal(moved, kept_rows(total, 0.7)), name


def test_what_it_cannot_mask_is_refused(model, tokenizer, prompts, tmp_path):
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        hybrid_args(tmp_path, migu=1.0)
    sharded = SimpleNamespace(distributed_type=SimpleNamespace(value="FSDP"))
    with pytest.raises(ConfigError, match="gradients in shards"):
        RowsByMagnitude(model, sharded, 0.7, "migu")
    with pytest.raises(ConfigError, match="no linear layer trains"):
        RowsByMagnitude(nn.Embedding(2, 2), SimpleNamespace(distributed_type=SimpleNamespace(value="NO")), 0.7, "migu")
