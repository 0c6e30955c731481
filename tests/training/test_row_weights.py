"""What a demonstration as a whole counts: closed forms, gradients by hand, and the same step in other pieces."""

from __future__ import annotations

import math

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from trl import SFTConfig

from posttrain.controllers import GAC, SFTOnly, Static
from posttrain.errors import ConfigError
from posttrain.inputs.data import IGNORED
from posttrain.methods import HPT, ReLIFT
from posttrain.training.row_weights import CLIP, DIVERGENCES, against_start, dco, row_weights
from posttrain.training.trainer import HybridTrainer
from posttrain.training.warmup import warm_up
from tests.training.conftest import COMMON, StopAt, hybrid_args, reward
from tests.training.test_token_weights import CUTS, Steps, apart, gradients, rows, warmed  # noqa: F401

ALL = ["dco", "pearson", "hellinger", "js"]
TRIES = 100_000_000
"""Of `dco`, beside a model that gives whole demonstrations a hundred millionth."""


def more(name: str) -> dict:
    """Settings under which a weight differs from 1, and from row to row."""
    return {"sft_weight": name, "sft_tries": TRIES} if name == "dco" else {"sft_weight": name}


# ---- closed forms ----


@pytest.mark.parametrize(
    ("p", "tries", "weight"), [(0.3, 1, 1.0), (1e-12, 7, 1.0), (0.1, 10, 0.594822), (0.5, 8, 0.0313725), (1.0, 4, 0.0)]
)
def test_dco_has_the_papers_factor(p, tries, weight):
    assert dco(torch.tensor([math.log(p)]), tries).item() == pytest.approx(weight, abs=1e-6)


