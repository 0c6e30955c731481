"""What a run sends to the trackers that `run.report_to` names: one run at each, from the first stage to the last.

The clients are transformers' own integrations. They are not left to the trainers of the two stages: each would start a
run of its own whose steps begin at 1, and know no evaluations. Here one axis goes through the run, `global_step`, which
counts the optimizer steps of both stages. What steps.jsonl holds as numbers is sent as `train/STAGE/KEY` (such as
`train/hybrid/p`, `train/hybrid/mix/sft`), TRL's other metrics beside it, and an evaluation's as `eval/pass_at_1` and so
on. A run that is resumed goes on with the tracker's run and sends no step twice, unless it is made anew under another
recipe. What a tracker lacks of the steps before (it is new to the run, or a kill came first) it gets then, each at its
own step.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from posttrain.errors import ConfigError, DataError
from posttrain.processes.ranks import Ranks
from posttrain.recipe.recipe import Recipe
from posttrain.recipe.tracking import TrackingSection
from posttrain.rundir.layout import Layout
from posttrain.rundir.masking import without_secrets
from posttrain.storage import files
from posttrain.training.ledger import Recorder
from posttrain.watching import tracker_names
from posttrain.watching.tracker_memory import TrackerMemory
from posttrain.watching.tracker_numbers import flat, is_number, means

AVERAGED = "averaged"
"""The stage of an evaluation of the last checkpoints' average."""


