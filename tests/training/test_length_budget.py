"""A budget of tokens that decays, is told and is paid; and the likelihood of what RL does not select."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain.controllers import Alternate, GRPOOnly, SFTOnly
from posttrain.errors import ConfigError
from posttrain.inputs.data import IGNORED
from posttrain.methods import LUFFY
from posttrain.rewards import length_budget
from posttrain.training.length_budget import LengthBudget
from posttrain.training.trainer import HybridTrainer
from tests.rewards.voting import by_budget
from tests.training.conftest import StopAt, hybrid_args, reward
from tests.training.test_token_weights import apart, gradients, rows  # noqa: F401


@pytest.mark.parametrize(("share", "tokens"), [(0.0, 800), (0.5, 357), (1.0, 160), (2.0, 160)])
def test_the_budget_is_the_papers(share, tokens):
    assert LengthBudget().tokens(share) == tokens


def test_no_budget_is_below_the_least():
    assert LengthBudget(start=8, rate=0.1, least=3).tokens(1.0) == 3


@pytest.mark.parametrize(("tokens", "value"), [(0, 0.0), (50, 0.5), (100, 1.0), (150, 0.5), (200, 0.0), (900, 0.0)])
def test_the_reward_rises_to_the_budget_and_falls_to_its_double(tokens, value):
    assert length_budget.score("", token_budget=100, completion_tokens=tokens).value == pytest.approx(value)
    assert length_budget.score("", completion_tokens=tokens) is None


def test_it_is_told_behind_text_and_behind_the_last_user_message():
    budget = LengthBudget(start=9, prompt="At most {budget}.")
    assert budget.told({"prompt": "2 + 2?"}, 0.0) == {"prompt": "2 + 2?\nAt most 9.", "token_budget": 9}
    asked = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "<think>"}]
    told = budget.told({"prompt": asked}, 0.0)["prompt"]
    assert told == [{"role": "user", "content": "2 + 2?\n\nAt most 9."}, asked[1]]
    assert asked[0]["content"] == "2 + 2?", "the data set's own row stays as it is"
    parts = [{"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}]
    assert budget.told({"prompt": parts}, 0.0)["prompt"][0]["content"][1] == {"type": "text", "text": "At most 9."}
    assert LengthBudget(prompt=None).told({"prompt": "x"}, 1.0) == {"prompt": "x", "token_budget": 160}


SETTINGS = {
    "max_steps": 4, "completions_every": 1, "kl_sample": 0.0, "learning_rate": 1e-2, "steps_per_generation": 2,
    "length_budget": {"start": 6, "rate": 0.25, "prompt": " {budget}"},
}  # fmt: skip


class Kept:
    def __init__(self):
        self.rows = []

    def step(self, record):
        pass

    def completions(self, step, written):
        self.rows.extend(written)


def trained(model_folder, tokenizer, prompts, folder, *, until=None, resume=False, **changes):
    kept = Kept()
    trainer = HybridTrainer(
        AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32), by_budget,
        hybrid_args(folder, **{**SETTINGS, **changes}), prompts, processing_class=tokenizer, controller=GRPOOnly(),
        recorder=kept, callbacks=[StopAt(until)] if until else None,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()]), kept.rows


def test_a_training_tells_and_pays_and_goes_on_as_if_never_stopped(model_folder, tokenizer, prompts, tmp_path):
    whole, kept = trained(model_folder, tokenizer, prompts, tmp_path / "whole")
    budgets = {1: 6, 3: 3}  # of the first and the third step, at which a window of two steps is sampled
    assert {row["step"] for row in kept} == set(budgets)
    for row in kept:
        budget = budgets[row["step"]]
        assert row["prompt"].endswith(f"is\n {budget}")
        ratio = row["length"] / budget
        assert row["reward/by_budget"] == pytest.approx(max(0.0, min(ratio, 2 - ratio)))
    trained(model_folder, tokenizer, prompts, tmp_path / "cut", until=3)
    assert torch.equal(trained(model_folder, tokenizer, prompts, tmp_path / "cut", resume=True)[0], whole)


@pytest.mark.parametrize(
    ("changes", "given", "said"),
    [
        ({"length_budget": {"begin": 3}}, {}, "length_budget with begin"),
        ({"length_budget": {"least": 3, "start": 2}}, {}, "least <= start"),
        ({"length_budget": {"prompt": "be short"}}, {}, "where the number stands"),
        ({"length_budget": {"start": 5}}, {"method": LUFFY()}, "were told none"),
        ({"length_budget": {"start": 5}}, {"controller": SFTOnly()}, "samples nothing"),
        ({"sft_weight": "unselected"}, {}, "'unselected' without tokens"),
    ],
)
def test_what_makes_no_budget_is_refused(model, tokenizer, prompts, demonstrations, tmp_path, changes, given, said):
    with pytest.raises(ConfigError, match=said):
        HybridTrainer(
            model, reward, hybrid_args(tmp_path, **changes), prompts, processing_class=tokenizer,
            demonstrations=demonstrations, **given,
        )  # fmt: skip


def test_a_column_that_the_budget_would_replace_is_refused(model, tokenizer, prompts, tmp_path):
    told = prompts.add_column("token_budget", [5] * len(prompts))
    with pytest.raises(ConfigError, match="has a column 'token_budget'"):
        HybridTrainer(
            model, reward, hybrid_args(tmp_path, length_budget={"start": 5}), told, processing_class=tokenizer,
            controller=GRPOOnly(),
        )  # fmt: skip


# ---- the dual loss ----


def by_hand(model_folder, tokens, share):
    """The gradient of the NLL of what is not selected, over all label tokens, row by row; and how many are selected."""
    model, hard_ones = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32), 0
    count = sum(label != IGNORED for row in tokens for label in row["labels"][1:])
    for row in tokens:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        scored = labels != IGNORED
        logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1)[scored]
        hard = -(-len(logps) * share // 1) if share < 1 else 0
        chosen = (-(logps.exp() * logps).sum(1)).detach().topk(int(hard)).indices
        taken = logps.gather(1, labels[scored, None])[:, 0]
        easy = torch.ones_like(taken).index_fill(0, chosen, 0.0)
        hard_ones += len(chosen)
        (-(easy * taken).sum() / count).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()]), hard_ones


@pytest.mark.parametrize(("packed", "size", "pieces"), [(True, 10, 1), (False, 5, 2), (True, 2, 5)])
def test_the_likelihood_is_of_what_is_not_selected(gradients, model_folder, rows, packed, size, pieces):  # noqa: F811
    made, lines = gradients(
        1, sft_weight="unselected", tokens={"top_entropy": 0.25}, controller=Alternate(), packed=packed,
        demonstration_batch_size=size, gradient_accumulation_steps=pieces,
    )  # fmt: skip
    expected, hard = by_hand(model_folder, rows, 0.25)
    assert hard > 0
    assert apart(made[0], expected) < 1e-5
    assert lines[0]["sft_trained_loss"] < lines[0]["sft_loss"]
