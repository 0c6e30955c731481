"""The demonstrations of a warm-up as a curriculum draws them, step by step, and what is measured for it on the way.

A step's rows are drawn when it begins, not when a data loader fetches them ahead, so that a draw may go by what was
measured after the step before. All processes draw the same rows and take micro-batches of them in turn.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import send_to_device
from datasets import Dataset

from posttrain.curricula import CURRICULA, Curriculum, Sampler
from posttrain.curricula.base import DIGITS, Outcome, counted
from posttrain.curricula.beside import ON_DEMONSTRATIONS, refused_on_demonstrations
from posttrain.errors import ConfigError, TrainingError
from posttrain.inputs.data import IGNORED
from posttrain.models.inference import inference
from posttrain.processes.ranks import Ranks
from posttrain.training.drawn import Drawn, curriculum_of
from posttrain.training.source_gradients import cosines
from posttrain.training.streams import micro_batches

STATE = "curriculum.json"
"""In a checkpoint of the warm-up: the curriculum's state."""


class Measured(NamedTuple):
    """What a curriculum asked for.

    Attributes:
        values: By source.
        rows: Passes of a demonstration through the model that it took, over all processes.
        tokens: Of these.
    """

    values: dict[str, float]
    rows: int
    tokens: int


Measure = Callable[..., Measured]
"""From a `WarmupTrainer`, all demonstrations, of each source the rows that were asked for, and the rows of a target."""


def losses(trainer: Any, demonstrations: Dataset, rows: Mapping[str, Sequence[int]]) -> Measured:
    """The NLL of each source's label tokens, in nats, a mean over its tokens; by the weights as they are.

    Rows go through the model in micro-batches of the trainer's size that the processes take in turn, each row's sum is
    known to all of them, and these are added in the order of the rows: the same on any number of processes but for what
    their weights differ by. A loss that trains otherwise (`sft_weight`, label smoothing) is still measured as NLL.

    Raises:
        TrainingError: A loss is not finite.
    """
    ranks, size = Ranks.of(trainer.accelerator), trainer.args.per_device_train_batch_size
    every = [row for some in rows.values() for row in some]
    cuts = [every[start : start + size] for start in range(0, len(every), size)]
    found: dict[int, tuple[float, int, int]] = {}
    policy = trainer.accelerator.unwrap_model(trainer.model)
    with inference(policy):
        for turn in range(math.ceil(len(cuts) / ranks.count)):
            # Of sharded weights all processes need the same number of passes: one without a turn repeats the last
            cut = cuts[min(turn * ranks.count + ranks.number, len(cuts) - 1)]
            batch = trainer.data_collator([demonstrations[row] for row in cut])
            sums = trainer.label_log_probs(policy, batch).sum(dim=1, dtype=torch.float64).tolist()
            for row, total in zip(cut, sums, strict=True):
                labels = demonstrations[row]["labels"]
                found[row] = (-total, sum(label != IGNORED for label in labels[1:]), len(labels))
    known = {row: seen for each in ranks.gathered(found) for row, seen in each.items()}
    values = {}
    for name, some in rows.items():
        value = math.fsum(known[row][0] for row in some) / sum(known[row][1] for row in some)
        if not math.isfinite(value):
            raise _not_finite(name, value, trainer.state.global_step)
        values[name] = round(value, DIGITS)
    return Measured(values, len(every), sum(known[row][2] for row in every))


def gradients(trainer: Any, demonstrations: Dataset, rows: Mapping[str, Sequence[int]], *target: int) -> Measured:
    """The cosine between the gradients of each source's rows and of the target's (see `source_gradients`)."""
    every = [row for some in (*rows.values(), target) for row in some]
    values = {name: round(value, DIGITS) for name, value in cosines(trainer, demonstrations, rows, target).items()}
    return Measured(values, len(every), sum(len(demonstrations[row]["labels"]) for row in every))


MEASURES: dict[str, Measure] = {"losses": losses, "gradients": gradients}
"""What curricula may ask for, by `Asked.kind`."""


