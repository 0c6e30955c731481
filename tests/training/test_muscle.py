"""The loss that keeps a new model compatible with the one before: by hand, in any pieces, and to neither teacher."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig

from posttrain.errors import ConfigError
from posttrain.inputs.data import IGNORED
from posttrain.training.muscle import toward
from posttrain.training.warmup import WarmupTrainer, warm_up
from tests.training.conftest import COMMON, StopAt
from tests.training.test_token_weights import Steps, apart, made_rows, rows  # noqa: F401


def told(label: int) -> tuple[Any, ...]:
    """The numeric case: (.5, .5) of the policy, (.8, .2) of the old model, (.3, .7) of the new; argmax is token 0."""
    states = [torch.tensor([row]).log() for row in ([0.5, 0.5], [0.8, 0.2], [0.3, 0.7])]
    heads = [(torch.eye(2).requires_grad_(), None) for _ in states]
    for each in states:
        each.requires_grad_()
    policy, old, new = states
    kl, wrong = toward(policy, torch.tensor([label]), old, new, heads[0], heads[1], heads[2])
    return kl, wrong, states, [weight for weight, _ in heads]


def test_a_token_that_the_policy_gets_wrong_goes_to_the_old_model_and_one_that_it_gets_right_to_the_new():
    assert told(1)[0].item() == pytest.approx(0.192745, abs=1e-6)
    assert told(0)[0].item() == pytest.approx(0.082283, abs=1e-6)
    assert told(1)[1].tolist() == [True]
    assert told(0)[1].tolist() == [False]


@pytest.mark.parametrize(("label", "teacher"), [(1, (0.8, 0.2)), (0, (0.3, 0.7))])
def test_the_gradient_is_the_difference_of_probabilities_and_the_teachers_get_none(label, teacher):
    kl, _, states, heads = told(label)
    kl.sum().backward()
    assert states[0].grad is not None
    assert states[0].grad[0].tolist() == pytest.approx([0.5 - share for share in teacher], abs=1e-6)
    assert heads[0].grad is not None
    assert all(each.grad is None for each in (*states[1:], *heads[1:]))


# ---- in a warm-up ----


@pytest.fixture(scope="module")
def old(tokenizer) -> LlamaForCausalLM:
    """Wider than the new model and with a bias of its own mind: hidden states of another size, the same vocabulary."""
    torch.manual_seed(5)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=48, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2,
            bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def half_taught(model_folder, tokenizer, tmp_path_factory):
    """The tiny model, taught until some of its next tokens are right: both teachers have something to say."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(25):
        for row in made_rows(tokenizer):
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
            model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("taught")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def task_adapter(half_taught, tmp_path_factory):
    """What the compatibility adapter starts from: an adapter that has been trained, whose B is not 0."""
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(half_taught, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.1))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


KINDS = ["full", "adapter", "fresh"]


@pytest.fixture
def new(half_taught, task_adapter):
    def load(kind: str) -> Any:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(half_taught, dtype=torch.float32)
        if kind == "adapter":
            model = PeftModel.from_pretrained(model, task_adapter, is_trainable=True)
            for module in model.modules():  # else no gradient is known by hand
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        if kind == "fresh":
            model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
        return model

    return load


@pytest.fixture
def warm(new, old, tokenizer, rows, tmp_path):  # noqa: F811
    """Warm up by the loss; give the model, the steps and the gradients of each."""

    def run(kind: str, name: str, *, size=4, pieces=1, steps=3, until=None, checkpoint=None, packed=True, rate=1e-2):
        model, lines, seen = new(kind), Steps(), []
        args = SFTConfig(
            str(tmp_path / name), max_steps=steps, per_device_train_batch_size=size,
            gradient_accumulation_steps=pieces, **COMMON | {"learning_rate": rate, "max_grad_norm": 0.0},
        )  # fmt: skip

        stop = [StopAt(until)] if until else []
        stop.append(Gradients(seen))
        warm_up(
            model, tokenizer, Dataset.from_list(rows), args, norm_window=1, recorder=lines, callbacks=stop,
            checkpoint=checkpoint, packed=packed, old=copy.deepcopy(old),
        )  # type: ignore[arg-type]  # fmt: skip
        return model, lines, seen

    return run


class Gradients(StopAt):
    """Keeps the gradient that the optimizer is about to see."""

    def __init__(self, seen: list[torch.Tensor]):
        super().__init__(-1)
        self._seen = seen

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        self._seen.append(torch.cat(grads).clone())


