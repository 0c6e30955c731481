"""A mixin for `transformers.Trainer`: every checkpoint appears whole or not at all."""

from __future__ import annotations

import pickle
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.distributed.checkpoint.api import CheckpointException
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import rotate_checkpoints

from posttrain.errors import ResumeError
from posttrain.processes.ranks import Ranks
from posttrain.storage.checkpoints import explained, staged, usable_checkpoint
from posttrain.storage.pickles import check_checkpoint, not_plain
from posttrain.training.checkpoints.resumable import check_resumable
from posttrain.training.checkpoints.same_adapter import check_same_adapter

REFERENCE_ADAPTER = "ref"
"""What TRL calls the copy of an adapter that a KL penalty is taken against."""

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "_get_output_dir": ("self", "trial"),
    "_save_checkpoint": ("self", "model", "trial"),
    "_load_from_checkpoint": ("self", "resume_from_checkpoint", "model"),
}
"""Private methods of transformers' Trainer that are overridden here, and their parameters; a test compares them."""

CACHED_DEVICE = "_setup_devices"
"""The private property of transformers' TrainingArguments that is set here: where `device` is kept."""


class WholeCheckpoints:
    """Stages each checkpoint beside its place and renames it when it is complete (see `checkpoints.staged`).

    Put it before the trainer among the bases. `save_more` is for what a subclass adds to a checkpoint.
    """

    _staging: Path | None = None

    def save_more(self, checkpoint: Path) -> None:
        """Write into a checkpoint that is being made; called on every process."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL writes a README beside every checkpoint; only a push to the hub has a reader for it."""
        if self.args.push_to_hub:  # type: ignore[attr-defined]
            super().create_model_card(*args, **kwargs)  # type: ignore[misc]

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train, or go on from a checkpoint: a folder, or `True` for the last whole one in `args.output_dir`.

        Raises:
            ResumeError: There is no whole checkpoint to go on from; or it is sharded in another way than this start,
                would start the optimizer anew, or could run code when it is read. On every process.
        """
        if not resume_from_checkpoint:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)  # type: ignore[misc]
        ranks = Ranks.of(self.accelerator)  # type: ignore[attr-defined]
        checkpoint = ranks.decided(partial(self._checkpoint_to_resume, resume_from_checkpoint))
        ranks.together(lambda: check_checkpoint(checkpoint))
        resume_from_checkpoint = str(checkpoint)
        if self.args.device.type == "cpu":  # type: ignore[attr-defined]
            # Of several processes each has a numbered one, onto which torch cannot load an optimizer's state
            setattr(self.args, CACHED_DEVICE, torch.device("cpu"))  # type: ignore[attr-defined]
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)  # type: ignore[misc]
        except pickle.UnpicklingError as error:
            raise not_plain(resume_from_checkpoint, error) from error

    def _checkpoint_to_resume(self, asked: str | bool) -> Path:
        """The folder that was asked for or the last whole one, looked at (main process)."""
        checkpoint = self._last_whole() if asked is True else Path(str(asked))
        check_resumable(checkpoint, fsdp=self.is_fsdp_enabled, deepspeed=self.is_deepspeed_enabled)  # type: ignore[attr-defined]
        return checkpoint

    def _last_whole(self) -> Path:
        folder = Path(self.args.output_dir)  # type: ignore[attr-defined]
        found, torn = usable_checkpoint(folder)
        if found is None:
            raise ResumeError(
                "there is no whole checkpoint to resume from" + "".join(f"\n    {reason}" for reason in torn),
                expected="a folder checkpoint-STEP with a manifest",
                where=str(folder),
                fix="train without resume_from_checkpoint",
            )
        for reason in torn:
            warnings.warn(f"{folder}: a torn checkpoint was passed over, {reason}", stacklevel=5)  # train's caller
        return found

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging else super()._get_output_dir(trial)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        accelerator, args, state = self.accelerator, self.args, self.state  # type: ignore[attr-defined]
        folder, name = Path(self._get_output_dir(trial)), f"checkpoint-{state.global_step}"
        ranks = Ranks.of(accelerator)
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled  # type: ignore[attr-defined]
        # What is sharded is saved by all together; with a best step transformers waits for all amid the saving
        with staged(folder, name, ranks=ranks, apart=not (sharded or state.best_global_step)) as staging:
            self._staging = staging
            try:
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
            except CheckpointException as error:  # of torch's sharded saving, and no Exception; all processes have it
                raise _failed_shard(error) from error
            finally:
                self._staging = None
            ranks.together(lambda: self._complete(staging, folder / name, is_main=ranks.is_main))
        if args.should_save:
            rotate_checkpoints(
                output_dir=str(folder),
                save_total_limit=args.save_total_limit,
                best_model_checkpoint=state.best_model_checkpoint,
                use_mtime=False,  # a clock that was set back must not make the newest the oldest
            )

    def _complete(self, staging: Path, final: Path, *, is_main: bool) -> None:
        with explained(final.parent, final.name, is_main=is_main):
            self._correct_best(staging, final)
            self.save_more(staging / final.name)

    def _correct_best(self, staging: Path, final: Path) -> None:
        """The best checkpoint so far is remembered by where it will be, not by where it is being written."""
        args, state = self.args, self.state  # type: ignore[attr-defined]
        if state.best_model_checkpoint and Path(state.best_model_checkpoint).parent == staging:
            state.best_model_checkpoint = str(final.parent / Path(state.best_model_checkpoint).name)
            if args.should_save:
                state.save_to_json(str(staging / final.name / TRAINER_STATE_NAME))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        check_same_adapter(Path(resume_from_checkpoint), self.model)  # type: ignore[attr-defined]
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        if self.is_fsdp_enabled:  # type: ignore[attr-defined]
            return  # its shards are read by the names of the parameters, adapter and all
        policy = self.model if model is None else model  # type: ignore[attr-defined]
        # Beside TRL's reference adapter, in a folder of its own, transformers overlooks the one that trains
        if isinstance(policy, PeftModel) and REFERENCE_ADAPTER in policy.peft_config:
            policy.load_adapter(resume_from_checkpoint, "default", is_trainable=True)
            policy.set_adapter("default")


def _failed_shard(error: CheckpointException) -> OSError:
    rank, (reason, _) = next(iter(error.failures.items()))
    failed = OSError(f"{type(reason).__name__}: {reason} (rank {rank})")
    failed.shared = True  # type: ignore[attr-defined]
    return failed
