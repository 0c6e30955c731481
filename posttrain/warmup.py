"""Stage 1: SFT on the demonstrations with `trl.SFTTrainer`, measuring the gradient norm that SASR starts from."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from posttrain.checkpoints import latest_checkpoint
from posttrain.errors import TrainingError
from posttrain.ledger import Recorder
from posttrain.streams import Stream
from posttrain.whole_checkpoints import WholeCheckpoints


class WarmupTrainer(WholeCheckpoints, SFTTrainer):
    """`trl.SFTTrainer` with checkpoints that are whole or absent."""


@dataclass(frozen=True)
class Warmup:
    """What the warm-up hands on.

    Attributes:
        g_warmup: Mean norm of the SFT gradient over the last steps, before clipping.
        steps: Optimizer steps done; fewer than asked for if training was stopped.
        demonstration_cursor: Demonstrations taken so far; the hybrid stage goes on from there.
    """

    g_warmup: float
    steps: int
    demonstration_cursor: int


def warm_up(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    demonstrations: Dataset,
    args: SFTConfig,
    *,
    norm_window: int,
    recorder: Recorder,
    callbacks: Sequence[TrainerCallback] = (),
) -> Warmup:
    """Train the model on the demonstrations, from the last whole checkpoint in `args.output_dir` if there is one.

    The rows are laid out beforehand in the order of the demonstrations' stream and read in sequence, so that the
    order depends on the seed alone and the hybrid stage can continue it. The loss is the mean NLL of completion
    tokens over a whole optimizer step: the reduction whose gradient the hybrid stage measures, too.

    Args:
        model: Trained in place.
        tokenizer: Its tokenizer.
        demonstrations: `input_ids` and `labels` (see `data.tokenize_demonstrations`).
        args: With `max_steps`; logging and sampling order are set here.
        norm_window: Last steps whose gradient norms are averaged.
        recorder: Takes a record of each step.
        callbacks: Added to the trainer's own.

    Raises:
        TrainingError: The loss or its gradient is not finite.
    """
    args.train_sampling_strategy = "sequential"
    args.logging_steps, args.logging_first_step = 1, True
    args.shuffle_dataset = False
    args.logging_nan_inf_filter = False  # else a loss that is NaN is logged as 0
    stream = Stream(len(demonstrations), seed=args.seed, name="demonstrations")
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    order = stream.take(args.max_steps * per_step)
    trainer = WarmupTrainer(
        model,
        args,
        train_dataset=demonstrations.select(order),
        processing_class=tokenizer,
        callbacks=[_Watch(recorder, per_step), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = latest_checkpoint(Path(args.output_dir))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    norms = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    tail = norms[-norm_window:]
    return Warmup(sum(tail) / len(tail), trainer.state.global_step, trainer.state.global_step * per_step)


class _Watch(TrainerCallback):
    """Records each step, and stops at the first that is not finite, before a checkpoint of it is saved."""

    def __init__(self, recorder: Recorder, per_step: int):
        self._recorder, self._per_step = recorder, per_step
        self._started = 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        """Start the step's clock."""
        self._started = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Turn a log entry of the trainer into a line of `steps.jsonl`."""
        if not logs or "grad_norm" not in logs:
            return
        loss, norm = logs["loss"], logs["grad_norm"]
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"the SFT loss is {loss} and the norm of its gradient {norm}",
                expected="finite numbers",
                where=f"warm-up step {state.global_step}",
                fix="lower warmup.learning_rate or train in float32, and start over by --restart, which keeps this run "
                "aside; its earlier checkpoints are whole",
            )
        if not state.is_world_process_zero:
            return
        self._recorder.step(
            {
                "stage": "warmup",
                "step": state.global_step,
                "mix": {"sft": 1.0, "grpo": 0.0},
                "p": None,
                "reason": "warm-up",
                "sft_loss": loss,
                "sft_norm": norm,
                "grad_norm": norm,
                "entropy": logs.get("entropy"),
                "learning_rate": logs.get("learning_rate"),
                "seconds": {"total": round(time.perf_counter() - self._started, 4)},
                "demonstration_cursor": state.global_step * self._per_step,
            }
        )
