"""GRPO on the tokens with the highest entropies: closed forms, gradients by hand, and the same step in other pieces."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from posttrain.controllers import GRPOOnly, SFTOnly
from posttrain.errors import ConfigError
from posttrain.methods import LUFFY
from posttrain.training.ledger import Ledger
from posttrain.training.selection import Band, Selection
from posttrain.training.trainer import HybridTrainer
from posttrain.training.window.selection import outside_band, quantiles, select, top_entropy
from tests.training.conftest import StopAt, hybrid_args, reward, sparse_reward
from tests.training.test_token_weights import apart

FIFTH = {"top_entropy": 0.2}
THIRD = {"top_entropy": 1 / 3}


# ---- closed forms ----


def test_a_fifth_of_ten_is_two_the_highest():
    entropies = torch.arange(1.0, 11.0)[None]
    assert top_entropy(entropies, torch.ones(1, 10), 0.2)[0].nonzero().flatten().tolist() == [8, 9]


@pytest.mark.parametrize(
    ("count", "share", "chosen"), [(15, 0.2, 3), (11, 0.2, 3), (1, 0.2, 1), (0, 0.2, 0), (7, 0.9, 7)]
)
def test_as_many_as_the_share_rounded_up(count, share, chosen):
    mask = torch.arange(20)[None] < count
    assert int(top_entropy(torch.rand(1, 20), mask, share).sum()) == chosen


def test_each_row_has_its_own_and_what_a_tool_wrote_is_no_token():
    entropies = torch.tensor([[9.0, 8.0, 7.0, 6.0], [0.1, 0.1, 0.1, 5.0]])
    mask = torch.tensor([[1, 0, 1, 1], [1, 1, 1, 0]])
    assert top_entropy(entropies, mask, 0.3).tolist() == [[True, False, False, False], [True, False, False, False]]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.5, 1.0])
def test_quantiles_are_torchs_row_by_row(share):
    values, mask = torch.rand(5, 9), torch.rand(5, 9) < 0.6
    mask[3], mask[4] = False, torch.arange(9) == 2
    ours = quantiles(values, mask, share)
    for row in (0, 1, 2, 4):
        assert ours[row].item() == pytest.approx(values[row][mask[row]].quantile(share).item(), abs=1e-6)
    assert ours[3].item() == 0.0


@pytest.mark.parametrize(("count", "share"), [(512, 1.0), (512, 0.5), (900, 0.37)])
def test_quantiles_of_a_policy_in_bfloat16_are_of_the_right_places(count, share):
    """Whose numbers count to 256 one by one: the last of 512 would be beyond the row."""
    values = torch.linspace(0.0, 4.0, count)[torch.randperm(count)][None].bfloat16()
    ours = quantiles(values, torch.ones(1, count, dtype=torch.bool), share)
    assert ours.item() == pytest.approx(values[0].float().quantile(share).item(), abs=1e-2)


def test_the_band_pushes_what_is_outside_and_nothing_else():
    entropies = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 9.0]], requires_grad=True)
    selected = torch.tensor([[True] * 5 + [False]])
    losses = outside_band(entropies, selected, Band(1.0, low=0.25, high=0.5))
    assert losses.tolist() == [[1.0, 0.0, 0.0, 1.0, 2.0, 0.0]]
    losses.sum().backward()
    assert entropies.grad.tolist() == [[-1.0, 0.0, 0.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize("kl_too", [True, False])
def test_the_kl_of_tokens_that_are_not_selected_has_no_gradient(kl_too):
    logps = torch.randn(1, 10, requires_grad=True)
    rollouts = {
        "completion_ids": torch.zeros(1, 10), "completion_mask": torch.ones(1, 10), "advantages": torch.zeros(1),
        "ref_per_token_logps": torch.randn(1, 10),
    }  # fmt: skip
    select(Selection(0.2, kl_too=kl_too), rollouts, logps, torch.arange(1.0, 11.0)[None], None, Ledger())
    gap = rollouts["ref_per_token_logps"] - logps
    ratio = (logps - logps.detach()).exp()
    ((gap.exp() - gap - 1) * ratio).sum().backward()  # as TRL weighs it
    assert (logps.grad[0, 8:] != 0).all()
    assert bool((logps.grad[0, :8] == 0).all()) == kl_too


# ---- a step ----


@pytest.fixture
def gradients(model_folder, tokenizer, prompts, tmp_path):
    """The gradients of some GRPO steps of 16 completions each, the records, and the trainer."""

    def of(steps: int = 1, *, lora: bool = False, rewards=reward, **changes):
        settings = {
            "max_steps": steps, "max_grad_norm": 0.0, "kl_sample": 0.0, "max_completion_length": 12, "optim": "sgd",
            "learning_rate": 0.1, "per_device_train_batch_size": 16,
        }  # fmt: skip
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        if lora:
            model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
        trainer = HybridTrainer(
            model,
            rewards,
            hybrid_args(tmp_path / str(len(list(tmp_path.iterdir()))), **settings | changes),
            prompts,
            processing_class=tokenizer,
            controller=GRPOOnly(),
        )
        kept, inner = [], trainer._get_grad_norm

        def watched(model, grad_norm=None):
            grads = [p.grad.flatten().clone() for p in model.parameters() if p.grad is not None]
            kept.append(torch.cat(grads))
            return inner(model, grad_norm)

        trainer._get_grad_norm = watched
        trainer.train()
        lines = [json.loads(line) for line in (Path(trainer.args.output_dir) / "steps.jsonl").open()]
        return SimpleNamespace(gradients=kept, records=lines, trainer=trainer)

    return of


def by_hand(model_folder, trainer, share, *, beta=0.0, kl_too=True, band=None, loss_type="dapo"):
    """The step's gradient from single rows without padding; on policy, and with a reference that is the policy."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    rollouts = trainer._share
    masks = [rollouts[name].bool() for name in ("prompt_mask", "completion_mask")]
    total, rows = int(masks[1].sum()), len(masks[0])
    share_seen = 0
    for row in range(rows):
        prompt = rollouts["prompt_ids"][row][masks[0][row]]
        ids = rollouts["completion_ids"][row][masks[1][row]]
        all_logps = model(torch.cat([prompt, ids])[None]).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        logps, entropies = all_logps.gather(1, ids[:, None])[:, 0], -(all_logps.exp() * all_logps).sum(1)
        count = math.ceil(share * len(ids) - 1e-9)
        chosen = entropies.detach().topk(count).indices
        share_seen += count
        divisor = {"dapo": total, "grpo": rows * len(ids), "dr_grpo": rows * trainer.max_completion_length}[loss_type]
        loss = -(float(rollouts["advantages"][row]) * logps[chosen]).sum() / divisor
        if band is not None:
            some = entropies[chosen]
            low, high = some.detach().quantile(band.low), some.detach().quantile(band.high)
            loss = loss + band.coef * ((some - high).relu() + (low - some).relu()).sum() / divisor
        loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()]), share_seen / total


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
@pytest.mark.parametrize("band", [None, Band(0.3, 0.2, 0.6)], ids=["plain", "band"])
def test_the_gradient_is_the_one_by_hand(gradients, model_folder, packed, loss_type, band):
    tokens = {**THIRD, "band": None if band is None else vars(band)}
    ours = gradients(tokens=tokens, packed=packed, loss_type=loss_type, rewards=sparse_reward)
    expected, share = by_hand(model_folder, ours.trainer, 1 / 3, band=band, loss_type=loss_type)
    assert apart(ours.gradients[0], expected) < 1e-5
    shown = ours.records[0]["selection"]
    assert (shown["band_loss"] is None) == (band is None)
    assert shown["entropy"] > ours.records[0]["entropy"]
    if band is not None:  # then all rows are trained on, and noted
        assert shown["share"] == pytest.approx(share)
        assert ours.records[0]["trained_rows"] == 1.0
        assert shown["band_loss"] > 0.0


