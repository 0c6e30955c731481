"""What a run does around the trainers' steps: show progress, evaluate, keep to a time limit, stop when asked."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from transformers import TrainerCallback

from posttrain.progress import Progress
from posttrain.trainer import HybridTrainer


class StopRequest:
    """Set by the first Ctrl-C (or SIGTERM); a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self, say: Callable[[str], None]) -> Iterator[None]:
        """Take over SIGINT and SIGTERM during the block."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self.asked and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.asked = True
            say("stopping after this step, then saving; press Ctrl-C again to stop at once")

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class StopWhenAsked(TrainerCallback):
    """Ends training at the end of a step, with a checkpoint, once a stop was asked for."""

    def __init__(self, request: StopRequest):
        self._request = request

    def on_step_end(self, args, state, control, **kwargs):
        """Save and stop."""
        if self._request.asked:
            control.should_save = control.should_training_stop = True


class ShowWarmup(TrainerCallback):
    """Progress of the warm-up."""

    def __init__(self, progress: Progress):
        self._progress = progress

    def on_log(self, args, state, control, logs=None, **kwargs):
        """One update a step."""
        if logs and "grad_norm" in logs:
            self._progress.update("warmup", state.global_step, loss=logs["loss"], norm=logs["grad_norm"])


class AroundHybrid(TrainerCallback):
    """Progress, evaluations and the time limit of the hybrid stage.

    Args:
        trainer: Whose finished steps are looked at.
        progress: Shows them.
        evaluate: Called with a step number when an evaluation is due.
        every: Steps between evaluations; 0 for none.
        time_limit_s: Seconds of training (evaluations and saving apart) after which the stage ends.
        spent_s: Seconds of training in earlier sessions of the run.
    """

    def __init__(
        self,
        trainer: HybridTrainer,
        progress: Progress,
        evaluate: Callable[[int], None],
        *,
        every: int,
        time_limit_s: float | None = None,
        spent_s: float = 0.0,
    ):
        self._trainer, self._progress, self._evaluate = trainer, progress, evaluate
        self._every, self._limit, self.spent_s = every, time_limit_s, spent_s

    def on_step_end(self, args, state, control, **kwargs):
        """Show the step, evaluate if it is time to, end the stage if its time is up."""
        record = self._trainer.last_record
        self.spent_s += record["seconds"]["total"]
        self._progress.update(
            "hybrid", state.global_step, mix=record["mix"], p=record["p"], reward=record["reward"], kl=record["kl"]
        )
        if self._limit is not None and self.spent_s >= self._limit:
            control.should_training_stop = control.should_save = True
        last = state.global_step >= state.max_steps or control.should_training_stop
        if self._every and state.global_step % self._every == 0 and not last:
            self._evaluate(state.global_step)
