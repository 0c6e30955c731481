"""What a step will cost: seconds and bytes by part, from counted work and coefficients fitted to measurements.

Work is counted, not guessed: floating-point operations of the linear layers, of attention and of the head, elements
that memory-bound operations touch, calls. A part's seconds are a sum of counts, each times a coefficient that is not
negative, fitted to measured points by least squares on the relative error. Such coefficients hold for one machine, one
number of threads and one dtype, which `CostModel.machine` names. All counts are of one process. Loads no torch.

Sources of the counts: a linear layer takes 2 operations per weight and position forward, 4 backward (for its input and
for its weights; Kaplan et al., arXiv 2001.08361, section 2.1), 2 more where checkpointing computes it again; attention
takes 4 per head dimension and (query, key) pair forward, 2 for the scores and 2 for the values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.errors import DataError
from posttrain.models.cost_counts import PARTS, ModelShape, StepWork, memory_counts, time_counts
from posttrain.planning.least_squares import nonnegative_least_squares

__all__ = ["CostModel", "Measured", "ModelShape", "Prediction", "StepWork", "leave_one_out", "read_measured"]

COEFFICIENTS = ("training", "logprobs", "optimizer", "generation")
"""Names of what is fitted, in this order: prefill has those of `logprobs`, and padded passes those of packed ones."""

HELD, MEMORY = ("training", "padded training", "sft", "generation"), " memory"
"""Of what the peak is fitted, and how the names of these coefficients end."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measured part of a step.

    Attributes:
        part: `generation`, `training`, `logprobs`, `optimizer` or `sft`.
        shape: Of the model.
        work: Of the step.
        seconds: What the part took.
        peak: Bytes at the worst moment of the part, above those of the process without the model; None: unknown.
        name: For tables.
    """

    part: str
    shape: ModelShape
    work: StepWork
    seconds: float
    peak: int | None = None
    name: str = ""


@dataclass(frozen=True)
class Prediction:
    """What a step is expected to take.

    Attributes:
        seconds: By part: prefill, decode, rewards, training, logprobs, optimizer, sft.
        training_bytes: Of the peak while training, by part: weights, gradients, optimizer, activations, logits, other;
            of the half (SFT or GRPO) that takes more.
        generation_bytes: Of the peak while sampling, by part: weights, cache, activations, logits, other. Gradients and
            optimizer states, which stay allocated meanwhile, are not in it.
    """

    seconds: dict[str, float]
    training_bytes: dict[str, float]
    generation_bytes: dict[str, float]

    @property
    def total_seconds(self) -> float:
        """Of the whole step."""
        return sum(self.seconds.values())

    @property
    def peak_bytes(self) -> float:
        """The larger of the two peaks; sampling happens beside the gradients' and the optimizer's memory."""
        kept = self.training_bytes.get("gradients", 0.0) + self.training_bytes.get("optimizer", 0.0)
        return max(sum(self.training_bytes.values()), kept + sum(self.generation_bytes.values()))


@dataclass(frozen=True)
class CostModel:
    """Coefficients of one machine.

    Attributes:
        machine: What was measured on, in words: processor, threads, dtype.
        coefficients: By part, seconds (or bytes) per unit of each count.
    """

    machine: str = ""
    coefficients: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def fit(cls, points: Iterable[Measured], *, machine: str = "") -> CostModel:
        """The coefficients that miss the points by the least relative squares, none of them negative.

        Prefill is a forward pass, so that what the log-probability passes showed is taken off a generation's seconds
        before the rest is fitted to decoding.

        Args:
            points: Measured parts. A part without points gets no coefficients, and is predicted as NaN.
            machine: Names what they were measured on.

        Raises:
            DataError: A point's seconds are not positive, or its part has no name here.
        """
        points = list(points)
        for point in points:
            if point.part not in PARTS or not point.seconds > 0:
                raise DataError(
                    f"a measured point {point.name!r} of part {point.part!r} with {point.seconds} s",
                    expected=f"one of {', '.join(PARTS)}, in more than 0 s",
                    where="points",
                )
        model = cls(machine)
        for name in COEFFICIENTS:
            some = [each for each in points if coefficients_of(each.part, each.work) == name and each.work.packed]
            model = model._with_seconds(name, some)
        for name in HELD:
            held = [each for each in points if each.peak and coefficients_of(each.part, each.work, HELD) == name]
            model = model._with_bytes(name, held)
        return model

    def predict(self, shape: ModelShape, work: StepWork) -> Prediction:
        """Seconds and bytes of a step.

        Args:
            shape: Of the model.
            work: Of one process in one optimizer step.
        """
        prefill = self._seconds("logprobs", time_counts("prefill", shape, work))
        seconds = {
            "prefill": prefill,
            "decode": self._seconds("generation", time_counts("generation", shape, work)),
            "rewards": work.rows * work.reward_seconds,
        }
        for part in ("training", "logprobs", "optimizer", "sft"):
            seconds[part] = self._seconds(coefficients_of(part, work), time_counts(part, shape, work))
        halves = [self.part_bytes(part, shape, work) for part in ("training", "sft")]
        return Prediction(
            seconds, max(halves, key=lambda half: sum(half.values())), self.part_bytes("generation", shape, work)
        )

    def part_seconds(self, part: str, shape: ModelShape, work: StepWork) -> float:
        """Seconds of one part as it is measured: generation is prefill and decoding together."""
        seconds = self.predict(shape, work).seconds
        return seconds["prefill"] + seconds["decode"] if part == "generation" else seconds[part]

    def part_bytes(self, part: str, shape: ModelShape, work: StepWork) -> dict[str, float]:
        """Bytes at the worst moment of `training`, `sft` or `generation`, by what takes them."""
        known, counts = memory_counts(part, shape, work)
        name = coefficients_of(part, work, HELD) + MEMORY
        if name not in self.coefficients:
            return {**known, **dict.fromkeys(counts, float("nan"))}
        return {**known, **{count: self.coefficients[name][count] * value for count, value in counts.items()}}

    def to_json(self) -> str:
        """All of the model as JSON text."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> CostModel:
        """What `to_json` wrote."""
        return cls(**json.loads(text))

    def _with_seconds(self, name: str, points: Sequence[Measured]) -> CostModel:
        if not points:
            return self
        counts, seconds = [], []
        for point in points:
            prefill = 0.0
            if name == "generation" and "logprobs" in self.coefficients:
                prefill = self._seconds("logprobs", time_counts("prefill", point.shape, point.work))
            # At least a tenth is left to decoding, whatever the forward pass seems to take
            seconds.append(max(point.seconds - prefill, 0.1 * point.seconds))
            counts.append(time_counts(point.part, point.shape, point.work))
        return self._with(name, _fitted(counts, seconds, [each.seconds for each in points]))

    def _with_bytes(self, name: str, points: Sequence[Measured]) -> CostModel:
        if not points:
            return self
        known, counts = zip(*(memory_counts(each.part, each.shape, each.work) for each in points), strict=True)
        peaks = [float(each.peak or 0) for each in points]
        rest = [peak - sum(sure.values()) for peak, sure in zip(peaks, known, strict=True)]
        return self._with(name + MEMORY, _fitted(counts, rest, peaks))

    def _with(self, name: str, coefficients: dict[str, float]) -> CostModel:
        return replace(self, coefficients={**self.coefficients, name: coefficients})

    def _seconds(self, name: str, counts: Mapping[str, float]) -> float:
        if not any(counts.values()):
            return 0.0
        if name not in self.coefficients:
            return float("nan")
        return sum(self.coefficients[name][count] * value for count, value in counts.items())