CUTS = [(16, 1), (8, 2), (4, 4)]


@pytest.mark.parametrize(
    "changes",
    [{}, {"beta": 0.3}, {"num_iterations": 2}, {"tokens": {**THIRD, "band": {"coef": 0.3}}}],
    ids=["plain", "beta", "iterations", "band"],
)
def test_a_step_is_the_same_in_any_pieces_packed_and_padded(gradients, changes):
    made = [
        gradients(
            4, **{"tokens": THIRD, "rewards": sparse_reward, **changes}, packed=packed,
            per_device_train_batch_size=size, gradient_accumulation_steps=pieces,
        )
        for packed, (size, pieces) in [(True, CUTS[0]), (True, CUTS[2]), (False, CUTS[0]), (False, CUTS[1])]
    ]  # fmt: skip
    first = made[0]
    for other in made[1:]:
        for one, two in zip(first.gradients, other.gradients, strict=True):
            assert apart(two, one) < 1e-4
        for one, two in zip(first.records, other.records, strict=True):
            for key, value in one["selection"].items():
                rel = 1e-3 if key == "band_loss" else 1e-4  # a difference of like numbers
                assert two["selection"][key] == (None if value is None else pytest.approx(value, rel=rel)), key


def test_a_penalty_on_every_token_is_another_gradient_and_lora_has_one(gradients):
    settings = {"beta": 0.5, "lora": True, "learning_rate": 0.5}
    both = gradients(2, tokens=FIFTH, **settings)
    all_of_kl = gradients(2, tokens={**FIFTH, "kl_too": False}, **settings)
    assert apart(all_of_kl.gradients[0], both.gradients[0]) < 1e-5, "the policy is still its reference"
    assert apart(all_of_kl.gradients[1], both.gradients[1]) > 1e-3
    cut = gradients(
        2, tokens=FIFTH, per_device_train_batch_size=4, gradient_accumulation_steps=4, packed=False, **settings
    )
    assert max(apart(one, two) for one, two in zip(cut.gradients, both.gradients, strict=True)) < 1e-4


