"""Methods on real steps: the gradient by hand, the same however a step is cut, and what is refused."""

from __future__ import annotations

import copy
import math
import warnings
import zlib

import pytest
import torch
from datasets import Dataset

from posttrain.errors import ConfigError, DataError
from posttrain.methods import HPT, LUFFY, RLSD, SRFT, UFT, Escalate, PrefixRFT
from posttrain.training.token_weights import WEIGHTS
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import ROWS, StopAt, hybrid_args

METHODS = {
    "hpt": HPT(gate=2, coefficient=0.7),
    "luffy": LUFFY(),
    "rl_plus": LUFFY(ratio="rl_plus", normalise=True),
    "prefix_rft": PrefixRFT(kept=0.5),
    "uft": UFT(weight=0.3, hinted=1.0),
    "trapo": Escalate(blocks=(2, 1, 1), below=(2, 3), shares=(0.5, 1.0), credit=0.8),
    "ghpo": Escalate(form="ghpo", below=(2, 2, 2)),
    "rlsd": RLSD(),
    "sdpg": RLSD(share=0.0, teacher_kl=0.5),
    "srft": SRFT(),
}

LARGE = 1000.0
"""The learning rate: what is small of a gradient is not lost where it is added to a weight."""


def solved(completions, answer, **kwargs):
    """A demonstration scores 1; a random policy now and then."""
    return [float(str(a) in text or len(text) % 2) for text, a in zip(completions, answer, strict=True)]


def picky(completions, **kwargs):
    """Of any completions about a third are solved, so that groups differ however they begin."""
    return [float(zlib.crc32(text.encode()) % 3 == 0) for text in completions]


def reward_for(method):
    return picky if method.escalates else solved