def coefficients_of(part: str, work: StepWork, names: Sequence[str] = COEFFICIENTS) -> str:
    """The name of a part's coefficients among those of seconds or of bytes.

    The SFT half makes the passes of the GRPO half, so that its seconds have the same. Padded passes do what packed ones
    do, to more positions: their seconds have the same, too, which are within 15 % of TRL's measured ones. They keep
    more of each position, which has coefficients of its own.
    """
    if part in ("training", "sft") and not work.packed and "padded training" in names:
        return "padded training"
    return part if part in names or part != "sft" else "training"


def leave_one_out(points: Sequence[Measured]) -> list[tuple[float, float | None]]:
    """For each point, the seconds and the peak in bytes that a model predicts which was fitted to all others."""
    predicted: list[tuple[float, float | None]] = []
    for index, point in enumerate(points):
        model = CostModel.fit([*points[:index], *points[index + 1 :]])
        seconds = model.part_seconds(point.part, point.shape, point.work)
        peak = None
        if point.peak and coefficients_of(point.part, point.work, HELD) in HELD:
            peak = sum(model.part_bytes(point.part, point.shape, point.work).values())
        predicted.append((seconds, peak))
    return predicted


def read_measured(path: str | Path) -> tuple[str, list[Measured]]:
    """The machine and the points of a file that `benchmarks/scaling.py` wrote. TRL's are of padded rows: what a model
    trains on that cannot be packed.

    Args:
        path: The file.

    Raises:
        DataError: It holds something else.
    """
    raw = json.loads(Path(path).read_text(encoding="utf-8"))
    try:
        return raw["machine"], _points(raw["points"])
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path} does not hold measured points ({type(error).__name__}: {error})",
            expected="the JSON that benchmarks/scaling.py writes",
            where=str(path),
            fix="measure again: python benchmarks/scaling.py --json FILE",
        ) from error


