"""What one optimizer step showed, gathered while it runs and read once at its end."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from posttrain.controllers import Mix, Signals
from posttrain.rollouts.probe import ProbeResult
from posttrain.rundir import completions as records
from posttrain.storage.files import append_line, keep_lines


class Recorder(Protocol):
    """Where a trainer leaves its steps and rollouts."""

    def step(self, record: dict[str, Any]) -> None:
        """Keep one line of `steps.jsonl`."""
        ...

    def completions(self, step: int, rows: list[dict[str, Any]]) -> None:
        """Keep the rollouts of one step."""
        ...


class Ledger:
    """Sums, seconds and facts of the step in progress.

    A sum keeps (total, count), so that a mean over micro-batches and processes is exact. What is added as a tensor
    stays on its device until a sum is read, so that no micro-batch waits for the device.
    """

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.facts: dict[str, Any] = {}
        self._unread: list[tuple[str, torch.Tensor]] = []

    @contextmanager
    def clock(self, phase: str) -> Iterator[None]:
        """Add the block's wall-clock time to `phase`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - start

    def add(self, name: str, total: float | torch.Tensor, count: float | torch.Tensor = 1.0) -> None:
        """Add to the sum `name`; tensors have one element."""
        if isinstance(total, torch.Tensor) or isinstance(count, torch.Tensor):
            device = total.device if isinstance(total, torch.Tensor) else count.device  # type: ignore[union-attr]
            pair = [torch.as_tensor(value, dtype=torch.float32, device=device).detach() for value in (total, count)]
            self._unread.append((name, torch.stack(pair)))
            return
        self.sums[name][0] += total
        self.sums[name][1] += count

    def _read(self) -> None:
        """Add what lies on a device."""
        if not self._unread:
            return
        names, pairs = zip(*self._unread, strict=True)
        self._unread = []
        for name, (total, count) in zip(names, torch.stack(pairs).tolist(), strict=True):
            self.add(name, total, count)

    def mean(self, name: str) -> float | None:
        """The mean of the sum `name`, or `None` if nothing was added."""
        self._read()
        total, count = self.sums.get(name, (0.0, 0.0))
        return total / count if count else None

    def reduce(self, accelerator: Accelerator) -> None:
        """Add up the sums of all processes."""
        self._read()
        if accelerator.num_processes == 1:
            return
        names = sorted({name for names in gather_object([list(self.sums)]) for name in names})
        totals = torch.tensor([self.sums[name] for name in names], dtype=torch.float64, device=accelerator.device)
        for name, (total, count) in zip(names, accelerator.reduce(totals, reduction="sum").tolist(), strict=True):
            self.sums[name] = [total, count]

    def timings(self) -> dict[str, float]:
        """Seconds per phase and in all."""
        total = time.perf_counter() - self.started
        return {"total": round(total, 4), **{phase: round(s, 4) for phase, s in self.seconds.items()}}