def test_trls_quantile_is_the_same_for_one_completion_and_depends_on_the_cut_for_several(gradients):
    """With a micro-batch for each completion TRL's quantile is of that completion alone."""
    alone = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16, "packed": False}
    theirs = gradients(top_entropy_quantile=0.5, drop_zero_advantage=False, **alone)
    ours = gradients(tokens={"top_entropy": 0.5}, **alone)
    # TRL interpolates the quantile and takes what is at least as high: of n tokens ceil(n / 2), as here
    assert apart(ours.gradients[0], theirs.gradients[0]) < 1e-5
    together = gradients(top_entropy_quantile=0.5, packed=False)
    assert apart(together.gradients[0], theirs.gradients[0]) > 1e-2


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_stopped_inside_a_window_and_resumed_it_never_stopped(model_folder, tokenizer, prompts, tmp_path, stop):
    def train(folder, *, until=None, resume=False):
        trainer = HybridTrainer(
            AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
            sparse_reward,
            hybrid_args(
                folder, max_steps=5, kl_sample=0.0, learning_rate=1e-2, steps_per_generation=2, num_iterations=2,
                tokens={**THIRD, "band": {"coef": 0.1}},
            ),
            prompts,
            processing_class=tokenizer,
            controller=GRPOOnly(),
            callbacks=[StopAt(until)] if until else None,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])

    whole = train(tmp_path / "whole")
    train(tmp_path / "cut", until=stop)
    assert torch.equal(train(tmp_path / "cut", resume=True), whole)


# ---- what cannot be ----


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ({}, "without top_entropy"),
        ({"top_entropie": 0.2}, "top_entropy"),
        ({"top_entropy": 1.0}, "1 is every token"),
        ({"top_entropy": 0.2, "per": "batch"}, "by the micro-batch"),
        ({"top_entropy": 0.2, "kl_too": 1}, "true or false"),
        ({"top_entropy": 0.2, "band": {}}, "without coef"),
        ({"top_entropy": 0.2, "band": {"coef": 0.1, "low": 0.6}}, "low <= high"),
    ],
)
def test_settings_that_select_nothing_are_refused(tmp_path, tokens, said):
    with pytest.raises(ConfigError, match=said):
        hybrid_args(tmp_path, tokens=tokens)


@pytest.mark.parametrize(
    ("changes", "given", "said"),
    [
        ({"loss_type": "cispo"}, {}, "loss_type cispo"),
        ({"importance_sampling_level": "sequence"}, {}, "whole completion"),
        ({"top_entropy_quantile": 0.5}, {}, "another selection"),
        ({"entropy_coef": 0.1, "tokens": {"top_entropy": 0.2, "band": {"coef": 0.1}}}, {}, "two aims"),
        ({}, {"method": LUFFY()}, "the method luffy"),
        ({}, {"controller": SFTOnly()}, "takes no GRPO step"),
    ],
)
def test_what_it_does_not_go_with_is_refused(model, tokenizer, prompts, demonstrations, tmp_path, changes, given, said):
    with pytest.raises(ConfigError, match=said):
        HybridTrainer(
            model, reward, hybrid_args(tmp_path, **{"tokens": FIFTH, **changes}), prompts, processing_class=tokenizer,
            demonstrations=demonstrations, **given,
        )  # fmt: skip
