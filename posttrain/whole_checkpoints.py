"""A mixin for `transformers.Trainer`: every checkpoint appears whole or not at all."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import rotate_checkpoints

from posttrain.checkpoints import staged, usable_checkpoint
from posttrain.errors import ResumeError
from posttrain.pickles import check_checkpoint, not_plain

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
            ResumeError: There is no whole checkpoint to go on from, or it could run code when it is read.
        """
        if resume_from_checkpoint is True:
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
                warnings.warn(f"{folder}: a torn checkpoint was passed over, {reason}", stacklevel=2)
            resume_from_checkpoint = str(found)
        if not resume_from_checkpoint:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)  # type: ignore[misc]
        check_checkpoint(Path(resume_from_checkpoint))
        if self.args.device.type == "cpu":  # type: ignore[attr-defined]
            # Of several processes each has a numbered one, onto which torch cannot load an optimizer's state
            setattr(self.args, CACHED_DEVICE, torch.device("cpu"))  # type: ignore[attr-defined]
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)  # type: ignore[misc]
        except pickle.UnpicklingError as error:
            raise not_plain(resume_from_checkpoint, error) from error

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging else super()._get_output_dir(trial)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        accelerator, args, state = self.accelerator, self.args, self.state  # type: ignore[attr-defined]
        folder, name = Path(self._get_output_dir(trial)), f"checkpoint-{state.global_step}"
        with staged(folder, name, is_main=accelerator.is_main_process, wait=accelerator.wait_for_everyone) as staging:
            self._staging = staging
            try:
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
                self._correct_best(staging, folder / name)
                self.save_more(staging / name)
            finally:
                self._staging = None
        if args.should_save:
            rotate_checkpoints(
                output_dir=str(folder),
                save_total_limit=args.save_total_limit,
                best_model_checkpoint=state.best_model_checkpoint,
                use_mtime=False,  # a clock that was set back must not make the newest the oldest
            )

    def _correct_best(self, staging: Path, final: Path) -> None:
        """The best checkpoint so far is remembered by where it will be, not by where it is being written."""
        args, state = self.args, self.state  # type: ignore[attr-defined]
        if state.best_model_checkpoint and Path(state.best_model_checkpoint).parent == staging:
            state.best_model_checkpoint = str(final.parent / Path(state.best_model_checkpoint).name)
            if args.should_save:
                state.save_to_json(str(staging / final.name / TRAINER_STATE_NAME))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        if self.is_fsdp_enabled:  # type: ignore[attr-defined]
            return  # its shards are read by the names of the parameters, adapter and all
        policy = self.model if model is None else model  # type: ignore[attr-defined]
        # Beside TRL's reference adapter, in a folder of its own, transformers overlooks the one that trains
        if isinstance(policy, PeftModel) and REFERENCE_ADAPTER in policy.peft_config:
            policy.load_adapter(resume_from_checkpoint, "default", is_trainable=True)
            policy.set_adapter("default")
