"""What a demonstration's token counts: closed forms, gradients by hand, and the same step in other pieces."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl import SFTConfig

from posttrain.controllers import SFTOnly, Static
from posttrain.errors import ConfigError
from posttrain.inputs.data import IGNORED
from posttrain.recipe.section import OF_WHOLE, SFTWeight
from posttrain.training.token_weights import EPSILON, WEIGHTS, clipped, weighted
from posttrain.training.trainer import HybridTrainer
from posttrain.training.warmup import WarmupTrainer, warm_up
from tests.training.conftest import COMMON, StopAt, hybrid_args, reward

UNPLAIN = ["dft", "phi", "trust", "clipped"]


def loss_and_slope(name: str, p: float, old: float | None = None) -> tuple[float, float]:
    """Of one token of probability p: the loss, and its derivative by log p."""
    logp = torch.tensor(math.log(p), dtype=torch.float64, requires_grad=True)
    loss = -weighted(name, logp, None if old is None else torch.tensor(math.log(old), dtype=torch.float64))
    (slope,) = torch.autograd.grad(loss, logp)
    return loss.item(), slope.item()


@pytest.mark.parametrize(
    ("name", "p", "weight"),
    [
        ("nll", 0.3, 1.0), ("dft", 0.3, 0.3), ("phi", 0.1, 0.09), ("phi", 0.5, 0.25), ("phi", 1.0, 0.0),
        ("trust", 0.05, 0.5), ("trust", 0.1, 1.0), ("trust", 0.7, 1.0),
    ],
)  # fmt: skip
def test_the_gradient_is_the_weight_and_nothing_comes_through_it(name, p, weight):
    loss, slope = loss_and_slope(name, p)
    assert slope == pytest.approx(-weight, abs=1e-12)
    assert loss == pytest.approx(-weight * math.log(p), abs=1e-12)


def test_numbers_of_the_papers():
    assert loss_and_slope("phi", 0.5)[0] == pytest.approx(0.173287, abs=1e-6)
    assert set(WEIGHTS) | {"clipped", *OF_WHOLE} == set(get_args(SFTWeight))


@pytest.mark.parametrize(("p", "old"), [(0.2, 0.2), (0.25, 0.2), (0.1, 0.4), (0.3, 0.2), (0.9, 0.1)])
def test_clipped_has_the_gradient_of_ppos_objective_with_advantage_one(p, old):
    logp = torch.tensor(math.log(p), dtype=torch.float64, requires_grad=True)
    ratio = (logp - math.log(old)).exp()
    objective = torch.minimum(ratio, ratio.clamp(1 - 0.2, 1 + EPSILON))
    (expected,) = torch.autograd.grad(-objective, logp)
    assert loss_and_slope("clipped", p, old)[1] == pytest.approx(expected.item(), abs=1e-12)


def test_a_ratio_beyond_all_numbers_is_clipped_and_one_of_no_window_is_one():
    assert clipped(torch.tensor([-1.0]), torch.tensor([-1000.0])).item() == 0.0
    assert loss_and_slope("clipped", 0.2)[1] == pytest.approx(-1.0)


# ---- in a hybrid step ----


@pytest.fixture
def rows(tokenizer):
    return made_rows(tokenizer)


def made_rows(tokenizer):
    """Token rows of unequal lengths."""
    made = []
    for number in range(10):
        prompt = tokenizer(f"{number} plus {number} is")["input_ids"]
        completion = tokenizer(f" {2 * number}." * (1 + number % 4))["input_ids"]
        made.append({"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion})
    return made


@pytest.fixture
def gradients(model_folder, tokenizer, prompts, rows, tmp_path):
    """The gradients of some SFT steps on ten demonstrations each, and the records."""

    def of(steps: int = 1, controller: Any = None, **changes) -> tuple[list[torch.Tensor], list[dict]]:
        settings = {"max_steps": steps, "max_grad_norm": 0.0, "kl_sample": 0.0, "per_device_train_batch_size": 8}
        trainer = HybridTrainer(
            AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
            reward,
            hybrid_args(tmp_path / str(len(list(tmp_path.iterdir()))), **settings | changes),
            prompts,
            processing_class=tokenizer,
            demonstrations=rows,
            controller=controller or SFTOnly(),
        )
        kept, inner = [], trainer._get_grad_norm

        def watched(model, grad_norm=None):
            kept.append(torch.cat([p.grad.flatten().clone() for p in model.parameters()]))
            return inner(model, grad_norm)

        trainer._get_grad_norm = watched
        trainer.train()
        lines = [json.loads(line) for line in (Path(trainer.args.output_dir) / "steps.jsonl").open()]
        return kept, lines

    return of


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


CUTS = [(10, 1), (5, 2), (2, 5)]
"""Demonstrations in a micro-batch, and micro-batches."""


@pytest.mark.parametrize("name", UNPLAIN)
def test_a_step_is_the_same_in_any_pieces_packed_and_padded(gradients, name):
    made = [
        gradients(
            2, sft_weight=name, packed=packed, demonstration_batch_size=size, gradient_accumulation_steps=pieces,
            learning_rate=1e-2,
        )
        for packed in (True, False)
        for size, pieces in CUTS
    ]  # fmt: skip
    (first, second), lines = made[0]
    for (step, after), others in made[1:]:
        assert apart(step, first) < 1e-5
        assert apart(after, second) < 2e-5, "behind a step of Adam, which blows round-off up"
        for one, other in zip(others, lines, strict=True):
            keys = ("sft_loss", "sft_trained_loss", "sft_norm")
            assert [one[key] for key in keys] == pytest.approx([other[key] for key in keys], rel=2e-5)


def by_hand(model_folder, rows, weight):
    """The gradient of the mean weighted NLL, from the model's own logits in one padded batch a row."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    count = sum(label != IGNORED for row in rows for label in row["labels"][1:])
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        taken = logps[labels != IGNORED].gather(1, labels[labels != IGNORED, None])[:, 0]
        (-(weight(taken.detach().exp()) * taken).sum() / count).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("nll", torch.ones_like), ("dft", lambda p: p), ("phi", lambda p: p * (1 - p)),
        ("trust", lambda p: (p / 0.1).clamp(max=1)), ("clipped", torch.ones_like),
    ],
)  # fmt: skip
def test_the_gradient_of_a_step_is_that_by_hand(gradients, model_folder, rows, name, weight):
    (ours,), (line,) = gradients(sft_weight=name, demonstration_batch_size=5, gradient_accumulation_steps=2)
    assert apart(ours, by_hand(model_folder, rows, weight)) < 1e-5
    assert (line["sft_trained_loss"] is None) == (name == "nll")
    assert line["sft_loss"] == pytest.approx(gradients(demonstration_batch_size=10)[1][0]["sft_loss"], rel=1e-5)


