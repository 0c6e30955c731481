"""Resuming equals never stopping, bit for bit: at epoch >= 1, inside a generation window, right after a switch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, set_seed
from trl import SFTConfig

from posttrain.controllers import SASR, Alternate, GRPOOnly, Static
from posttrain.errors import CheckpointError, ResumeError
from posttrain.storage.checkpoints import latest_checkpoint
from posttrain.training.checkpoints.resume_state import STATE
from posttrain.training.trainer import HybridTrainer
from posttrain.training.warmup import WarmupTrainer
from tests.training.conftest import COMMON, StopAt, hybrid_args, reward

STEPS = 10  # with 4 groups of 4 a step and 25 prompts, the prompts' second epoch begins in step 7


def train(common, folder, controller, size=8, *, stop=None, resume=False, lora=False, **changes):
    model_folder, tokenizer, prompts, demonstrations = common
    set_seed(99 if resume else 1234)  # a resumed run must not depend on the random state it starts in
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    if lora:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    trainer = HybridTrainer(
        model,
        reward,
        hybrid_args(folder, max_steps=STEPS, per_device_train_batch_size=size, kl_sample=1.0, **changes),
        prompts,
        processing_class=tokenizer,
        demonstrations=demonstrations,
        controller=controller,
        callbacks=[StopAt(stop)] if stop else None,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def lines(folder) -> dict[int, dict]:
    """By step; a step that was done twice counts once, the later time. Clock times apart."""
    with (folder / "steps.jsonl").open() as file:
        records = [json.loads(line) for line in file]
    return {record["step"]: {k: v for k, v in record.items() if k not in ("seconds", "spent")} for record in records}


@pytest.mark.parametrize(
    ("controller", "stop", "size", "changes"),
    [
        (SASR(gamma=1.0, refresh_every=2), 5, 16, {}),
        (SASR(gamma=1.0), 8, 16, {}),
        (Alternate(sft_steps=2, grpo_steps=3), 3, 16, {}),
        (Alternate(sft_steps=2, grpo_steps=3), 5, 16, {}),
        (GRPOOnly(), 6, 4, {"steps_per_generation": 4}),
        (Alternate(sft_steps=1, grpo_steps=3), 6, 16, {"num_iterations": 2, "gradient_accumulation_steps": 2}),
        (SASR(mode="blend", match_norms=True), 4, 16, {"lr_scheduler_type": "cosine"}),
        (SASR(), 5, 16, {"lr_scheduler_type": "wsd_s", "lr_scheduler_kwargs": {"cycles": 2, "num_decay_steps": 3}}),
        (SASR(), 5, 16, {"optim": "frugal", "optim_args": "density=0.5,update_gap=3"}),
        (SASR(), 5, 16, {"lora": True, "learning_rate": 1e-2}),
        (SASR(), 5, 16, {"lora": True, "learning_rate": 1e-2, "beta": 0.1}),
        (SASR(), 5, 16, {"beta": 0.1}),
    ],
    ids=[
        *(
            "sasr",
            "second-epoch",
            "after-sft",
            "after-grpo",
            "inside-window",
            "inside-iterations",
            "blend",
            "wsd-s",
            "frugal",
        ),
        *("lora", "lora-beta", "beta"),
    ],
)
def test_resuming_equals_never_stopping(
    model_folder, tokenizer, prompts, demonstrations, tmp_path, controller, stop, size, changes
):
    common = (model_folder, tokenizer, prompts, demonstrations)
    whole = train(common, tmp_path / "whole", controller, size, **changes)
    train(common, tmp_path / "cut", controller, size, stop=stop, **changes)
    resumed = train(common, tmp_path / "cut", controller, size, resume=True, **changes)
    assert resumed.state.global_step == STEPS
    for (name, a), b in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert lines(tmp_path / "whole") == lines(tmp_path / "cut")


def test_a_torn_checkpoint_is_passed_over(model_folder, tokenizer, prompts, demonstrations, tmp_path):
    common = (model_folder, tokenizer, prompts, demonstrations)
    whole = train(common, tmp_path, SASR(), save_strategy="steps", save_steps=4)
    (tmp_path / "checkpoint-8" / "optimizer.pt").write_bytes(b"torn")
    shutil.rmtree(tmp_path / "checkpoint-10", ignore_errors=True)
    assert latest_checkpoint(tmp_path).name == "checkpoint-4"
    resumed = train(common, tmp_path, SASR(), resume=True)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_full_disk_leaves_the_previous_checkpoint_whole(
    model_folder, tokenizer, prompts, demonstrations, tmp_path, monkeypatch
):
    def no_room(checkpoint, state):
        raise OSError(28, "No space left on device")

    common = (model_folder, tokenizer, prompts, demonstrations)
    saving = {"save_strategy": "steps", "save_steps": 6}
    train(common, tmp_path, SASR(), stop=4, **saving)
    monkeypatch.setattr("posttrain.training.checkpoints.hybrid.save_state", no_room)
    with pytest.raises(CheckpointError, match=r"checkpoint-6 could not be written.*\n.*\n.*checkpoint-4 is whole"):
        train(common, tmp_path, SASR(), resume=True, **saving)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]
    assert train(common, tmp_path, SASR(), resume=True).state.global_step == STEPS


def test_another_model_is_refused(model_folder, tokenizer, prompts, demonstrations, tmp_path):
    common = (model_folder, tokenizer, prompts, demonstrations)
    train(common, tmp_path, SASR(), stop=2)
    other = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    trainer = HybridTrainer(
        other,
        reward,
        hybrid_args(tmp_path, max_steps=STEPS, kl_sample=1.0),
        prompts,
        processing_class=tokenizer,
        demonstrations=demonstrations,
    )
    with pytest.raises(ResumeError, match="not the one that this run began with"):
        trainer.train(resume_from_checkpoint=True)


def test_a_torn_checkpoint_is_passed_over_with_a_warning(model_folder, tokenizer, prompts, demonstrations, tmp_path):
    common = (model_folder, tokenizer, prompts, demonstrations)
    train(common, tmp_path / "torn", SASR(), stop=4, save_strategy="steps", save_steps=2)
    weights = tmp_path / "torn" / "checkpoint-4" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.warns(UserWarning, match="a torn checkpoint was passed over, checkpoint-4: model.safetensors"):
        train(common, tmp_path / "torn", SASR(), resume=True)
    train(common, tmp_path / "whole", SASR())
    assert lines(tmp_path / "torn") == lines(tmp_path / "whole")


def test_a_checkpoint_without_its_optimizer_is_not_gone_on_from(
    model_folder, tokenizer, prompts, demonstrations, tmp_path
):
    common = (model_folder, tokenizer, prompts, demonstrations)
    train(common, tmp_path, SASR(), stop=2)
    for name in ("optimizer.pt", "scheduler.pt"):
        copy = shutil.copytree(tmp_path / "checkpoint-2", tmp_path / name / "checkpoint-2")
        (copy / name).unlink()
        with pytest.raises(ResumeError, match=f"checkpoint-2 lacks the .*{name}.*: training would start them anew"):
            train(common, tmp_path / name, SASR(), resume=str(copy))


def test_a_warmup_that_saved_the_model_alone_is_not_gone_on_from(model_folder, tokenizer, demonstrations, tmp_path):
    settings = {**COMMON, "output_dir": str(tmp_path), "max_steps": 2, "save_steps": 1, "save_only_model": True}
    args = SFTConfig(**{**settings, "save_strategy": "steps"})
    trainer = WarmupTrainer(str(model_folder), args, train_dataset=demonstrations, processing_class=tokenizer)
    trainer.train()
    with pytest.raises(ResumeError, match=r"checkpoint-2 lacks .*optimizer.pt\) and .*scheduler.pt"):
        trainer.train(resume_from_checkpoint=True)


def test_what_is_added_to_a_checkpoint_waits_for_no_other_process_to_make_its_folder(
    model, tokenizer, prompts, tmp_path
):
    trainer = HybridTrainer(
        model, reward, hybrid_args(tmp_path), prompts, processing_class=tokenizer, controller=GRPOOnly()
    )
    trainer.save_more(tmp_path / "staging" / "checkpoint-1")
    assert (tmp_path / "staging" / "checkpoint-1" / STATE).is_file()


def test_resuming_without_a_checkpoint_says_so(model, tokenizer, prompts, tmp_path):
    trainer = HybridTrainer(
        model, reward, hybrid_args(tmp_path), prompts, processing_class=tokenizer, controller=GRPOOnly()
    )
    with pytest.raises(ResumeError, match="no whole checkpoint"):
        trainer.train(resume_from_checkpoint=True)


def test_a_changed_controller_goes_on_under_its_own_settings(
    model_folder, tokenizer, prompts, demonstrations, tmp_path
):
    common = (model_folder, tokenizer, prompts, demonstrations)
    train(common, tmp_path, Static(sft_share=0.5), stop=4)
    resumed = train(common, tmp_path, SASR(g_warmup=3.0), resume=True)
    state = resumed.controller_state
    assert (state["step"], state["g_warmup"]) == (STEPS, 3.0)
    assert lines(tmp_path)[5]["p"] == 0.5, "a controller that the checkpoint does not know begins as after a warm-up"


def test_the_best_checkpoint_is_found_where_it_came_to_lie(model_folder, tokenizer, prompts, demonstrations, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 5, "save_total_limit": 1}
    best = {"eval_strategy": "steps", "eval_steps": 5, "load_best_model_at_end": True, "per_device_eval_batch_size": 8}
    trainer = HybridTrainer(
        AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
        reward,
        hybrid_args(tmp_path, max_steps=STEPS, **saving, **best),
        prompts,
        eval_dataset=prompts.select(range(4)),
        processing_class=tokenizer,
        demonstrations=demonstrations,
    )
    trainer.train()
    assert Path(trainer.state.best_model_checkpoint).parent == tmp_path
    assert Path(trainer.state.best_model_checkpoint).is_dir()


def test_lines_of_steps_that_a_checkpoint_does_not_know_are_dropped(
    model_folder, tokenizer, prompts, demonstrations, tmp_path
):
    common = (model_folder, tokenizer, prompts, demonstrations)
    train(common, tmp_path, SASR(), save_strategy="steps", save_steps=4)
    shutil.rmtree(tmp_path / "checkpoint-10")
    train(common, tmp_path, SASR(), resume=True)
    with (tmp_path / "steps.jsonl").open() as file:
        assert [json.loads(line)["step"] for line in file] == list(range(1, STEPS + 1))