class Trackers:
    """The trackers of a run, for use in `with`. Every process enters it; the main one sends.

    A tracker that fails on the way is told of once and left out from then on: training is worth more than its curve.

    Args:
        names: As in `run.report_to`.
        layout: The run's directory.
        recipe: The recipe as resolved and without secrets, which the trackers show as the run's configuration.
        say: Told of a tracker that failed.
        ranks: The processes of the run.
        send_again: Send what this session makes anew though an earlier one sent it, for it is not the same any more.
        log_every: Steps of the hybrid stage that are sent as one.
        tracking: How the run is called there.
    """

    def __init__(
        self,
        names: Sequence[str],
        layout: Layout,
        recipe: Mapping[str, Any],
        say: Callable[[str], None],
        *,
        ranks: Ranks | None = None,
        send_again: bool = False,
        log_every: int = 1,
        tracking: TrackingSection | None = None,
    ):
        self._names, self._layout, self._recipe, self._say = list(names), layout, recipe, say
        self._ranks, self._send_again, self._tracking = ranks or Ranks(), send_again, tracking or TrackingSection()
        self._log_every, self._caught_up = log_every, False
        self._clients: dict[str, Any] = {}
        self._arguments: dict[str, Any] = {}
        self._pending: dict[int, Mapping[str, Any]] = {}
        self._warmup_steps = self._now = 0

    def __enter__(self) -> Trackers:
        """Start them, or go on with what they have of this run.

        Raises:
            ConfigError: One cannot be started; on every process.
        """
        if self._names:
            try:
                self._ranks.on_main(self._start)
            except BaseException:
                self._end(failed=True)
                raise
        return self

    def _start(self) -> None:
        from transformers.integrations import get_reporting_integration_callbacks

        self._memory = TrackerMemory(self._layout.path / "trackers.json", self._say)
        self._memory.write()
        name = re.sub(r"[^\w.-]", "-", f"{self._layout.path.resolve().name}-{self._memory.id}")
        settings = {
            "WANDB_RUN_ID": name,
            "WANDB_RESUME": "allow",
            "TENSORBOARD_LOGGING_DIR": str(self._layout.path / "tensorboard"),
        }
        if sys.stderr.isatty():
            settings["WANDB_CONSOLE"] = "off"  # else it keeps every frame of the live view
        for tracker, kind in zip(self._names, get_reporting_integration_callbacks(self._names), strict=True):
            called = tracker_names.arguments(self._tracking, name, tracker)
            self._arguments[tracker] = run_arguments(self._recipe, {"output_dir": str(self._layout.path)}, called)
            with tracker_names.environment(settings, tracker_names.variables(self._tracking, tracker)):
                self._clients[tracker] = self._started(tracker, kind)

    def _started(self, tracker: str, kind: Callable[[], Any]) -> Any:
        try:
            client = kind()
            self._call(tracker, client, "on_init_end", self._memory.last(tracker))
            self._call(tracker, client, "on_train_begin", self._memory.last(tracker), model=None)
        except Exception as error:
            raise ConfigError(
                f"{tracker} could not be started: {error}",
                where="run.report_to",
                fix=f"see that {tracker} works here, and is logged in if it needs to be; or leave it out",
            ) from error
        return client

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End them; a run that stopped can go on later."""
        self._end(failed=kind is not None)

    def _end(self, *, failed: bool) -> None:
        if not failed:
            self._catch_up(None)
            self.send({})
        for name in list(self._clients):
            self._tell(name, "on_train_end", self._memory.last(name))
        if "wandb" in self._clients:  # whose integration leaves its run open for whatever the process does next
            sys.modules["wandb"].finish(exit_code=int(failed))
        self._clients = {}

    # ---- what there is to send ----

    def step(self, record: Mapping[str, Any]) -> None:
        """Take in a line of steps.jsonl, which goes out with the next `send`."""
        if not self._clients:
            return
        self._catch_up(record)
        self._caught_up = True  # by now the run has forgotten what it makes anew
        self._now = self._global_step(record)
        if self._send_again:
            self._memory.forget_from(self._now)
        self._pending[self._now] = record

    def send(self, logs: Mapping[str, Any]) -> None:
        """Send the lines since the last time, as their means, with what a trainer logs besides.

        Args:
            logs: Of the trainer. A line's number takes the place of one of the same name.
        """
        ready, self._pending = self._pending, {}
        for stage in dict.fromkeys(record["stage"] for record in ready.values()):
            records = {step: record for step, record in ready.items() if record["stage"] == stage}
            said = logs if self._now in records else {}  # else they are of a step that was sent before
            shown = {name.removeprefix(f"{stage}/"): value for name, value in said.items() if is_number(value)}
            self._send(stage, records, shown)

    def _send(self, stage: str, records: Mapping[int, Mapping[str, Any]], shown: Mapping[str, float]) -> None:
        for name in list(self._clients):
            new = [record for step, record in records.items() if step > self._memory.last(name)]
            if new:
                numbers = {**shown, **means(new)}
                self._tell(name, "on_log", max(records), logs={f"{stage}/{key}": numbers[key] for key in numbers})
        self._memory.note(self._clients, "sent", max(records))

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Send a line of eval.jsonl; but of an average, which is no point of the curve."""
        if not self._clients or record["stage"] == AVERAGED:
            return
        self._catch_up(record, evaluated=True)
        step = self._global_step(record)
        if self._send_again:
            self._memory.forget_from(step, ("evaluated",))
        self._send_evaluation(step, record)

    def _send_evaluation(self, step: int, record: Mapping[str, Any]) -> None:
        numbers = {f"eval_{name.replace('@', '_at_')}": value for name, value in flat(record) if name != "step"}
        for name in list(self._clients):
            if step > self._memory.last(name, "evaluated"):
                self._tell(name, "on_log", step, logs=numbers)
        self._memory.note(self._clients, "evaluated", step)

    def _catch_up(self, until: Mapping[str, Any] | None, *, evaluated: bool = False) -> None:
        """Send what earlier sessions recorded and a tracker lacks, as the run would have sent it.

        What lies after the checkpoint that the run goes on from is not sent: it is forgotten, or about to be.

        Args:
            until: A line of this session; what comes before it counts. `None` for all there is.
            evaluated: It is an evaluation, after its step.
        """
        if self._caught_up or not self._clients:
            return
        try:
            steps, evaluations = (files.read_lines(file) for file in (self._layout.steps_file, self._layout.eval_file))
            self._warmup_steps = max((line["step"] for line in steps if line["stage"] == "warmup"), default=0)
            end = math.inf if until is None else self._global_step(until)
            past = [(self._global_step(line), False, line) for line in steps]
            past = [each for each in past if each[0] < end + evaluated]
            past += [(step, True, line) for line in evaluations
                     if line["stage"] != AVERAGED and (step := self._global_step(line)) < end]  # fmt: skip
        except (OSError, DataError, KeyError, TypeError) as error:
            self._say(f"the trackers do not get the steps before: {type(error).__name__}: {error}")
            self._caught_up = True
            return
        for step, is_evaluation, line in sorted(past, key=lambda each: each[:2]):
            if is_evaluation:
                self._send_evaluation(step, line)
            elif not self._memory.has(self._clients, "sent", step):
                self._pending[step] = line
                if line["stage"] == "warmup" or line["step"] % self._log_every == 0:  # else with the next ones
                    self.send({})

    def _global_step(self, record: Mapping[str, Any]) -> int:
        if record["stage"] in ("hybrid", "averaged", "final"):
            return self._warmup_steps + record["step"]
        if record["stage"] == "warmup":
            self._warmup_steps = max(self._warmup_steps, record["step"])
        return record["step"]

    # ---- the integrations ----

    def _tell(self, name: str, event: str, step: int, **facts: Any) -> None:
        try:
            self._call(name, self._clients[name], event, step, **facts)
        except Exception as error:
            self._say(f"{name} failed and gets no more of this run: {type(error).__name__}: {error}")
            del self._clients[name]

    def _call(self, name: str, client: Any, event: str, step: int, **facts: Any) -> None:
        from transformers import TrainerControl, TrainerState

        state = TrainerState(global_step=step, is_local_process_zero=True, is_world_process_zero=True)
        getattr(client, event)(self._arguments[name], state, TrainerControl(), **facts)