@pytest.mark.parametrize("p", [1e-9, 1e-4, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("tries", [1, 2, 8, 1000])
def test_dco_is_the_derivative_of_its_loss(p, tries):
    log_p = torch.tensor(math.log(p), dtype=torch.float64, requires_grad=True)
    chance = -torch.expm1(tries * torch.log1p(-log_p.exp()))
    (slope,) = torch.autograd.grad(-chance.log(), log_p)
    assert -slope.item() == pytest.approx(dco(log_p.detach()[None], tries).item(), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("log_p", [-1e4, -700.0, -50.0, -1e-9, 0.0, 1e-6])
def test_dco_is_finite_whatever_a_demonstrations_length(log_p):
    weight = dco(torch.tensor([log_p]), 8).item()
    assert 0.0 <= weight <= 1.0
    assert log_p > -1 or weight == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "weights"), [("pearson", (0.5, 2.0, 8.0)), ("hellinger", (1.0, 0.5, 0.25)), ("js", (0.8, 0.5, 0.2))]
)
def test_the_divergences_have_the_weights_of_their_f(name, weights):
    logs = torch.tensor([0.25, 1.0, 4.0]).log()
    assert against_start(name, logs, torch.zeros(3)).tolist() == pytest.approx(weights)


F = {
    "pearson": lambda u: (u - 1) ** 2,
    "hellinger": lambda u: (u.sqrt() - 1) ** 2,
    "js": lambda u: u * u.log() - (u + 1) * ((u + 1) / 2).log(),
}


@pytest.mark.parametrize("name", list(DIVERGENCES))
@pytest.mark.parametrize("u", [0.2, 1.0, 3.0])
def test_a_weight_is_what_autograd_finds_of_the_implicit_reward(name, u):
    log_u = torch.tensor(math.log(u), dtype=torch.float64, requires_grad=True)
    ratio = log_u.exp()
    (slope_of_f,) = torch.autograd.grad(F[name](ratio), ratio, create_graph=True)
    (slope,) = torch.autograd.grad(slope_of_f, log_u)
    assert DIVERGENCES[name](torch.tensor(u, dtype=torch.float64)).item() == pytest.approx(slope.item(), rel=1e-9)


def test_growth_is_by_the_token_and_held_to_a_range_and_no_gradient_passes():
    logps = torch.tensor([[-1.0, -1.0, 0.0], [-1.0, -1.0, -1.0], [0.0, 0.0, 0.0]], requires_grad=True)
    mask, start = logps != 0, torch.tensor([-4.0, -30.0, 0.0])
    weights = row_weights("pearson", logps, mask, start_sums_B=start)
    assert not weights.requires_grad
    assert weights[:, 0].tolist() == pytest.approx([2 * math.exp(1.0), 2 * math.exp(CLIP), 2.0])


# ---- in a hybrid step ----


def by_hand(model_folder, tokens, name, start=None):
    """The gradient of the mean weighted NLL, row by row from the model's own logits, and the weights."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    count, weights = sum(label != IGNORED for row in tokens for label in row["labels"][1:]), []
    for row in tokens:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        taken = logps[labels != IGNORED].gather(1, labels[labels != IGNORED, None])[:, 0]
        p = taken.detach().double().sum().exp()
        weight = TRIES * p * ((TRIES - 1) * torch.log1p(-p)).exp() / -torch.expm1(TRIES * torch.log1p(-p))
        if name != "dco":
            weight = {"pearson": 2.0, "hellinger": 0.5, "js": 0.5}[name]  # at the start u is 1
        weights.append(float(weight))
        (-(weight * taken).sum() / count).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()]), weights


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_of_a_step_is_that_by_hand(gradients, model_folder, rows, name):  # noqa: F811
    (ours,), (line,) = gradients(demonstration_batch_size=5, gradient_accumulation_steps=2, **more(name))
    expected, weights = by_hand(model_folder, rows, name)
    assert apart(ours, expected) < 1e-5
    if name == "dco":
        assert min(weights) < 0.5, "some of the rows are likely enough to count less"
        assert max(weights) > 0.99
    assert line["sft_trained_loss"] != pytest.approx(line["sft_loss"], rel=1e-2)


@pytest.mark.parametrize("name", ["dco", "pearson"])
def test_a_step_is_the_same_in_any_pieces_packed_and_padded(gradients, name):  # noqa: F811
    made = [
        gradients(
            2, packed=packed, demonstration_batch_size=size, gradient_accumulation_steps=pieces, learning_rate=1e-2,
            **more(name),
        )
        for packed, (size, pieces) in [(True, CUTS[0]), (True, CUTS[2]), (False, CUTS[0]), (False, CUTS[1])]
    ]  # fmt: skip
    (first, second), lines = made[0]
    for (step, after), others in made[1:]:
        assert apart(step, first) < 1e-5
        assert apart(after, second) < 2e-5, "behind a step of Adam, which blows round-off up"
        for one, other in zip(others, lines, strict=True):
            keys = ("sft_loss", "sft_trained_loss", "sft_norm")
            assert [one[key] for key in keys] == pytest.approx([other[key] for key in keys], rel=2e-5)
    plain, _ = gradients(2, demonstration_batch_size=10, learning_rate=1e-2)
    if name == "pearson":  # 2 in the first step, and more where the first step had an effect
        assert apart(first / 2, plain[0]) < 1e-5
        assert apart(second / 2, plain[1]) > 0.1


def test_a_blend_has_the_weighted_gradient_at_its_share_and_the_kl_is_measured_beside_it(gradients):  # noqa: F811
    (sft,), _ = gradients(demonstration_batch_size=10, sft_weight="js")
    (grpo,), _ = gradients(controller=Static(sft_share=0.0), demonstration_batch_size=10)
    (both,), (line,) = gradients(
        controller=Static(sft_share=0.3, mode="blend"), sft_weight="js", demonstration_batch_size=10, kl_sample=1.0
    )
    assert apart(both, 0.3 * sft + 0.7 * grpo) < 1e-5
    assert line["kl"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", ["pearson", "dco"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_resumed_run_compares_with_the_policy_of_the_beginning(
    model_folder, tokenizer, prompts, rows, tmp_path, name, lora  # noqa: F811
):  # fmt: skip
    def train(folder, *, until=None, resume=False):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        if lora:
            model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=True))
        trainer = HybridTrainer(
            model,
            reward,
            hybrid_args(
                folder, max_steps=5, demonstration_batch_size=4, kl_sample=0.0, learning_rate=1e-2, **more(name)
            ),
            prompts,
            processing_class=tokenizer,
            demonstrations=rows,
            controller=SFTOnly(),
            callbacks=[StopAt(until)] if until else None,
        )
        trainer.train(resume_from_checkpoint=resume)
        return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])

    whole = train(tmp_path / "whole")
    train(tmp_path / "cut", until=3)
    assert torch.equal(train(tmp_path / "cut", resume=True), whole)


# ---- the warm-up ----


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("packed", [True, False])
def test_the_warm_up_has_the_loss_and_the_norm_of_the_hybrid_stage(
    gradients, model_folder, tokenizer, rows, tmp_path, name, packed  # noqa: F811
):  # fmt: skip
    line = warmed(model_folder, tokenizer, rows, tmp_path / "warmup", packed=packed, **more(name))
    _, (hybrid,) = gradients(demonstration_batch_size=10, **more(name))
    for key in ("sft_loss", "sft_trained_loss", "sft_norm"):
        assert line[key] == pytest.approx(hybrid[key], rel=1e-4), key


@pytest.mark.parametrize("name", ["pearson", "dco"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_warm_up_goes_on_where_it_was_stopped_and_in_any_pieces(model_folder, tokenizer, rows, tmp_path, name, lora):  # noqa: F811
    def warm(folder, *, size=4, pieces=1, until=None, checkpoint=None, packed=True):
        torch.manual_seed(0)
        model, steps = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32), Steps()
        if lora:
            model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
        args = SFTConfig(
            str(folder), max_steps=4, per_device_train_batch_size=size, gradient_accumulation_steps=pieces,
            **COMMON | {"learning_rate": 1e-2},
        )  # fmt: skip
        stop = [StopAt(until)] if until else []
        warm_up(
            model, tokenizer, Dataset.from_list(rows), args, norm_window=1, recorder=steps, callbacks=stop,
            checkpoint=checkpoint, packed=packed, **more(name),
        )  # type: ignore[arg-type]  # fmt: skip
        return torch.cat([p.detach().flatten() for p in model.parameters()]), [step["sft_norm"] for step in steps]

    whole, norms = warm(tmp_path / "whole")
    warm(tmp_path / "cut", until=2)
    assert torch.equal(warm(tmp_path / "cut", checkpoint=tmp_path / "cut" / "checkpoint-2")[0], whole)
    for other in ({"size": 2, "pieces": 2}, {"packed": False}):
        assert warm(tmp_path / str(other), **other)[1] == pytest.approx(norms, rel=1e-4)


# ---- what cannot be ----


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sft_tries": 4}, "alone counts them"),
        ({"sft_weight": "dco", "sft_tries": 0}, "one try or more"),
        ({"sft_weight": "helinger"}, "hellinger"),
    ],
)
def test_arguments_that_do_nothing_are_refused(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        hybrid_args(tmp_path, **changes)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"controller": GAC()}, "each token's own probability"), ({"method": HPT()}, "beside its rollouts")],
)
def test_what_reads_tokens_one_by_one_goes_with_no_weight_of_a_whole(
    model, tokenizer, prompts, demonstrations, tmp_path, given, said
):
    with pytest.raises(ConfigError, match=said):
        HybridTrainer(
            model, reward, hybrid_args(tmp_path, sft_weight="dco"), prompts, processing_class=tokenizer,
            demonstrations=demonstrations, **given,
        )  # fmt: skip


def test_relift_trains_on_whole_demonstrations_and_takes_any(model, tokenizer, prompts, demonstrations, tmp_path):
    trainer = HybridTrainer(
        model, lambda completions, **row: [0.0] * len(completions),
        hybrid_args(tmp_path, max_steps=2, sft_weight="pearson", kl_sample=0.0), prompts, processing_class=tokenizer,
        demonstrations=demonstrations, method=ReLIFT(buffer=2),
    )  # fmt: skip
    trainer.train()
    assert trainer.last_record["sft_trained_loss"] == pytest.approx(2 * trainer.last_record["sft_loss"], rel=1e-5)
