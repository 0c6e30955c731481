"""`AlarmCallback` on a trainer that is used as a library."""

from __future__ import annotations

from posttrain import AlarmCallback, alarms
from posttrain.controllers import GRPOOnly
from posttrain.files import read_lines
from posttrain.trainer import HybridTrainer
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
    assert "set num_generations to 8 (now 4)" in raised[0]["advice"]

    folder = tmp_path / "stopped"
    assert train(folder, stop=6) == whole
    lines = [*read_lines(folder / "alarms.jsonl")]
    assert train(folder, resume=str(folder / "checkpoint-6")) == []
    assert read_lines(folder / "alarms.jsonl") == lines == raised

    early = tmp_path / "early"
    train(early, stop=4)
    assert alarms.read(early) == []
    assert train(early, resume=str(early / "checkpoint-4")) == whole, "with the steps before it"