def by_hand(model, old, tokens):
    """The loss and the gradient of its mean over label tokens, row by row from the models' own logits."""
    teacher = copy.deepcopy(model)
    count, total, to_old = sum(label != IGNORED for row in tokens for label in row["labels"][1:]), 0.0, 0
    for row in tokens:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        there = labels != IGNORED
        logps = model(input_ids=ids).logits[0, :-1][there].log_softmax(-1)
        for t, label in enumerate(labels[there].tolist()):
            wrong = int(logps[t].argmax()) != label
            with torch.no_grad():
                says = (old if wrong else teacher)(input_ids=ids).logits[0, :-1][there][t].log_softmax(-1)
            kl = (says.exp() * (says - logps[t])).sum() / count
            total, to_old = total + kl.item(), to_old + wrong
            kl.backward(retain_graph=True)
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return total, to_old / count, torch.cat(grads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_the_gradient_of_a_step_is_that_by_hand(warm, new, old, rows, kind, packed):  # noqa: F811
    _, (line,), (ours,) = warm(kind, "run", size=10, steps=1, packed=packed)
    loss, share, expected = by_hand(new(kind).eval(), old, rows)
    assert line["padded"] == (None if packed else "packed: false")
    assert line["sft_trained_loss"] == pytest.approx(loss, rel=1e-4)
    assert line["toward_old"] == pytest.approx(share)
    assert 0.1 < share < 0.9, "both teachers are at work"
    assert line["sft_loss"] > 1.0, "the likelihood is recorded beside it"
    assert apart(ours, expected) < 1e-4


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_a_step_is_the_same_in_any_pieces_packed_and_padded(warm, kind):
    _, lines, (first, *_) = warm(kind, "whole")
    for name, other in {"pieces": {"size": 2, "pieces": 2}, "ones": {"size": 1, "pieces": 4, "packed": False}}.items():
        _, others, (step, *_) = warm(kind, name, **other)
        assert apart(step, first) < 1e-5
        for key in ("sft_trained_loss", "sft_loss", "sft_norm"):
            assert [one[key] for one in others] == pytest.approx([one[key] for one in lines], rel=1e-4)
        assert [one["toward_old"] for one in others] == [one["toward_old"] for one in lines]


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_warm_up_compares_with_the_policy_of_the_beginning(warm, kind, tmp_path):
    whole, _, _ = warm(kind, "whole", steps=4)
    warm(kind, "cut", steps=4, until=2)
    again, _, _ = warm(kind, "cut", steps=4, checkpoint=tmp_path / "cut" / "checkpoint-2")
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_neither_teacher_moves(new, old, tokenizer, rows, tmp_path):  # noqa: F811
    before, model = copy.deepcopy(old.state_dict()), new("adapter")
    base = {name: value.clone() for name, value in model.named_parameters() if "lora" not in name}
    args = SFTConfig(str(tmp_path), max_steps=2, per_device_train_batch_size=4, **COMMON)
    trainer = WarmupTrainer(
        model, args, old=old, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )  # fmt: skip
    trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in old.state_dict().items())
    assert all(p.grad is None for p in old.parameters())
    assert all(torch.equal(value, base[name]) for name, value in model.named_parameters() if name in base)


# ---- what cannot be ----


@pytest.mark.parametrize(
    ("given", "said"),
    [({"sft_weight": "phi"}, "sft_weight 'phi'"), ({"loss_type": "dft"}, "loss_type"),
     ({"label_smoothing_factor": 0.1}, "label_smoothing_factor")],
)  # fmt: skip
def test_a_second_loss_is_refused(model, old, tokenizer, rows, tmp_path, given, said):  # noqa: F811
    weight = {"sft_weight": given.pop("sft_weight")} if "sft_weight" in given else {}
    args = SFTConfig(str(tmp_path), max_steps=1, **COMMON | given)
    with pytest.raises(ConfigError, match=said):
        WarmupTrainer(model, args, old=old, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **weight)


def test_another_number_of_logits_is_refused(model, tokenizer, rows, tmp_path):  # noqa: F811
    old = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer) + 8, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                    num_attention_heads=2)
    )  # fmt: skip
    args = SFTConfig(str(tmp_path), max_steps=1, **COMMON)
    with pytest.raises(ConfigError, match=f"{len(tokenizer) + 8} logits a token of the old model"):
        WarmupTrainer(model, args, old=old, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
