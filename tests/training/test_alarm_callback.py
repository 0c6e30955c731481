"""`AlarmCallback` on a trainer that is used as a library."""

from __future__ import annotations

import errno

import pytest

from posttrain import AlarmCallback, alarms
from posttrain.controllers import GRPOOnly
from posttrain.errors import CheckpointError
from posttrain.storage.files import read_lines
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import StopAt, hybrid_args


def nothing(completions, **columns):
    return [0.0] * len(completions)


def test_it_says_and_keeps_alarms_and_takes_them_up_again(model, tokenizer, prompts, tmp_path):
    def train(folder, *, stop=None, resume=None):
        trainer = HybridTrainer(
            model,
            nothing,
            hybrid_args(folder, max_steps=7, kl_sample=0.0, save_strategy="no"),
            prompts,
            processing_class=tokenizer,
            controller=GRPOOnly(),
            callbacks=[StopAt(stop)] if stop else [],
        )
        said = []
        trainer.add_callback(AlarmCallback(trainer, say=said.append))
        trainer.train(resume_from_checkpoint=resume)
        return said

    whole = train(tmp_path / "whole")
    assert [text.partition(":")[0] for text in whole] == ["problem at step 5"] * 2
    raised = alarms.read(tmp_path / "whole")
    assert {line["kind"] for line in raised} == {"dead_groups", "truncation"}
    advice = {line["kind"]: line["advice"] for line in raised}
    assert "a longer warm-up" in advice["dead_groups"]
    assert "max_completion_length to 12 (now 6)" in advice["truncation"]
    assert not any("hybrid." in text for text in advice.values()), "there is no recipe"

    folder = tmp_path / "stopped"
    assert train(folder, stop=6) == whole
    lines = [*read_lines(folder / "alarms.jsonl")]
    assert train(folder, resume=str(folder / "checkpoint-6")) == []
    assert read_lines(folder / "alarms.jsonl") == lines == raised

    early = tmp_path / "early"
    train(early, stop=4)
    assert alarms.read(early) == []
    assert train(early, resume=str(early / "checkpoint-4")) == whole, "with the steps before it"


@pytest.fixture
def trained(model, tokenizer, prompts, tmp_path):
    """`trained(reward, steps, ...)`: what the alarms of a run in `tmp_path` said, and its records."""

    def train(reward=nothing, steps=6, resume=None, every=0, **options):
        trainer = HybridTrainer(
            model,
            reward,
            hybrid_args(tmp_path, max_steps=steps, kl_sample=0.0, save_strategy="no", completions_every=every),
            prompts,
            processing_class=tokenizer,
            controller=GRPOOnly(),
            callbacks=[StopAt(options["stop"])] if "stop" in options else [],
        )
        said = []
        trainer.add_callback(AlarmCallback(trainer, say=said.append))
        trainer.train(resume_from_checkpoint=resume)
        return said, read_lines(tmp_path / "steps.jsonl")

    return train


def raises(error):
    def fail(*_, **__):
        raise error

    return fail


def test_an_alarm_that_cannot_be_worked_out_ends_the_alarms_only(trained, monkeypatch):
    monkeypatch.setattr("posttrain.alarms.Watch.look", raises(OverflowError("too large")))
    said, steps = trained(steps=3)
    assert said == ["no more alarms in this session, for this failed: OverflowError: too large"]
    assert len(steps) == 3


def test_a_full_disk_ends_training(trained, monkeypatch):
    full = CheckpointError("could not be written")
    full.__cause__ = OSError(errno.ENOSPC, "no space left")
    monkeypatch.setattr("posttrain.running.alarm_callback.append_line", raises(full))
    with pytest.raises(CheckpointError):
        trained(steps=5)


def test_facts_that_fail_are_left_out(trained, monkeypatch):
    monkeypatch.setattr("posttrain.training.grpo_side.rollout_facts", raises(ZeroDivisionError("no groups")))
    with pytest.warns(UserWarning, match="alarms do not see the completions any more.*ZeroDivisionError") as told:
        _, steps = trained(steps=3)
    assert len([each for each in told if "alarms do not see" in str(each.message)]) == 1
    assert [line["sampled"] for line in steps] == [None] * 3


@pytest.mark.parametrize("broken", ["{torn\n", '{"kind": "no step"}\n'])
def test_alarms_that_are_damaged_are_made_anew(trained, tmp_path, broken):
    trained(stop=6, steps=7)
    before = (tmp_path / "alarms.jsonl").read_text()
    first, rest = before.split("\n", 1)
    (tmp_path / "alarms.jsonl").write_text(first + "\n" + broken + rest)
    said, steps = trained(steps=7, resume=str(tmp_path / "checkpoint-6"))
    assert len(steps) == 7
    assert [text.partition(":")[0] for text in said] == ["alarms.jsonl is damaged and made anew from steps.jsonl"]
    assert (tmp_path / "alarms.jsonl").read_text() == before


def test_notes_are_gathered_only_where_completions_are_kept(trained, monkeypatch):
    from posttrain.training import grpo_side

    gathered, gather = [], grpo_side.gather_object

    def seen(rows):
        gathered.append({"note" in row for row in rows})
        return gather(rows)

    monkeypatch.setattr(grpo_side, "gather_object", seen)
    _, steps = trained(steps=3, every=2)
    assert gathered == [{True}, {True}, {False}]
    assert all(line["sampled"]["completions"] == 8 for line in steps)
