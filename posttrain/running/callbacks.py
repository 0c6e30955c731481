"""What a run does around the trainers' steps: show progress, evaluate, keep to a time limit, stop when asked."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from posttrain.errors import Interrupted
from posttrain.processes.interrupting import answering
from posttrain.processes.launched import COMMAND, resuming
from posttrain.processes.ranks import Ranks
from posttrain.rundir.layout import Layout
from posttrain.scoring.scorer import Scorer
from posttrain.storage.files import append_line, keep_lines, read_lines
from posttrain.training.trainer import HybridTrainer
from posttrain.watching.progress import Progress
from posttrain.watching.trackers import Trackers

SKIPPED = "skipped, for its gradient was not finite; the model is as it was"
_SAME_STOP_S = 2.0  # Ctrl-C reaches a process from the terminal, and once more from the launcher


class StopRequest:
    """Set by the first Ctrl-C or SIGTERM; a second Ctrl-C interrupts at once.

    Args:
        ranks: The processes of the run, which stop together though the signal may reach only one of them.
        where: The run directory, for the message.
        after_steps: Training steps after which the request makes itself; `None` for never.

    Attributes:
        signal: The signal that asked, on this process or on all (`agreed`); `None` while none has.
    """

    def __init__(self, ranks: Ranks | None = None, where: Path | None = None, after_steps: int | None = None) -> None:
        self.signal: int | None = None
        self._ranks, self._where, self._steps_left = ranks or Ranks(), where, after_steps

    def step_done(self) -> None:
        """Count a training step, of whichever stage."""
        if self._steps_left is not None:
            self._steps_left -= 1
            if self._steps_left == 0:
                self.signal = signal.SIGTERM

    def agreed(self) -> bool:
        """Whether a stop was asked for on any process; all of them must ask at once."""
        asked = next((each for each in self._ranks.gathered(self.signal) if each is not None), None)
        if asked is not None:  # else leave it: a signal that came while we waited counts at the next asking
            self.signal = asked
        return asked is not None

    def check(self) -> None:
        """Stop on all processes if a stop was asked for on any; all of them must ask at once.

        Raises:
            Interrupted: With the way to go on.
        """
        self._ranks.together(self._raise)

    def _raise(self) -> None:
        if self.signal is None:
            return
        stop = Interrupted(f"stopped as asked, and saved. To go on: {how_to_go_on()}", where=str(self._where))
        stop.signal = self.signal
        raise stop

    @contextmanager
    def listening(self, say: Callable[[str], None]) -> Iterator[None]:
        """Take over SIGINT and SIGTERM during the block, where Python allows that (see `answering`)."""
        asked_at = 0.0

        def ask(number: int, frame: FrameType | None) -> None:
            nonlocal asked_at
            if asked_at:
                again = self._ranks.count == 1 or time.monotonic() - asked_at > _SAME_STOP_S
                if number == signal.SIGINT and again:
                    raise KeyboardInterrupt
                return
            self.signal, asked_at = number, time.monotonic()
            say("stopping after this step, then saving; press Ctrl-C again to stop at once")

        with answering(ask):
            yield


def how_to_go_on(argv: Sequence[str] | None = None) -> str:
    """How to go on with a run that stopped: the command that started it, with `--resume` and without `--restart`.

    What launched several processes is known to them where `posttrain launch` did; else only the recipe's part of the
    command is given.

    Args:
        argv: The process's arguments; `sys.argv` if `None`.
    """
    if argv is None and COMMAND in os.environ:
        return os.environ[COMMAND]
    program, *rest = sys.argv if argv is None else argv
    if Path(program).name not in ("posttrain", "__main__.py") or rest[:1] != ["run"]:
        return "call run() again with the same recipe"
    command = resuming(rest)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return f"launch it as before, with --resume at the end (... {command})"
    return command


class StopWhenAsked(TrainerCallback):
    """Ends training at the end of a step, with a checkpoint, once a stop was asked for on any process.

    Args:
        request: Who asked.
    """

    def __init__(self, request: StopRequest):
        self._request = request

    def on_step_end(self, args, state, control, **kwargs):
        """Save and stop."""
        self._request.step_done()
        self._stop(control)

    def on_log(self, args, state, control, **kwargs):
        """The same, when the request came after the step's end: the checkpoint is written after this."""
        self._stop(control)

    def _stop(self, control):
        if self._request.agreed():
            control.should_save = control.should_training_stop = True