def test_a_blend_has_the_weighted_gradient_at_its_share(gradients):
    (sft,), _ = gradients(sft_weight="phi", demonstration_batch_size=10)
    (grpo,), _ = gradients(controller=Static(sft_share=0.0), demonstration_batch_size=10)
    (both,), (line,) = gradients(
        controller=Static(sft_share=0.3, mode="blend"), sft_weight="phi", demonstration_batch_size=10
    )
    assert apart(both, 0.3 * sft + 0.7 * grpo) < 1e-5
    assert line["sft_norm"] == pytest.approx(float(sft.norm()), rel=1e-5)


def test_clipped_is_the_likelihood_in_a_windows_first_step_and_other_behind_it(gradients):
    settings = {"demonstration_batch_size": 10, "learning_rate": 1e-2}
    plain, _ = gradients(4, **settings)
    one, _ = gradients(4, sft_weight="clipped", sft_window=1, **settings)
    two, _ = gradients(4, sft_weight="clipped", sft_window=2, **settings)
    for mine, expected in zip(one, plain, strict=True):
        assert apart(mine, expected) < 1e-5
    assert apart(two[0], plain[0]) < 1e-5
    assert apart(two[1], plain[1]) > 1e-2, "a step moved the policy away from p_old"


# ---- the warm-up ----


class Steps(list):
    def step(self, record):
        self.append(record)


def warmed(model_folder, tokenizer, rows, folder, **own):
    from datasets import Dataset

    args = SFTConfig(
        str(folder), max_steps=1, per_device_train_batch_size=5, gradient_accumulation_steps=2, **COMMON
    )  # fmt: skip
    model, steps = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32), Steps()
    warm_up(model, tokenizer, Dataset.from_list(rows), args, norm_window=1, recorder=steps, **own)  # type: ignore[arg-type]
    return steps[0]


@pytest.mark.parametrize("name", ["nll", "dft", "phi", "trust"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_warm_up_has_the_loss_and_the_norm_of_the_hybrid_stage(
    gradients, model_folder, tokenizer, rows, tmp_path, name, packed
):
    line = warmed(model_folder, tokenizer, rows, tmp_path / "warmup", sft_weight=name, packed=packed)
    _, (hybrid,) = gradients(sft_weight=name, demonstration_batch_size=10)
    for key in ("sft_loss", "sft_trained_loss", "sft_norm"):
        assert line[key] == (None if hybrid[key] is None else pytest.approx(hybrid[key], rel=1e-4)), key


@pytest.mark.parametrize(
    ("weight", "arguments"),
    [("clipped", {}), ("dtf", {}), ("phi", {"loss_type": "dft"}), ("phi", {"label_smoothing_factor": 0.1})],
)
def test_the_warm_up_refuses_what_it_cannot_give(model, tokenizer, rows, tmp_path, weight, arguments):
    with pytest.raises(ConfigError) as caught:
        WarmupTrainer(model, SFTConfig(str(tmp_path), **COMMON | arguments), sft_weight=weight)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sft_weight": "phii"}, "phi"),
        ({"sft_window": 3}, "compares with an earlier policy"),
        ({"sft_weight": "clipped", "sft_window": 0}, "one step or more"),
    ],
)
def test_arguments_that_do_nothing_are_refused(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        hybrid_args(tmp_path, **changes)


# ---- stopped and resumed ----


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_window_goes_on_where_it_was_stopped(model_folder, tokenizer, prompts, rows, tmp_path, stop):
    def train(folder, *, until=None, resume=False):
        trainer = HybridTrainer(
            AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
            reward,
            hybrid_args(
                folder, max_steps=7, sft_weight="clipped", sft_window=3, demonstration_batch_size=4, kl_sample=0.0,
                learning_rate=1e-2,
            ),
            prompts,
            processing_class=tokenizer,
            demonstrations=rows,
            controller=SFTOnly(),
            callbacks=[StopAt(until)] if until else None,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])

    whole = train(tmp_path / "whole")
    train(tmp_path / "cut", until=stop)
    assert torch.equal(train(tmp_path / "cut", resume=True), whole)