class NewValues:
    """The means of what was appended to TRL's metric lists since the last look; TRL empties them when it logs."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def mark(self, metrics: Mapping[str, Sequence[float]]) -> None:
        """Forget everything that is in the lists now."""
        self._seen = {name: len(values) for name, values in metrics.items()}

    def means(self, metrics: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """Name to mean of the finite values appended since `mark`."""
        means = {}
        for name, values in metrics.items():
            fresh = [v for v in values[self._seen.get(name, 0) :] if math.isfinite(v)]
            if fresh:
                means[name] = sum(fresh) / len(fresh)
        return means


class FolderRecorder:
    """The default recorder of a trainer used as a library: `steps.jsonl` and `completions/` in `folder`."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def forget_after(self, step: int) -> None:
        """Drop the lines of later steps: what training resumes from does not know them."""
        keep_lines(self.folder / "steps.jsonl", lambda line: line["step"] <= step)

    def step(self, record: dict[str, Any]) -> None:
        """Append the record to `steps.jsonl`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        append_line(self.folder / "steps.jsonl", record)

    def completions(self, step: int, rows: list[dict[str, Any]]) -> None:
        """Write the rollouts of one step as parquet."""
        records.write_completions(self.folder / "completions" / f"step-{step:06d}.parquet", rows)


def step_record(step: int, mix: Mix, signals: Signals, ledger: Ledger, seen: Mapping[str, float]) -> dict[str, Any]:
    """One line of `steps.jsonl`; what a step did not show is `None`.

    Args:
        step: Optimizer steps done, this one included.
        mix: What the step was made of.
        signals: What the controller is told.
        ledger: The step's sums and seconds.
        seen: TRL's metrics of this step.
    """
    seconds, planned = ledger.timings(), ledger.mean("positions") is not None
    if "grpo" in seconds:  # TRL generates and scores inside its training step; show the rest apart
        inside = sum(seconds.get(phase, 0.0) for phase in ("generate", "score", "kl"))
        seconds["grpo"] = round(seconds["grpo"] - inside, 4)
    return {
        "stage": "hybrid",
        "step": step,
        "mix": {"sft": mix.sft, "grpo": mix.grpo},
        "p": mix.p,
        "reason": mix.reason,
        "sft_loss": ledger.mean("sft_loss"),
        "sft_trained_loss": ledger.mean("sft_trained_loss"),
        "grpo_loss": ledger.mean("grpo_loss"),
        "sft_norm": signals.sft_norm,
        "grpo_norm": signals.grpo_norm,
        "sft_weight": ledger.facts.get("sft_weight"),
        "grad_norm": ledger.facts.get("grad_norm"),
        "kl": signals.kl,
        "advantage_variance": signals.advantage_variance,
        "nll_variance": signals.nll_variance,
        "coefficient_gap": signals.coefficient_gap,
        "reward": seen.get("reward"),
        "rewards": {
            name.removeprefix("rewards/").removesuffix("/mean"): value
            for name, value in seen.items()
            if name.startswith("rewards/") and name.endswith("/mean")
        },
        "reward_std": seen.get("reward_std"),
        "zero_std_share": seen.get("frac_reward_zero_std"),
        "unscored_share": ledger.facts.get("unscored_share"),
        # Of planned micro-batches TRL's means count those without a rollout as 0
        "entropy": _first(ledger.mean("entropy"), None if planned else seen.get("entropy")),
        "clip_ratio": _first(ledger.mean("clip_ratio"), None if planned else seen.get("clip_ratio/region_mean")),
        "trained_rows": ledger.mean("trained_rows"),
        "positions": ledger.mean("positions"),
        "completion_length": seen.get("completions/mean_length"),
        "truncated_share": seen.get("completions/clipped_ratio"),
        "by_source": ledger.facts.get("by_source"),
        "refill": ledger.facts.get("refill"),
        "sampled": ledger.facts.get("sampled"),
        "sampling": sampling_gap(seen, ledger.facts.get("probe"), ledger.facts.get("stale_steps")),
        "learning_rate": ledger.facts.get("learning_rate"),
        "tokens": {},
        "seconds": seconds,
    }


def sampling_gap(
    seen: Mapping[str, float], probed: ProbeResult | None = None, stale_steps: int | None = None
) -> dict[str, float] | None:
    """How far the trainer's log-probabilities are from those of the engine that sampled; `None` without an engine."""
    names = {
        "logp_difference": "sampling_logp_difference/mean",
        "logp_difference_max": "sampling_logp_difference/max",
        "ratio_min": "importance_sampling_ratio/min",
        "ratio_mean": "importance_sampling_ratio/mean",
        "ratio_max": "importance_sampling_ratio/max",
    }
    gap = {ours: seen[name] for ours, theirs in names.items() if (name := f"sampling/{theirs}") in seen}
    if probed is not None:
        gap |= {"probe_mean": probed.mean_abs, "probe_max": probed.max_abs}
    if stale_steps is not None:
        gap["stale_steps"] = stale_steps
    return gap or None


def _first(*values: float | None) -> float | None:
    """The first that is there."""
    return next((value for value in values if value is not None), None)


def rollout_rows(step: int, logs: dict[str, Any], seen: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The newest generation batch of TRL's logs as rows of a table; `seen` is what `completion_columns` gave."""
    prompts, completions, advantages = (list(logs[name]) for name in ("prompt", "completion", "advantages"))
    rewards: dict[str, list[float]] = {name: list(values) for name, values in logs["rewards"].items()}
    return [
        {
            "step": step,
            "prompt": prompts[row],
            "completion": completions[row],
            "advantage": advantages[row],
            **{f"reward/{name}": values[row] for name, values in rewards.items()},
            **seen[row],
        }
        for row in range(len(seen))
    ]


def completion_columns(
    reward_funcs: Sequence[Any], completion_ids: Sequence[Sequence[int]], ends: Container[int]
) -> list[dict[str, Any]]:
    """What TRL's logs lack of each completion of the last batch.

    Args:
        reward_funcs: The trainer's, just called; those of `trl_reward_functions` have notes and parts.
        completion_ids: The sampled tokens, an end-of-sequence token included.
        ends: The tokens that end a completion.

    Returns:
        `note`, `truncated`, `length` (sampled tokens), and `part/REWARD.PART` for each part that a score has.
    """
    notes = reward_notes(reward_funcs, len(completion_ids))
    columns: list[dict[str, Any]] = [
        {"note": note, "truncated": not ids or ids[-1] not in ends, "length": len(ids)}
        for note, ids in zip(notes, completion_ids, strict=True)
    ]
    for function in reward_funcs:
        for row, outcome in enumerate(getattr(function, "last_outcomes", None) or []):
            if outcome.score:
                reward, parts = getattr(function, "__name__", "reward"), outcome.score.parts.items()
                columns[row] |= {f"part/{reward}.{part}": value for part, value in parts}
    return columns


def without_note(columns: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `completion_columns` without its text: what is needed of a generation whose completions aren't kept."""
    return {name: value for name, value in columns.items() if name != "note"}


def reward_notes(reward_funcs: Sequence[Any], count: int) -> list[str]:
    """Why each completion of the last batch scored as it did, where the rewards say so."""
    notes: list[list[str]] = [[] for _ in range(count)]
    for function in reward_funcs:
        for row, outcome in enumerate(getattr(function, "last_outcomes", None) or []):
            said = outcome.error or (outcome.score.note if outcome.score else "")
            if said:
                notes[row].append(said)
    return ["; ".join(said) for said in notes]
