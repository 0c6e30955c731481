"""A model that sees where tokens stand (GPT-2) is trained at the positions at which it sampled, which TRL's is not."""

from __future__ import annotations

import copy

import pytest
import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel
from trl import SFTConfig

from posttrain.controllers import GRPOOnly
from posttrain.inputs.data import tokenize_demonstrations
from posttrain.models.positions import counts_by_mask
from posttrain.training.trainer import HybridTrainer
from posttrain.training.warmup import WarmupTrainer
from tests.training.conftest import COMMON, hybrid_args, reward
from tests.training.twins import Rollouts, assert_same_gradients, both

ROWS = [
    {"prompt": f"{'plus ' * (2 * b)}{a} plus {b} is", "completion": f" {a + b}.", "answer": a + b}
    for a in range(5)
    for b in range(5)
]
"""Prompts of unequal length, so that padding is on the left of most."""


@pytest.fixture
def gpt2(tokenizer):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=2, resid_pdrop=0, embd_pdrop=0,
        attn_pdrop=0, initializer_range=0.3, bos_token_id=0, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return GPT2LMHeadModel(config).float()


@pytest.fixture
def rows() -> Dataset:
    return Dataset.from_list([{"prompt": row["prompt"], "answer": row["answer"]} for row in ROWS])


def alone(model, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """Log-probabilities of a completion's tokens, its row by itself and without padding."""
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]


def by_hand(model, said: list[dict], prompts: list[list[str]], tokenizer) -> torch.Tensor:
    """The gradient of one step: -sum of advantage times log-probability, over the completions' tokens."""
    answers = {row["prompt"]: row["answer"] for row in ROWS}
    loss, tokens = torch.zeros(()), 0
    for some, asked in zip(said, prompts, strict=True):
        texts = tokenizer.batch_decode(some["completion_ids"], skip_special_tokens=True)
        rewards = torch.tensor(reward(texts, [answers[prompt] for prompt in asked])).view(-1, 4)
        spread = rewards - rewards.mean(1, keepdim=True)
        advantages = (spread / (rewards.std(1, keepdim=True) + 1e-4)).flatten()
        tokens += sum(map(len, some["completion_ids"]))
        for advantage, *row in zip(advantages, some["prompt_ids"], some["completion_ids"], strict=True):
            loss = loss - advantage * alone(model, *row).sum()
    model.zero_grad()
    (loss / tokens).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("drop", [True, False], ids=["dropped", "kept"])
def test_a_steps_gradient_is_that_of_rows_alone(gpt2, tokenizer, rows, tmp_path, monkeypatch, packed, drop):
    before, kept = copy.deepcopy(gpt2), []
    record = Rollouts.record

    def keep(self, prompts, trainer):
        kept.append(self)
        return record(self, prompts, trainer)

    monkeypatch.setattr(Rollouts, "record", keep)
    ours, theirs = both(
        gpt2, tokenizer, rows, reward, tmp_path, monkeypatch,
        packed=packed, drop_zero_advantage=drop, max_steps=1, gradient_accumulation_steps=4,
        per_device_train_batch_size=4,
    )  # fmt: skip
    right = by_hand(before, kept[0].said, kept[0].prompts, tokenizer)
    assert (ours.gradients[0] - right).norm() / right.norm() < 1e-5
    off = float((theirs.gradients[0] - right).norm() / right.norm())
    assert off > 0.5, "TRL counts positions by the mask now: say so in docs/controllers.md"


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_a_window_goes_over_its_rows_at_the_same_positions(gpt2, tokenizer, rows, tmp_path, packed):
    args = hybrid_args(
        tmp_path, packed=packed, kl_sample=1.0, max_steps=2, gradient_accumulation_steps=2, steps_per_generation=4,
        num_iterations=2, per_device_train_batch_size=4,
    )  # fmt: skip
    trainer = HybridTrainer(gpt2, reward, args, rows, processing_class=tokenizer, controller=GRPOOnly())
    records = []
    trainer._recorder = type("Kept", (), {"step": records.append, "completions": lambda *of: None})
    trainer.train()
    assert records[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert records[0]["clip_ratio"] == 0.0


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_so_are_what_the_probe_compares_and_the_reference(gpt2, tokenizer, rows, tmp_path, packed):
    gpt2.save_pretrained(tmp_path / "model")
    gpt2 = GPT2LMHeadModel.from_pretrained(tmp_path / "model")  # TRL loads the reference from where a policy is from
    args = hybrid_args(tmp_path, packed=packed, beta=0.1, max_steps=1, kl_sample=0.0)
    trainer = HybridTrainer(gpt2, reward, args, rows, processing_class=tokenizer, controller=GRPOOnly())
    prompts, completions = [[60, 61], [60, 61, 62, 63, 64, 65]], [[70, 71], [72, 73]]
    right = [alone(gpt2.eval(), *row).tolist() for row in zip(prompts, completions, strict=True)]
    for scored in (trainer.model, trainer.ref_model):
        trainer.model = scored
        for ours, theirs in zip(trainer._logps_of(prompts, completions), right, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)


def test_the_warm_up_and_the_sft_half_count_so_too(gpt2, tokenizer, tmp_path):
    demonstrations = tokenize_demonstrations(ROWS, tokenizer)
    settings = {**COMMON, "output_dir": str(tmp_path), "per_device_train_batch_size": 8, "max_steps": 1}
    trainer = WarmupTrainer(
        gpt2, SFTConfig(**settings), packed=False, train_dataset=demonstrations, processing_class=tokenizer
    )
    assert counts_by_mask(trainer.model)
    batch = trainer.data_collator([dict(demonstrations[row]) for row in (0, 24)])
    logits = trainer.model.eval()(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits
    for row, mask in enumerate(batch["attention_mask"].bool()):
        single = trainer.model(batch["input_ids"][row][mask][None]).logits[0]
        torch.testing.assert_close(logits[row][mask], single, rtol=0, atol=1e-5)


def test_rows_may_move_between_micro_batches(gpt2, tokenizer, rows, tmp_path, monkeypatch):
    """Their positions are their own, so that a plan of the window changes no gradient."""
    twin = copy.deepcopy(gpt2)
    changes = {"max_steps": 1, "gradient_accumulation_steps": 4, "per_device_train_batch_size": 4}
    first, _ = both(gpt2, tokenizer, rows, reward, tmp_path, monkeypatch, **changes)
    second, _ = both(
        twin, tokenizer, rows, reward, tmp_path, monkeypatch, **changes, packed=False, drop_zero_advantage=False
    )
    assert first.positions < second.positions
    assert_same_gradients(first, second)
