"""What a run sends to the trackers that `run.report_to` names: one run at each, from the first stage to the last.

The clients are transformers' own integrations. They are not left to the trainers of the two stages: each would start a
run of its own whose steps begin at 1, and know no evaluations. Here one axis goes through the run, `global_step`, which
counts the optimizer steps of both stages. What steps.jsonl holds as numbers is sent as `train/STAGE/KEY` (such as
`train/hybrid/p`, `train/hybrid/mix/sft`), TRL's other metrics beside it, and an evaluation's as `eval/pass_at_1` and so
on. A run that is resumed goes on with the tracker's run and sends no step twice, unless its recipe was changed.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from posttrain import files
from posttrain.config import Recipe
from posttrain.errors import ConfigError
from posttrain.layout import Layout
from posttrain.ledger import Recorder
from posttrain.masking import without_secrets
from posttrain.ranks import Ranks

PACKAGES = {
    "azure_ml": (("azureml.core",), "azureml-sdk"),
    "comet_ml": (("comet_ml",), "comet-ml"),
    "dagshub": (("dagshub", "mlflow"), "dagshub mlflow"),
    "flyte": (("flytekit",), "flytekit"),
    "kubeflow": ((), ""),
    "tensorboard": (("tensorboard",), "tensorboard"),
}
"""What a tracker needs: modules to import, and what to install; of the others both are the tracker's name."""


OPTIONS = ("project", "run_name")
"""Fields of `transformers.TrainingArguments` in a stage's `args` that the trackers heed."""


def check_installed(names: Sequence[str], where: str = "run.report_to") -> None:
    """Make sure that each tracker's package is there.

    Raises:
        ConfigError: One is not; it names what to install.
    """
    for name in names:
        modules, package = PACKAGES.get(name, ((name,), name))
        if name == "tensorboard" and _is_there("tensorboardX"):
            continue
        missing = [module for module in modules if not _is_there(module)]
        if missing:
            raise ConfigError(
                f"{name} is named, and {' and '.join(missing)} is not installed here",
                expected="trackers that are installed",
                where=where,
                fix=f"pip install {package}; or leave {name} out",
            )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent
        return False