class SettingsOfRecipe(TrainerCallback):
    """A checkpoint brings its learning rate and intervals along; those of a changed recipe take their place."""

    def on_train_begin(self, args, state, control, optimizer=None, lr_scheduler=None, **kwargs):
        """Scale what the checkpoint's schedule has arrived at, and what it goes on from."""
        if not state.global_step:
            return
        state.compute_steps(args, state.max_steps)
        for group, base in zip(optimizer.param_groups, lr_scheduler.base_lrs, strict=True):
            if base != args.learning_rate:
                group["lr"] *= args.learning_rate / base
                group["initial_lr"] = args.learning_rate
        lr_scheduler.base_lrs = [args.learning_rate] * len(lr_scheduler.base_lrs)


class ShowWarmup(TrainerCallback):
    """Progress of the warm-up."""

    def __init__(self, progress: Progress):
        self._progress = progress

    def on_log(self, args, state, control, logs=None, **kwargs):
        """One update a step."""
        if logs and "grad_norm" in logs:
            seen = {"sft_norm": logs["grad_norm"], "entropy": logs.get("entropy")}
            step = {"stage": "warmup", "step": state.global_step, "mix": {"sft": 1.0}, "reason": "warm-up"}
            self._progress.record(step | seen)
            self._progress.update("warmup", state.global_step, loss=logs["loss"], norm=logs["grad_norm"])
            if not math.isfinite(logs["grad_norm"]):
                self._progress.message(f"warmup, step {state.global_step}: {SKIPPED}")


class SendToTrackers(TrainerCallback):
    """Has the steps since the last time sent whenever the trainer logs.

    Args:
        trackers: Of the run; they get the steps' lines from the recorder.
    """

    def __init__(self, trackers: Trackers):
        self._trackers = trackers

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Send the steps, and TRL's metrics beside them; not its totals at the end of a stage."""
        self._trackers.send({} if not logs or "train_runtime" in logs else logs)


class RewardFailures(TrainerCallback):
    """Keeps what the rewards failed on in `errors.jsonl`: one line a failure, with its step and completion.

    Args:
        scorer: Counts failures and keeps the latest of them.
        file: The run's `errors.jsonl`. What it has of steps after `last_step` is dropped.
        last_step: The step that training goes on from.
        say: Told of the first failure.
        ranks: The processes of the run, each of which scores its share; the main one writes.
    """

    def __init__(
        self, scorer: Scorer, file: Path, *, last_step: int, say: Callable[[str], None], ranks: Ranks | None = None
    ):
        self._scorer, self._file, self._say, self._written = scorer, file, say, 0
        self._ranks = ranks or Ranks()
        self._ranks.decided(lambda: keep_lines(file, lambda line: line["step"] <= last_step))

    def on_step_end(self, args, state, control, **kwargs):
        """Write down the failures of the step."""
        self.write(state.global_step)

    def write(self, step: int) -> None:
        """Write down the failures of all processes since the last time, as those of `step`."""
        scorer = self._scorer
        everyone = self._ranks.gathered((scorer.error_count - self._written, list(scorer.errors)))
        scorer.errors.clear()
        self._written = scorer.error_count
        count, errors = sum(each for each, _ in everyone), [entry for _, some in everyone for entry in some]
        if count:
            self._ranks.decided(lambda: self._append(step, count, errors))

    def _append(self, step: int, count: int, errors: Sequence[dict[str, str]]) -> None:
        if not self._file.exists():
            first = errors[0]
            self._say(
                f"step {step}: reward {first['reward']!r} failed on a completion ({first['error']}); "
                f"it counts as not scored. All failures: {self._file}"
            )
        for entry in errors:
            append_line(self._file, {"step": step, "failures_in_step": count, **entry})


