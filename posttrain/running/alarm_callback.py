"""Alarms in a training run: each finished step is looked at, and what is found is said and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.utils import logging

from posttrain.alarms import Settings, Watch, in_words
from posttrain.alarms.by_source import KIND, of_evaluations
from posttrain.alarms.watch import FILE
from posttrain.errors import DataError
from posttrain.storage.files import append_line, is_full_disk, keep_lines, plain, read_lines, write_jsonl

if TYPE_CHECKING:
    from posttrain.rundir.layout import Layout
    from posttrain.training.trainer import HybridTrainer

_log = logging.get_logger(__name__)


def raise_of_evaluations(run: Layout, say: Callable[[str], Any]) -> None:
    """Raise the alarms that a run's evaluations so far give rise to and that it has not raised yet.

    Args:
        run: Its directory.
        say: Told of each in words.
    """
    try:
        raised = [line for line in read_lines(run.alarms_file) if line.get("kind") == KIND]
    except DataError as error:  # made anew when training goes on
        say(f"{FILE} is damaged, and not added to: {error}")
        return
    known = {(line["step"], line["about"], line["change"]) for line in raised}
    for line in of_evaluations(read_lines(run.eval_file)):
        if (line["step"], line["about"], line["change"]) not in known:
            append_line(run.alarms_file, line)
            say(in_words(line))


class AlarmCallback(TrainerCallback):
    """Raises alarms about a `HybridTrainer`: `trainer.add_callback(AlarmCallback(trainer))`.

    Each is told to `say` and is a line of `alarms.jsonl`. On several processes the main one does that. Training that is
    resumed goes on with the alarms it had at its checkpoint, as far as `steps.jsonl` has the steps before. Where an
    alarm cannot be worked out, or kept, that is said once and there are no more of them; training goes on. Only a disk
    that is full ends it.

    Args:
        trainer: Whose finished steps are looked at.
        folder: Where `steps.jsonl` is, and `alarms.jsonl` will be; `None` is the trainer's `output_dir`.
        say: Told of each alarm in words; `None` is a warning of transformers' logger.
        recipe: Whether advice names keys of a recipe; else arguments of `HybridConfig`.
    """

    def __init__(
        self,
        trainer: HybridTrainer,
        folder: str | Path | None = None,
        *,
        say: Callable[[str], Any] | None = None,
        recipe: bool = False,
    ):
        self._trainer, self._say = trainer, say or _log.warning
        self._folder = Path(trainer.args.output_dir if folder is None else folder)
        idle_end = trainer.sft.idle_end(trainer.eos_token_ids) if trainer.sft else ""
        self._settings = Settings.of(trainer.args, trainer.controller, trainer.method, recipe=recipe, idle_end=idle_end)
        self._watch = Watch(self._settings)
        self._off = False

    def on_train_begin(self, args, state, control, **kwargs):
        """Take up what was seen up to the step that training goes on from; later alarms are forgotten."""
        self._trainer.ranks.on_main(lambda: self._try(lambda: self._take_up(state.global_step)))

    def _take_up(self, last_step: int) -> None:
        self._watch, raised = Watch(self._settings), []
        for record in read_lines(self._folder / "steps.jsonl"):
            if record.get("stage") == "hybrid" and record["step"] <= last_step:
                raised += self._watch.look(record)
        try:
            keep_lines(self._folder / FILE, lambda line: line["step"] <= last_step)
        except (DataError, KeyError, TypeError) as error:  # they follow from the steps
            self._say(f"{FILE} is damaged and made anew from steps.jsonl: {error}")
            write_jsonl(self._folder / FILE, map(plain, raised))

    def on_step_end(self, args, state, control, **kwargs):
        """Look at the step."""
        record = self._trainer.last_record
        if record["mix"]["grpo"]:
            self._trainer.ranks.on_main(lambda: self._try(lambda: self._look(record)))

    def _look(self, record: dict[str, Any]) -> None:
        for line in self._watch.look(record):
            append_line(self._folder / FILE, line)
            self._say(in_words(line))

    def _try(self, work: Callable[[], None]) -> None:
        if self._off:
            return
        try:
            work()
        except Exception as error:
            if is_full_disk(error):
                raise
            self._off = True
            self._say(f"no more alarms in this session, for this failed: {type(error).__name__}: {error}")