def _points(entries: Sequence[Mapping[str, Any]]) -> list[Measured]:
    points: list[Measured] = []
    optimizer: dict[ModelShape, Measured] = {}  # the same for all work on a model: the least, for milliseconds vary
    for entry in entries:
        at = entry["point"]
        shape, work = ModelShape(**entry["shape"]), StepWork(**entry["work"])
        name = f"{at['size']}, {at['rows']} x {at['longest']}, G {at['group']}"
        name += f", {at['dropped']:.0%} dropped" if at["dropped"] else ""
        name += f", vocabulary {at['vocab']}" if at["axis"] == "vocab" else ""
        name += "" if work.packed else ", padded"
        peak = entry["peak"] - entry.get("held", 0)  # what a trainer holds beside the model is no part of the work
        one = Measured(part=at["part"], shape=shape, work=work, seconds=entry["seconds"], peak=peak, name=name)
        points.append(one)
        if "optimizer" in entry and at["trainer"] == "ours":
            name = at["size"] + (f", vocabulary {at['vocab']}" if at["axis"] == "vocab" else "")
            other = replace(one, part="optimizer", seconds=entry["optimizer"], peak=None, name=name)
            if shape not in optimizer or other.seconds < optimizer[shape].seconds:
                optimizer[shape] = other
    return [*points, *optimizer.values()]


def _fitted(counts: Sequence[Mapping[str, float]], values: Sequence[float], scale: Sequence[float]) -> dict[str, float]:
    """Coefficients by name for which the counts miss the values by the least squares relative to `scale`."""
    names = list(counts[0])
    matrix = np.array([[row[name] for name in names] for row in counts], dtype=float)
    matrix /= np.asarray(scale, dtype=float)[:, None]
    wanted = np.asarray(values, dtype=float) / np.asarray(scale, dtype=float)
    # Columns to a common size: operations are counted in billions, calls in tens
    size = np.linalg.norm(matrix, axis=0)
    size[size == 0] = 1.0
    solution = nonnegative_least_squares(matrix / size, wanted) / size
    return {name: float(value) for name, value in zip(names, solution, strict=True)}