class DrawnDemonstrations:
    """Hands out a warm-up's micro-batches.

    Args:
        sampler: The curriculum over the demonstrations.
        demonstrations: `input_ids` and `labels`.
        seed: Run seed.

    Attributes:
        stream: The draws.
        seconds: What the latest step's draws and measurements took.
    """

    def __init__(self, sampler: Sampler, demonstrations: Dataset, *, seed: int):
        self.stream = Drawn(sampler, seed=seed, name="demonstrations")
        self._columns = demonstrations.select_columns(["input_ids", "labels"])
        self._measured: list[dict[str, Any]] = []
        self._windows: list[dict[str, Any]] = []
        self.seconds = 0.0

    def batches(self, trainer: Any, count: int) -> Iterator[Any]:
        """This process's micro-batches of the step that begins.

        Args:
            trainer: A `WarmupTrainer`.
            count: Micro-batches.
        """
        began = time.perf_counter()
        self._measure(trainer)
        args, accelerator = trainer.args, trainer.accelerator
        rows = self.stream.take(count * args.per_device_train_batch_size * accelerator.num_processes)
        world = {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
        self.seconds = time.perf_counter() - began
        for own in micro_batches(rows, steps=count, **world):
            yield send_to_device(trainer.data_collator([self._columns[row] for row in own]), args.device)

    def _measure(self, trainer: Any) -> None:
        self._measured = []
        sampler = self.stream.sampler
        while (asked := sampler.ask(self.stream.state)) is not None:
            got = MEASURES[asked.kind](trainer, self._columns, asked.rows, *asked.target)
            self.stream.take_in(got.values)
            self._measured.append({"kind": asked.kind, **got._asdict()})

    def finish_step(self) -> None:
        """The step is done: move the state past its rows."""
        rows = self.stream.drawn_rows()
        window = self.stream.observe([Outcome(row, ()) for row in rows])
        self._windows = [{**window, **({"measured": self._measured} if self._measured else {})}]

    def record(self) -> dict[str, Any]:
        """Of the step that was finished last, for its line of steps.jsonl."""
        name = self.stream.sampler.curriculum.name
        return {"name": name, **counted(self._windows), "windows": self._windows}

    def save(self, checkpoint: Path) -> None:
        """Leave the state in a checkpoint (main process)."""
        (checkpoint / STATE).write_text(json.dumps(self.stream.saved()), encoding="utf-8")

    def go_on(self, checkpoint: Path, taken: int) -> None:
        """Take up the state of a checkpoint, which may be of another curriculum or of none.

        Args:
            checkpoint: The folder.
            taken: Demonstrations that were trained on until then.
        """
        file = checkpoint / STATE
        self.stream.go_on(json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None, taken)


def demonstrations_by(
    given: Curriculum | Sampler | str | None, demonstrations: Dataset, *, seed: int, max_length: int | None = None
) -> DrawnDemonstrations | None:
    """The demonstrations as a curriculum draws them, where there is one.

    Args:
        given: A curriculum whose columns the demonstrations have, its name, or a sampler over as many rows.
        demonstrations: `input_ids` and `labels`.
        seed: Run seed.
        max_length: Tokens that the trainer would keep of one.

    Raises:
        ConfigError: It goes by rollouts, or is over another number of rows; or one is longer than is kept.
        DataError: Rows lack what the curriculum needs.
    """
    named = curriculum_of(given)
    if named is None:
        return None
    curriculum = named.curriculum if isinstance(named, Sampler) else named
    if seen := refused_on_demonstrations(curriculum):
        able = ", ".join(name for name, kind in CURRICULA.items() if kind.asks or not (kind.adaptive or kind.measures))
        fix = f"take one of {able}, or easy_to_hard with `by`"
        raise ConfigError(seen, expected=ON_DEMONSTRATIONS, where="curriculum", fix=fix)
    if not isinstance(named, Sampler):
        named = Sampler(named, named.table(demonstrations, demonstrations.column_names, of="demonstrations"))
    if named.size != len(demonstrations):
        raise ConfigError(
            f"a curriculum over {named.size} rows",
            expected=f"one over the {len(demonstrations)} demonstrations",
            where="curriculum",
            fix="make its table from the rows that were tokenised",
        )
    longest = max(map(len, demonstrations["input_ids"]))
    if max_length is not None and longest > max_length:
        raise ConfigError(
            f"a demonstration of {longest} tokens, and max_length {max_length}",
            expected="demonstrations that are cut already where a curriculum draws them",
            where="max_length",
            fix=f"tokenize_demonstrations(..., max_length={max_length})",
        )
    return DrawnDemonstrations(named, demonstrations, seed=seed)


def _not_finite(source: str, value: float, step: int) -> TrainingError:
    error = TrainingError(
        f"the validation loss of {source} is {value}",
        expected="a finite number",
        where=f"warm-up step {step}",
        fix="lower warmup.learning_rate or train in float32, and start over by --restart",
    )
    error.shared = True  # every process has the same sums
    return error