class Trackers:
    """The trackers of a run, for use in `with`. Every process enters it; the main one sends.

    A tracker that fails on the way is told of once and left out from then on: training is worth more than its curve.

    Args:
        names: As in `run.report_to`.
        layout: The run's directory.
        recipe: The recipe as resolved and without secrets, which the trackers show as the run's configuration.
        say: Told of a tracker that failed.
        ranks: The processes of the run.
        send_again: Send steps that an earlier session sent, for they are not the same any more.
        options: Fields of `transformers.TrainingArguments` that the integrations read; see `OPTIONS`.
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
        options: Mapping[str, Any] | None = None,
    ):
        self._names, self._layout, self._recipe, self._say = list(names), layout, recipe, say
        self._ranks, self._send_again, self._options = ranks or Ranks(), send_again, dict(options or {})
        self._clients: dict[str, Any] = {}
        self._pending: dict[int, Mapping[str, Any]] = {}
        self._warmup_steps = self._sent = self._now = 0
        self._evaluated = -1

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

        known = json.loads(self._file.read_text(encoding="utf-8")) if self._file.exists() else {}
        self._id = known.get("id") or secrets.token_hex(4)
        if not self._send_again:
            self._sent, self._evaluated = known.get("sent", 0), known.get("evaluated", -1)
        self._remember()
        for line in files.read_lines(self._layout.steps_file):
            self._take(line)
        name = re.sub(r"[^\w.-]", "-", f"{self._layout.path.resolve().name}-{self._id}")
        own = {"run_name": name, "output_dir": str(self._layout.path)}
        self._arguments = run_arguments(self._recipe, own, self._options)
        settings = {
            "WANDB_RUN_ID": name,
            "WANDB_RESUME": "allow",
            "TENSORBOARD_LOGGING_DIR": str(self._layout.path / "tensorboard"),
        }
        if sys.stderr.isatty():
            settings["WANDB_CONSOLE"] = "off"  # else it keeps every frame of the live view
        with _environment(settings):
            for tracker, kind in zip(self._names, get_reporting_integration_callbacks(self._names), strict=True):
                self._clients[tracker] = self._started(tracker, kind)

    def _started(self, tracker: str, kind: Callable[[], Any]) -> Any:
        try:
            client = kind()
            self._call(client, "on_init_end", self._sent)
            self._call(client, "on_train_begin", self._sent, model=None)
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
        self._each("on_train_end", self._sent)
        if "wandb" in self._clients:  # whose integration leaves its run open for whatever the process does next
            sys.modules["wandb"].finish(exit_code=int(failed))
        self._clients = {}

    @property
    def _file(self) -> Path:
        """By what name the trackers know the run, and the last step that they have of it."""
        return self._layout.path / "trackers.json"

    def _remember(self) -> None:
        """Not by `files.write_json`, which waits for the disk: all that a power cut could cost is a step sent twice."""
        known = {"id": self._id, "sent": self._sent, "evaluated": self._evaluated}
        temporary = self._file.with_name(f".{self._file.name}.tmp")
        with suppress(OSError):  # a disk that is full ends the run where it writes what it cannot do without
            temporary.write_text(json.dumps(known), encoding="utf-8")
            temporary.replace(self._file)

    # ---- what there is to send ----

    def step(self, record: Mapping[str, Any]) -> None:
        """Take in a line of steps.jsonl, which goes out with the next `send`."""
        self._now = self._global_step(record)
        if self._clients:
            self._take(record)

    def _take(self, record: Mapping[str, Any]) -> None:
        step = self._global_step(record)
        if step > self._sent:
            self._pending[step] = record

    def send(self, logs: Mapping[str, Any]) -> None:
        """Send the lines since the last time, as their means, with what a trainer logs besides.

        Args:
            logs: Of the trainer. A line's number takes the place of one of the same name.
        """
        # What an earlier session recorded after its checkpoint is yet to be replaced
        ready = {step: self._pending.pop(step) for step in sorted(self._pending) if step <= self._now}
        for stage in dict.fromkeys(record["stage"] for record in ready.values()):
            records = {step: record for step, record in ready.items() if record["stage"] == stage}
            said = logs if self._now in records else {}  # else they are of a step that was sent before
            shown = {name.removeprefix(f"{stage}/"): value for name, value in said.items() if _is_number(value)}
            numbers = {**shown, **means(list(records.values()))}
            self._each("on_log", max(records), logs={f"{stage}/{name}": value for name, value in numbers.items()})
            self._sent = max(records)
            self._remember()

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Send a line of eval.jsonl."""
        step = self._warmup_steps + record["step"] if record["stage"] in ("hybrid", "final") else record["step"]
        if not self._clients or step <= self._evaluated:
            return
        numbers = {f"eval_{name.replace('@', '_at_')}": value for name, value in flat(record) if name != "step"}
        self._each("on_log", step, logs=numbers)
        self._evaluated = step
        self._remember()

    def _global_step(self, record: Mapping[str, Any]) -> int:
        if record["stage"] == "warmup":
            self._warmup_steps = max(self._warmup_steps, record["step"])
            return record["step"]
        return self._warmup_steps + record["step"]

    # ---- the integrations ----

    def _each(self, event: str, step: int, **facts: Any) -> None:
        for name, client in list(self._clients.items()):
            try:
                self._call(client, event, step, **facts)
            except Exception as error:
                self._say(f"{name} failed and gets no more of this run: {type(error).__name__}: {error}")
                del self._clients[name]

    def _call(self, client: Any, event: str, step: int, **facts: Any) -> None:
        from transformers import TrainerControl, TrainerState

        state = TrainerState(global_step=step, is_local_process_zero=True, is_world_process_zero=True)
        getattr(client, event)(self._arguments, state, TrainerControl(), **facts)


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
        options={name: value for name, value in (recipe.warmup.args | recipe.hybrid.args).items() if name in OPTIONS},
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


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the clients to start by; what is set already is the user's, and stays."""
    new = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


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


def flat(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a line by name, `/` between the keys that lead to one; of an interval, `_low` and `_high`."""
    for key, value in record.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}/")
        elif _is_number(value):
            yield name, value
        elif isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value)):
            yield from zip((f"{name}_low", f"{name}_high"), value, strict=True)


def means(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each number over the lines that have it; of whole numbers, which count something, the last one."""
    seen: dict[str, list[float]] = {}
    for record in records:
        for name, value in flat(record):
            seen.setdefault(name, []).append(value)
    return {
        name: values[-1] if isinstance(values[-1], int) and not isinstance(values[-1], bool) else _mean(values)
        for name, values in seen.items()
    }


def _mean(values: Sequence[float]) -> float:
    return sum(map(float, values)) / len(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