def count_failures(file: Path) -> int:
    """How often a reward failed, from `errors.jsonl`; a step of very many failures lists only the latest of them."""
    return sum({line["step"]: line["failures_in_step"] for line in read_lines(file)}.values())


class AroundHybrid(TrainerCallback):
    """Progress, evaluations and the time limit of the hybrid stage.

    Args:
        trainer: Whose finished steps are looked at.
        progress: Shows them.
        evaluate: Called with a step number when an evaluation is due and not done yet.
        every: Steps between evaluations; 0 for none.
        times: Evaluations spread evenly over the stage, the final one among them; 0 for none.
        time_limit_s: Seconds of training (evaluations and saving apart) after which the stage ends.
        spent_s: Seconds of training in earlier sessions of the run.
        ranks: The processes of the run; the main one's clock counts.
        run: Where the run's steps and evaluations are, by which one of `times` is missed that a stop left out.
    """

    def __init__(
        self,
        trainer: HybridTrainer,
        progress: Progress,
        evaluate: Callable[[int], None],
        *,
        every: int,
        times: int = 0,
        time_limit_s: float | None = None,
        spent_s: float = 0.0,
        ranks: Ranks | None = None,
        run: Layout | None = None,
    ):
        self._trainer, self._progress, self._evaluate, self._ranks = trainer, progress, evaluate, ranks or Ranks()
        self._run = run
        self._every, self._times, self._limit, self.spent_s = every, times, time_limit_s, spent_s
        self._passed = 0
        self._rollouts = 0

    def on_train_begin(self, args, state, control, **kwargs):
        """Make up for an evaluation that a stop left out."""
        self._passed = self._share()
        missed = self._ranks.decided(self._missed)
        if (self._due(state.global_step) or missed) and state.global_step < state.max_steps:
            self._evaluate(state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        """Show the step, evaluate if it is time to, end the stage if its time is up."""
        record = self._trainer.last_record
        self.spent_s += record["seconds"]["total"]
        if self._progress.is_live:
            self._progress.record(record)
            if record["rollouts"] != self._rollouts:
                self._rollouts = record["rollouts"]
                self._progress.completions(state.global_step, self._trainer.last_rollouts)
        self._progress.update(
            "hybrid",
            int(self._trainer.clock),
            steps=None if self._trainer.budget is None else state.global_step,
            mix=record["mix"], p=record["p"], reward=record["reward"], kl=record["kl"],
        )  # fmt: skip
        if record["skipped"]:
            self._progress.message(f"hybrid, step {state.global_step}: {SKIPPED}")
        limit = self._limit
        if limit is not None and self._ranks.decided(lambda: self.spent_s >= limit):
            control.should_training_stop = control.should_save = True
        last = state.global_step >= state.max_steps or control.should_training_stop
        before, self._passed = self._passed, self._share()
        if (self._due(state.global_step) or before < self._passed) and not last:
            try:
                self._evaluate(state.global_step)
            except Interrupted:  # of the evaluation, which is made anew; the step is saved first
                control.should_training_stop = control.should_save = True

    def _share(self) -> int:
        """How many of the evaluations that are spread over the stage lie behind."""
        return int(self._times * self._trainer.clock / self._trainer.horizon)

    def _missed(self) -> bool:
        """Whether no evaluation followed the step that the last of those spread over the stage was due at."""
        if self._run is None or not 0 < self._passed < self._times:
            return False
        steps = (line for line in read_lines(self._run.steps_file) if line["stage"] == "hybrid")
        due = next((line["step"] for line in steps if self._share_at(line) >= self._passed), None)
        made = [line["step"] for line in read_lines(self._run.eval_file) if line["stage"] == "hybrid"]
        return due is not None and max(made, default=0) < due

    def _share_at(self, line: Mapping[str, Any]) -> int:
        """As `_share`, when a step of steps.jsonl was done."""
        budget, horizon = self._trainer.budget, self._trainer.horizon
        clock = line["step"] if budget is None else budget.clock(line["spent"], line["step"], horizon)
        return int(self._times * clock / horizon)

    def _due(self, step: int) -> bool:
        return bool(step and self._every and step % self._every == 0)
