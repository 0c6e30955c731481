"""A checkpoint that somebody else could write to: no file of it runs code when training goes on from it."""

from __future__ import annotations

import pickle
import shutil
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as sharded
from peft import LoraConfig, get_peft_model
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from transformers import AutoModelForCausalLM

from posttrain.controllers import GRPOOnly
from posttrain.errors import ResumeError
from posttrain.storage.checkpoints import latest_checkpoint
from posttrain.storage.pickles import check_checkpoint
from posttrain.training.trainer import HybridTrainer
from tests.attacks import Leaves
from tests.training.conftest import hybrid_args, reward


@pytest.fixture
def mark(tmp_path) -> Path:
    return tmp_path / "attacked"


@pytest.fixture(scope="module")
def checkpoint_of(model_folder, tokenizer, prompts, tmp_path_factory):
    """`checkpoint_of(lora)` is a checkpoint after one step, made once; `trainer_of(lora, folder)` goes on from it."""
    made: dict[bool, Path] = {}

    def trainer_of(lora: bool, folder: Path, **changes) -> HybridTrainer:
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        if lora:
            model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
        args = hybrid_args(folder, **{"max_steps": 2, "save_strategy": "no", "kl_sample": 0.0, **changes})
        return HybridTrainer(model, reward, args, prompts, processing_class=tokenizer, controller=GRPOOnly())

    def checkpoint(lora: bool) -> Path:
        if lora not in made:
            folder = tmp_path_factory.mktemp("lora" if lora else "full")
            trainer_of(lora, folder, save_strategy="steps", save_steps=1, max_steps=1).train()
            made[lora] = latest_checkpoint(folder)
        return made[lora]

    checkpoint.trainer_of = trainer_of
    return checkpoint


@pytest.mark.parametrize("zipped", [True, False], ids=["torch", "pickle"])
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_state_that_is_code_is_not_run(checkpoint_of, tmp_path, mark, name, zipped):
    copy = shutil.copytree(checkpoint_of(False), tmp_path / "checkpoint-1")
    assert (copy / name).is_file()
    torch.save(Leaves(mark), copy / name, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ResumeError, match="more than tensors and plain values"):
        checkpoint_of.trainer_of(False, tmp_path / "out").train(resume_from_checkpoint=str(copy))
    assert not mark.exists()


def test_training_arguments_are_not_read(checkpoint_of, tmp_path, mark):
    copy = shutil.copytree(checkpoint_of(False), tmp_path / "checkpoint-1")
    assert (copy / "training_args.bin").is_file()
    torch.save(Leaves(mark), copy / "training_args.bin")
    trainer = checkpoint_of.trainer_of(False, tmp_path / "out")
    trainer.train(resume_from_checkpoint=str(copy))
    assert trainer.state.global_step == 2
    assert not mark.exists()


@pytest.mark.parametrize("beside", [True, False], ids=["beside-safetensors", "instead"])
@pytest.mark.parametrize(
    ("lora", "safe", "name"),
    [
        (False, "model.safetensors", "pytorch_model.bin"),
        (False, "model.safetensors", "pytorch_model-00001-of-00002.bin"),
        (True, "adapter_model.safetensors", "adapter_model.bin"),
        (True, "adapter_model.safetensors", "other/adapter_model.bin"),
    ],
)
def test_weights_that_are_pickles_are_refused(checkpoint_of, tmp_path, mark, lora, safe, name, beside):
    copy = shutil.copytree(checkpoint_of(lora), tmp_path / "checkpoint-1")
    assert not list(copy.rglob("*.bin")) or [path.name for path in copy.rglob("*.bin")] == ["training_args.bin"]
    (copy / name).parent.mkdir(exist_ok=True)
    torch.save({"weight": Leaves(mark)}, copy / name)
    if not beside:
        (copy / safe).unlink()
    with pytest.raises(ResumeError, match=f"{Path(name).name} is a pickle"):
        checkpoint_of.trainer_of(lora, tmp_path / "out").train(resume_from_checkpoint=str(copy))
    assert not mark.exists()


# ---- sharded checkpoints (FSDP), whose table of contents and plain values torch reads as pickles ----

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:Detected an existing")


@pytest.fixture
def shards(tmp_path) -> Path:
    """A sharded checkpoint of a model and its optimizer, as accelerate writes them under FSDP2."""
    model = torch.nn.Linear(3, 3).bfloat16()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    values = {"optimizer": get_optimizer_state_dict(model, optimizer), "plain": {"list": [1, (2.0, None)]}}
    save(tmp_path / "checkpoint-1" / "optimizer_0", values)
    save(tmp_path / "checkpoint-1" / "pytorch_model_fsdp_0", {"model": OrderedDict(model.state_dict())})
    return tmp_path / "checkpoint-1"


def save(folder: Path, values) -> None:
    sharded.save(values, checkpoint_id=str(folder), no_dist=True)


def test_a_sharded_checkpoint_is_taken(shards):
    assert len(list(shards.rglob(".metadata"))) == 2
    check_checkpoint(shards)


@pytest.mark.parametrize("name", [".metadata", "__0.metadata"], ids=["common", "of-a-rank"])
def test_a_table_of_contents_that_is_code_is_refused(shards, mark, name):
    (shards / "optimizer_0" / ".metadata").unlink()
    (shards / "optimizer_0" / name).write_bytes(pickle.dumps(Leaves(mark)))
    with pytest.raises(ResumeError, match=r"\.metadata names "):
        check_checkpoint(shards)
    assert not mark.exists()
    with pytest.raises(CheckpointException):
        sharded.load({}, checkpoint_id=str(shards / "optimizer_0"), no_dist=True)
    assert mark.exists(), "else the check is not needed any more"


def test_a_plain_value_that_is_code_is_refused(shards, mark):
    save(shards / "optimizer_0", {"value": Leaves(mark)})
    assert not mark.exists()
    with pytest.raises(ResumeError, match="more than tensors and plain values"):
        check_checkpoint(shards)
    assert not mark.exists()
    sharded.load({"value": 0}, checkpoint_id=str(shards / "optimizer_0"), no_dist=True)
    assert mark.exists(), "else the check is not needed any more"


def test_a_torn_table_of_contents_is_refused_in_words(shards):
    (shards / "optimizer_0" / ".metadata").write_bytes(b"\x80")
    with pytest.raises(ResumeError, match="is torn, or"):
        check_checkpoint(shards)
