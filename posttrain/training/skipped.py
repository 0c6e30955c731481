"""Steps whose gradient is not finite: dropped before the optimizer sees them, counted, and fatal when they go on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from torch import nn
from transformers import TrainerCallback

from posttrain.errors import TrainingError
from posttrain.storage.files import read_lines


class SkippedSteps:
    """How many steps of a stage were skipped.

    Args:
        most: How many in a row are borne.
        key: The setting that says so, for the message.

    Attributes:
        total: Skipped in the stage so far, earlier sessions included.
        in_a_row: Skipped since the last step that changed the model.
        now: Whether the step in progress is one.
    """

    def __init__(self, most: int, key: str):
        self.total = self.in_a_row = 0
        self.now = False
        self._most, self._key = most, key

    def skip(self, model: nn.Module) -> None:
        """Drop the gradients: without them the optimizer changes neither parameters nor its own state."""
        for p in model.parameters():  # not zero_grad(): DeepSpeed's engine has another one
            p.grad = None
        self.now = True
        self.total += 1
        self.in_a_row += 1

    def check(self, step: int, seen: str) -> None:
        """Give up when there are too many in a row.

        Args:
            step: The step that was skipped.
            seen: Its losses, in words.

        Raises:
            TrainingError: More than `most` in a row.
        """
        if self.in_a_row > self._most:
            raise too_many(self.in_a_row, seen, expected=f"at most {self._key} = {self._most} of them", where=step)

    def finish_step(self) -> bool:
        """Close the books on a step; whether it was skipped."""
        skipped, self.now = self.now, False
        if not skipped:
            self.in_a_row = 0
        return skipped


def too_many(count: int, seen: str, *, expected: str, where: int) -> TrainingError:
    """The error of a stage that stops because its steps are skipped; all processes see the same gradients."""
    error = TrainingError(
        f"the gradient was not finite {count} steps in a row ({seen})",
        expected=expected,
        where=f"step {where}",
        fix="lower the learning rate or train in float32, and go on by --accept-changes: the last checkpoint is from "
        "before the first of them. If its weights are bad already, start over by --restart, which keeps this run aside",
    )
    error.shared = True
    return error


def skipped_in_words(steps_file: Path) -> list[str]:
    """A line for each stage that skipped steps, from `steps.jsonl`."""
    steps = read_lines(steps_file)
    skipped = Counter(line["stage"] for line in steps if line.get("skipped"))
    all_of = Counter(line["stage"] for line in steps)
    return [
        f"{count} of the {all_of[stage]} steps of the {stage} were skipped, for their gradients were not finite: see "
        f'"skipped" in {steps_file}'
        for stage, count in skipped.items()
    ]


class SaveLater(TrainerCallback):
    """Saves no checkpoint between skipped steps, but after the first step that counts again.

    What made the gradients infinite may be in the weights already, so checkpoints of such steps must not push out the
    earlier ones. Put it behind transformers' own callback, which asks for checkpoints, and before those of a stop.
    """

    def __init__(self, skipped: SkippedSteps):
        self._skipped, self._due = skipped, False

    def on_step_end(self, args, state, control, **kwargs):
        """Put a checkpoint off, or make up for it."""
        if self._skipped.in_a_row:
            self._due = self._due or control.should_save
            control.should_save = False
        elif self._due:
            control.should_save, self._due = True, False