def trackers_of(
    recipe: Recipe, layout: Layout, say: Callable[[str], None], ranks: Ranks, *, send_again: bool
) -> Trackers:
    """The trackers that a recipe names; arguments as of `Trackers`."""
    return Trackers(
        recipe.run.report_to,
        layout,
        without_secrets(files.plain(recipe.resolved())),
        say,
        ranks=ranks,
        send_again=send_again,
        log_every=recipe.run.log_every,
        tracking=recipe.run.tracking,
    )


class RecordsAndSends:
    """A recorder of a trainer's steps that shows them to the trackers, too.

    Args:
        recorder: What keeps them.
        trackers: What sends them.
    """

    def __init__(self, recorder: Recorder, trackers: Trackers):
        self._recorder, self._trackers = recorder, trackers

    def step(self, record: dict[str, Any]) -> None:
        """Keep one line of `steps.jsonl`."""
        self._recorder.step(record)
        self._trackers.step(record)

    def completions(self, step: int, rows: list[dict[str, Any]]) -> None:
        """Keep the rollouts of one step."""
        self._recorder.completions(step, rows)


def run_arguments(recipe: Mapping[str, Any], *fields: Mapping[str, Any]) -> SimpleNamespace:
    """What the integrations take for a trainer's arguments: described by the recipe, the rest by its defaults.

    A `TrainingArguments` of its own would set up devices and processes, which is for the stages to do.
    """
    from transformers import TrainingArguments

    arguments = SimpleNamespace()
    for each in dataclasses.fields(TrainingArguments):
        default = each.default
        if each.default_factory is not dataclasses.MISSING:
            default = each.default_factory()
        setattr(arguments, each.name, default)
    for given in fields:
        vars(arguments).update(given)
    shown = dict(files.plain(recipe))
    arguments.to_dict = arguments.to_sanitized_dict = lambda: dict(shown)
    arguments.to_json_string = lambda: json.dumps(shown, indent=2)
    return arguments