def trained(model, tokenizer, prompts, demonstrations, folder, method, **changes):
    """A trainer behind its steps, and the model that it began with."""
    start = copy.deepcopy(model)
    settings = {"max_steps": 1, "optim": "sgd", "learning_rate": LARGE, "max_grad_norm": 0.0, **changes}
    trainer = HybridTrainer(
        copy.deepcopy(model),
        reward_for(method),
        hybrid_args(folder, **settings),
        prompts,
        processing_class=tokenizer,
        demonstrations=demonstrations,
        method=method,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    return trainer, start


def moved(trainer, start):
    """The step's gradient, which SGD has subtracted."""
    with torch.no_grad():
        pairs = zip(start.parameters(), trainer.model.parameters(), strict=True)
        return torch.cat([(before - after).flatten() for before, after in pairs]) / LARGE


def off(one, other):
    return float((one - other).norm() / other.norm())


BY_HAND = [name for name in METHODS if name not in ("rlsd", "sdpg", "srft")]  # which have files of their own
WEIGHED = [("hpt", "dft"), ("hpt", "phi"), ("hpt", "trust"), ("uft", "dft"), ("uft", "trust")]


@pytest.mark.parametrize(("name", "weight"), [*((name, "nll") for name in BY_HAND), *WEIGHED])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_the_gradient_is_the_one_by_hand(name, weight, packed, model, tokenizer, prompts, demonstrations, tmp_path):
    method = METHODS[name]
    trainer, start = trained(
        model, tokenizer, prompts, demonstrations, tmp_path, method, packed=packed, per_device_train_batch_size=16,
        sft_weight=weight,
    )  # fmt: skip
    by_hand(trainer, start, method).backward()
    expected = torch.cat([p.grad.flatten() for p in start.parameters()])
    assert off(moved(trainer, start), expected) < 1e-5


def by_hand(trainer, model, method):
    """The step's loss from single rows without padding."""
    weight = trainer.args.sft_weight
    share, pairs = trainer._share, trainer.pairs
    rows = [row(share, place) for place in range(len(share["completion_ids"]))]
    group = trainer.num_generations
    whole = [
        (rows[place][0], pairs.ids[int(share["demonstration"][place])], float(share["whole"][place]))
        for place in range(0, len(rows), group)
        if share["whole"][place]
    ]
    assert whole or method.begins_rollouts
    given = share["demonstrated"].sum(dim=1).tolist()
    own = method.prefix == "own"
    sampled = sum(len(ids) - (count if own else 0) for (_, ids), count in zip(rows, given, strict=True))
    shown = sum(len(ids) for _, ids, _ in whole)
    learned = sum(count for place, count in enumerate(given) if share["credit"][place]) if method.escalates else 0
    loss = torch.zeros(())
    for place, (prompt, ids) in enumerate(rows):
        logps, entropies = scores(model, prompt, ids)
        advantage, count = float(share["advantages"][place]), given[place]
        weights = torch.full((len(ids),), advantage)
        if own:
            weights[:count] = 0.0
            if count and method.prefix_credit and not method.escalates:
                shown_loss = (WEIGHTS[weight](logps.detach()) * logps)[:count].sum()
                loss = loss - method.prefix_credit * shown_loss / sum(given)
            elif float(share["credit"][place]):
                p = logps[:count].exp()
                loss = loss - (method.credit * p / p.detach().clamp(min=method.alpha)).sum() / (sampled + learned)
        elif count:
            most = math.ceil(count * method.kept)
            surer = entropies[:count].argsort(descending=True)[most:]
            weights[surer] = 0.0
        divisor = sampled + learned + (shown if method.divisor == "rollouts" else 0)
        loss = loss - (weights * logps).sum() / divisor
    for prompt, ids, credit in whole:
        logps, _ = scores(model, prompt, ids)
        if method.name == "hpt":
            loss = loss - credit * (WEIGHTS[weight](logps.detach()) * logps).sum() / shown
            continue
        p = logps.exp()
        if method.ratio == "shaped":
            losses = -credit * p / (p + method.gamma)
        else:
            q = p.detach()
            losses = -credit * 2 * p / (q + 0.5 * (q + 1)) * (1 - q).sqrt()
        loss = loss + losses.sum() / (sampled + shown)
    return loss


def row(share, place):
    return tuple(
        share[f"{name}_ids"][place][share[f"{name}_mask"][place].bool()].tolist() for name in ("prompt", "completion")
    )


def scores(model, prompt, ids):
    logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    logps = logits.log_softmax(-1)
    return logps[range(len(ids)), ids], -(logps.exp() * logps).sum(-1).detach()


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_the_same_however_it_is_cut(name, model, tokenizer, prompts, demonstrations, tmp_path):
    gradients = []
    for batch, accumulation, packed in ((20, 1, True), (10, 2, True), (4, 5, True), (4, 5, False)):
        trainer, start = trained(
            model, tokenizer, prompts, demonstrations, tmp_path, METHODS[name],
            per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, packed=packed,
        )  # fmt: skip
        gradients.append(moved(trainer, start))
        assert trainer.last_record["method"]["name"] == METHODS[name].name
    assert max(off(each, gradients[0]) for each in gradients[1:]) < 1e-5


@pytest.mark.parametrize("name", ["hpt", "luffy", "uft", "trapo", "sdpg", "srft"])
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo"])
def test_with_losses_that_divide_by_rows(name, loss_type, model, tokenizer, prompts, demonstrations, tmp_path):
    gradients = []
    for batch, accumulation in ((20, 1), (4, 5)):
        trainer, start = trained(
            model, tokenizer, prompts, demonstrations, tmp_path, METHODS[name], loss_type=loss_type, beta=0.1,
            per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
        )  # fmt: skip
        gradients.append(moved(trainer, start))
    assert off(gradients[1], gradients[0]) < 1e-5


@pytest.mark.parametrize("name", METHODS)
def test_stopped_inside_a_window_and_resumed_it_never_stopped(
    name, model_folder, model, tokenizer, prompts, demonstrations, tmp_path
):
    settings = {"max_steps": 4, "per_device_train_batch_size": 8, "steps_per_generation": 2, "save_strategy": "no"}

    def trainer(folder, model, **more):
        return HybridTrainer(
            model, reward_for(METHODS[name]), hybrid_args(folder, **settings), prompts, processing_class=tokenizer,
            demonstrations=demonstrations, method=METHODS[name], **more,
        )  # fmt: skip

    whole = trainer(tmp_path / "whole", copy.deepcopy(model))
    whole.train()
    first = trainer(tmp_path / "cut", copy.deepcopy(model), callbacks=[StopAt(3)])
    first.train()
    second = trainer(tmp_path / "cut", copy.deepcopy(model))
    second.train(resume_from_checkpoint=True)
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_gate_that_never_opens_is_grpo_and_no_advantage_is_sft(model, tokenizer, prompts, demonstrations, tmp_path):
    closed, start = trained(model, tokenizer, prompts, demonstrations, tmp_path, HPT(gate=0, passing=-1.0))
    alone = HybridTrainer(
        copy.deepcopy(model),
        solved,
        hybrid_args(tmp_path, max_steps=1, optim="sgd", learning_rate=LARGE, max_grad_norm=0.0),
        prompts,
        processing_class=tokenizer,
        controller="grpo_only",
    )
    alone.train()
    assert off(moved(closed, start), moved(alone, start)) < 1e-6
    assert closed.last_record["method"]["demonstrations"] == 0
    opened, start = trained(model, tokenizer, prompts, demonstrations, tmp_path, HPT(gate=4))
    assert opened.last_record["method"]["demonstrations"] == 2
    assert opened.last_record["grpo_loss"] == 0.0


def test_rows_may_carry_their_demonstrations(model, tokenizer, tmp_path):
    rows = [{"prompt": row["prompt"], "answer": row["answer"], "demonstration": [row["completion"]]} for row in ROWS]
    trainer, _ = trained(model, tokenizer, Dataset.from_list(rows), None, tmp_path, HPT(gate=4))
    assert trainer.last_record["method"]["demonstrations"] == 2


def test_demonstrations_of_other_prompts_are_counted_and_none_at_all_is_refused(
    model, tokenizer, prompts, demonstrations, tmp_path
):
    half = demonstrations.select(range(10))
    more = [*half, {"prompt": "9 plus 9 is", "completion": " 18.", "answer": 18}]
    args = {"processing_class": tokenizer, "method": "hpt"}
    with pytest.warns(UserWarning, match="10 of 25 prompts have a demonstration; 1 demonstrations have another prompt"):
        HybridTrainer(model, solved, hybrid_args(tmp_path), prompts, demonstrations=more, **args)
    with pytest.raises(DataError, match="none of 25 prompts has a demonstration"):
        HybridTrainer(model, solved, hybrid_args(tmp_path), prompts, demonstrations=more[-1:], **args)


def test_a_demonstration_beyond_the_limit_is_never_cut(model, tokenizer, prompts, demonstrations, tmp_path):
    args = hybrid_args(tmp_path, max_completion_length=2)
    with pytest.raises(DataError, match="tokens, and a completion at most 2"):
        HybridTrainer(
            model, solved, args, prompts, processing_class=tokenizer, demonstrations=demonstrations,
            method=HPT(too_long="refuse"),
        )  # fmt: skip
    with pytest.raises(DataError, match="25 are longer"):
        HybridTrainer(
            model, solved, args, prompts, processing_class=tokenizer, demonstrations=demonstrations, method="hpt"
        )


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"loss_type": "bnpo"}, "loss_type: bnpo"),
        ({"num_iterations": 2}, "num_iterations: 2"),
        ({"mask_truncated_completions": True}, "mask_truncated_completions"),
    ],
)
def test_what_a_method_does_not_go_with_is_refused(changes, seen, model, tokenizer, prompts, demonstrations, tmp_path):
    with pytest.raises(ConfigError, match=seen):
        HybridTrainer(
            model, solved, hybrid_args(tmp_path, **changes), prompts, processing_class=tokenizer,
            demonstrations=demonstrations, method="luffy",
        )  # fmt: skip


