"""ReLIFT: what waits, when an SFT step is taken, its gradient by hand, and that none of it depends on how it is cut."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from posttrain.controllers import Static
from posttrain.errors import ConfigError
from posttrain.methods import ReLIFT
from posttrain.training.failures import Buffer, cut
from posttrain.training.streams import Stream
from posttrain.training.token_weights import WEIGHTS
from posttrain.training.trainer import HybridTrainer
from tests.distributed.training import Kept
from tests.training.conftest import ROWS, StopAt, hybrid_args


def odd_ones(completions, answer, **kwargs):
    """Solves the prompts whose answer is odd, whatever is sampled; of the others none passes, and groups differ."""
    return [2.0 if a % 2 else 0.05 * len(set(text)) for text, a in zip(completions, answer, strict=True)]


class Weights(TrainerCallback):
    """The policy behind each step, and each step's gradient."""

    def __init__(self):
        self.behind, self.gradients = {}, {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients[state.global_step + 1] = torch.cat([p.grad.flatten().clone() for p in model.parameters()])

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.behind[state.global_step] = flat(model)


def flat(model):
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


def off(one, other):
    return float((one - other).norm() / other.norm())


def trained(model, tokenizer, prompts, demonstrations, folder, method, **changes):
    """A trainer behind its steps, its records, and what `Weights` saw."""
    settings = {"max_steps": 6, "optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0, "kl_sample": 0.5, **changes}
    recorder, weights = Kept(), Weights()
    trainer = HybridTrainer(
        copy.deepcopy(model),
        odd_ones,
        hybrid_args(folder, **settings),
        prompts,
        processing_class=tokenizer,
        demonstrations=demonstrations,
        method=method,
        recorder=recorder,
        callbacks=[weights],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    return trainer, list(recorder.records.values()), weights


def expected(prompts_a_window, room, steps, *, steps_a_window=1):
    """The steps as they should be: an SFT step's prompts, oldest first, `None` for a GRPO step; and how many wait."""
    stream, waiting, plan, left, fresh = Stream(len(ROWS), seed=7, name="prompts"), [], [], 0, False
    for _ in range(steps):
        if not left and fresh and len(waiting) >= room:
            plan.append((waiting[:room], len(waiting) - room))
            waiting, fresh = waiting[room:], False
            continue
        if not left:
            rows = stream.take(prompts_a_window)
            waiting += [row for row in dict.fromkeys(rows) if ROWS[row]["answer"] % 2 == 0 and row not in waiting]
            left, fresh = steps_a_window, True
        left -= 1
        plan.append((None, len(waiting)))
    return plan


@pytest.mark.parametrize(("room", "steps_a_window"), [(3, 1), (2, 2), (1, 1), (60, 1)])
def test_failures_wait_until_they_make_one_sft_step(
    room, steps_a_window, model, tokenizer, prompts, demonstrations, tmp_path
):
    method, steps = ReLIFT(buffer=room), 12
    trainer, records, _ = trained(
        model, tokenizer, prompts, demonstrations, tmp_path, method, max_steps=steps,
        steps_per_generation=steps_a_window,
    )  # fmt: skip
    plan = expected(2 * steps_a_window, room, steps, steps_a_window=steps_a_window)
    assert [bool(record["mix"]["sft"]) for record in records] == [taken is not None for taken, _ in plan]
    assert [record["method"]["waiting"] for record in records] == [left for _, left in plan]
    assert [record["method"]["used"] for record in records] == [len(taken or ()) for taken, _ in plan]
    assert any(taken for taken, _ in plan) == (room < 60)
    for record, (taken, _) in zip(records, plan, strict=True):
        longest = [len(trainer.pairs.ids[trainer.pairs.of[row][0]]) for row in taken or ()]
        assert record["tokens"]["sft"] == sum(longest)
        assert (record["sft_loss"] is None) == (taken is None)
    sampled = sum(record["method"]["entered"] for record in records)
    assert sampled == sum(record["method"]["used"] for record in records) + records[-1]["method"]["waiting"]


def test_one_short_of_the_buffer_is_grpo_alone(model, tokenizer, prompts, demonstrations, tmp_path):
    plan = expected(2, 60, 6)
    short, full = ReLIFT(buffer=plan[3][1] + 1), ReLIFT(buffer=plan[3][1])
    assert plan[3][1] > plan[2][1], "the last window must bring one in"
    runs = [trained(model, tokenizer, prompts, demonstrations, tmp_path, of, max_steps=5) for of in (short, full)]
    (_, without, weights), (_, with_it, _) = runs
    assert [record["mix"]["sft"] for record in without][:5] == [0.0] * 5
    assert [record["mix"]["sft"] for record in with_it] == [0.0] * 4 + [1.0]
    assert with_it[-1]["method"] == {"name": "relift", "waiting": 0, "entered": 0, "used": short.buffer - 1} | {
        "demonstration_loss": None, "demonstration_nll": None,
    }  # fmt: skip
    alone = HybridTrainer(
        copy.deepcopy(model), odd_ones,
        hybrid_args(tmp_path, max_steps=4, optim="sgd", learning_rate=0.5, max_grad_norm=0.0), prompts,
        processing_class=tokenizer, controller="grpo_only",
    )  # fmt: skip
    alone.train()
    torch.testing.assert_close(flat(alone.model), weights.behind[4], rtol=1e-5, atol=1e-6)


CUTS = {
    "one": {"per_device_train_batch_size": 20},
    "two": {"per_device_train_batch_size": 10, "gradient_accumulation_steps": 2},
    "five": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 5},
    "padded": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 5, "packed": False},
    "passes": {"per_device_train_batch_size": 10, "gradient_accumulation_steps": 2, "demonstration_batch_size": 1},
}


@pytest.mark.parametrize("weight", ["nll", "dft", "phi", "trust"])
@pytest.mark.parametrize("room", [2, 3])
def test_the_sft_step_is_the_one_by_hand_however_it_is_cut(
    room, weight, model, tokenizer, prompts, demonstrations, tmp_path
):
    plan = expected(5, room, 2)
    assert plan[1][0]
    assert plan[0][0] is None
    gradients = []
    for cut_by in CUTS.values():
        trainer, records, weights = trained(
            model, tokenizer, prompts, demonstrations, tmp_path, ReLIFT(buffer=room), max_steps=2, sft_weight=weight,
            temperature=0.7, **cut_by,
        )  # fmt: skip
        gradients.append(weights.gradients[2])
        start = copy.deepcopy(model)
        torch.nn.utils.vector_to_parameters(weights.behind[1], start.parameters())
        loss, plain = by_hand(start, tokenizer, trainer, plan[1][0], weight)
        loss.backward()
        by = torch.cat([p.grad.flatten() for p in start.parameters()])
        assert off(gradients[-1], by) < 1e-5
        assert records[1]["sft_loss"] == pytest.approx(plain, rel=1e-5)
        assert records[1]["sft_norm"] == pytest.approx(float(by.norm()), rel=1e-4)
    assert max(off(each, gradients[0]) for each in gradients[1:]) < 1e-5


def by_hand(model, tokenizer, trainer, rows, weight):
    """The weighted NLL of the demonstrations, one mean over their tokens, from single rows; and the plain one."""
    loss, plain, tokens = torch.zeros(()), 0.0, 0
    for row in rows:
        start = tokenizer(ROWS[row]["prompt"])["input_ids"]
        ids = tokenizer(ROWS[row]["completion"])["input_ids"] + [tokenizer.eos_token_id]
        assert trainer.pairs.ids[trainer.pairs.of[row][0]] == ids
        logits = model(torch.tensor([[*start, *ids]])).logits[0, len(start) - 1 : -1]
        logps = logits.log_softmax(-1)[range(len(ids)), ids]
        loss = loss - (WEIGHTS[weight](logps.detach()) * logps).sum()
        plain, tokens = plain - logps.detach().sum().item(), tokens + len(ids)
    return loss / tokens, plain / tokens


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_stopped_anywhere_and_resumed_it_never_stopped(stop, model, tokenizer, prompts, demonstrations, tmp_path):
    settings = {"max_steps": 7, "per_device_train_batch_size": 8, "steps_per_generation": 2, "kl_sample": 0.5}

    def trainer(folder, recorder, **more):
        return HybridTrainer(
            copy.deepcopy(model), odd_ones, hybrid_args(folder, **settings), prompts, processing_class=tokenizer,
            demonstrations=demonstrations, method=ReLIFT(buffer=2), recorder=recorder, **more,
        )  # fmt: skip

    kept, cut_short = Kept(), Kept()
    whole = trainer(tmp_path / "whole", kept)
    whole.train()
    plan = expected(4, 2, 7, steps_a_window=2)
    assert [bool(taken) for taken, _ in plan].count(True) >= 2
    assert len({left for _, left in plan}) > 2
    trainer(tmp_path / "cut", cut_short, callbacks=[StopAt(stop)]).train()
    second = trainer(tmp_path / "cut", cut_short)
    second.train(resume_from_checkpoint=True)
    assert cut_short.records == kept.records
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_prompts_without_a_demonstration_do_not_wait(model, tokenizer, prompts, tmp_path):
    some = Dataset.from_list(ROWS[:12])
    _, records, _ = trained(model, tokenizer, prompts, some, tmp_path, ReLIFT(buffer=60), max_steps=12)
    seen = {row for row in Stream(len(ROWS), seed=7, name="prompts").take(24) if ROWS[row]["answer"] % 2 == 0}
    assert records[-1]["method"]["waiting"] == len([row for row in seen if row < 12])
    reasons = {reason for record in records for reason in record["method"]["groups"]}
    assert reasons == {
        "some of 4 solved: GRPO", "none of 4 solved, no demonstration: GRPO",
        "none of 4 solved: GRPO, the demonstration waits",
    }  # fmt: skip


def test_what_waits_is_oldest_first_and_each_prompt_once():
    buffer = Buffer(3)
    assert buffer.mix() is None
    buffer.enter([])
    assert buffer.mix() is None
    buffer.enter([(5, 50), (4, 40), (5, 51)])
    assert (buffer.waiting, buffer.mix()) == ([(5, 50), (4, 40)], None)
    buffer.enter([(4, 41), (9, 90), (8, 80), (7, 70), (6, 60), (3, 30)])
    assert buffer.facts() == {"waiting": 7, "entered": 7, "used": 0}
    assert buffer.mix() is not None
    assert "3 of 7" in buffer.mix().reason
    buffer.begin_step()
    assert buffer.take() == [(5, 50), (4, 40), (9, 90)]
    assert buffer.facts() == {"waiting": 4, "entered": 0, "used": 3}
    assert buffer.mix() is None, "one SFT step behind a window, though four wait"
    again = Buffer(3)
    again.load(buffer.state(), {8: [80], 7: [70], 6: [60], 3: [30]})
    assert (again.waiting, again.mix()) == (buffer.waiting, None)
    again.enter([])
    assert again.take() == [(8, 80), (7, 70), (6, 60)]
    with pytest.warns(UserWarning, match="2 of 4 demonstrations that waited"):
        again.load(buffer.state(), {8: [80], 7: [71], 3: [30]})
    assert again.waiting == [(8, 80), (3, 30)]


def test_rows_are_cut_so_that_every_process_makes_every_pass():
    assert cut(5, ticks=2, processes=2, most=4) == [[[0, 4], [2]], [[1], [3]]]
    assert cut(5, ticks=2, processes=2, most=1) == [[[0], [2], [4], []], [[1], [3], [], []]]
    assert cut(1, ticks=2, processes=1, most=8) == [[[0], []]]
    for rows in range(1, 40):
        for ticks, processes, most in ((1, 1, 4), (3, 2, 4), (5, 4, 1)):
            passes = cut(rows, ticks=ticks, processes=processes, most=most)
            assert sorted(row for of in passes for each in of for row in each) == list(range(rows))
            assert max(len(each) for of in passes for each in of) <= most
            assert {len(of) % ticks for of in passes} == {0}
            assert len({len(of) for of in passes}) == 1


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"controller": Static(sft_share=0.5)}, "takes SFT steps, and so does the method relift"),
        ({"sft_weight": "clipped"}, "it would be nll"),
    ],
)
def test_what_it_does_not_go_with(changes, seen, model, tokenizer, prompts, demonstrations, tmp_path):
    more = {name: changes.pop(name) for name in ("controller",) if name in changes}
    with pytest.raises(ConfigError, match=seen):
        HybridTrainer(
            model, odd_ones, hybrid_args(tmp_path, **changes), prompts, processing_class=tokenizer,
            demonstrations=demonstrations, method="relift", **more,
        )  # fmt: skip