@pytest.mark.parametrize("method", ["luffy", "srft"])
def test_a_scale_of_advantages_that_a_method_makes_itself_is_refused(
    method, model, tokenizer, prompts, demonstrations, tmp_path
):
    with pytest.raises(ConfigError, match="scale_rewards: none, which has no effect"):
        HybridTrainer(
            model, solved, hybrid_args(tmp_path, scale_rewards="none"), prompts, processing_class=tokenizer,
            demonstrations=demonstrations, method=method,
        )  # fmt: skip


def test_a_controller_without_grpo_steps_is_refused(model, tokenizer, prompts, demonstrations, tmp_path):
    with pytest.raises(ConfigError, match="'sft_only' takes no GRPO step, of which the method hpt is"):
        HybridTrainer(
            model, solved, hybrid_args(tmp_path), prompts, processing_class=tokenizer,
            demonstrations=demonstrations, method="hpt", controller="sft_only",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "weight", "seen"),
    [
        ("luffy", "dft", "luffy trains on no demonstration by its likelihood"),
        ("prefix_rft", "phi", "prefix_rft trains on no demonstration by its likelihood"),
        ("rlsd", "dft", "rlsd trains on no demonstration by its likelihood"),
        ("hpt", "clipped", "the method hpt trains on a demonstration once"),
        (None, "dft", "takes no SFT steps"),
    ],
)
def test_a_weight_that_would_have_no_effect_is_refused(
    method, weight, seen, model, tokenizer, prompts, demonstrations, tmp_path
):
    with pytest.raises(ConfigError, match=seen):
        HybridTrainer(
            model, solved, hybrid_args(tmp_path, sft_weight=weight), prompts, processing_class=tokenizer,
            demonstrations=demonstrations, method=method, controller="grpo_only",
        )  # fmt: skip


def test_a_weight_of_the_sft_half_goes_with_a_loss_of_its_own(model, tokenizer, prompts, demonstrations, tmp_path):
    HybridTrainer(
        model, solved, hybrid_args(tmp_path, sft_weight="dft"), prompts, processing_class=tokenizer,
        demonstrations=demonstrations, method="luffy", controller="static",
    )  # fmt: skip


def test_a_method_that_there_is_not(model, tokenizer, prompts, tmp_path):
    with pytest.raises(ConfigError, match=r"no method named 'hptt' \(nearest: 'hpt'\)"):
        HybridTrainer(model, solved, hybrid_args(tmp_path), prompts, processing_class=tokenizer, method="hptt")
