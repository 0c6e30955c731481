"""What a curriculum costs: its share of a step, and its state over a million prompts.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/curriculum_cost.py
    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/curriculum_cost.py --million

Steps are a `HybridTrainer`'s, GRPO alone, with a model made here. The share is CPU seconds in `draw`, `observe` and
what the record needs, over CPU seconds of the same steps, so that it does not depend on what else a machine does.
With `--million` nothing is trained: a window of 64 prompts is drawn and observed again and again, and the state is
saved as a checkpoint saves it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from bench_models import SIZES, make
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, set_seed

from posttrain.controllers import GRPOOnly
from posttrain.curricula import CURRICULA, Sampler
from posttrain.curricula.base import Curriculum, Outcome, State
from posttrain.storage.files import write_json
from posttrain.training.config import HybridConfig
from posttrain.training.drawn import Drawn
from posttrain.training.trainer import HybridTrainer
from posttrain.watching.quiet import quiet_libraries

SETTINGS: dict[str, dict[str, Any]] = {
    "dmt": {"special": ("source 0",)},
    "mixed_sources": {"shares": {f"source {number}": 1.0 + number for number in range(4)}},
}
WARM = 2
"""Steps or windows that are not counted: the first makes orders that are kept."""


@dataclass(frozen=True)
class Timed(Sampler):
    """A sampler whose CPU seconds are counted."""

    spent: list[float] = field(default_factory=list, compare=False)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        before = time.process_time()
        yield
        self.spent.append(time.process_time() - before)

    def draw(self, state: State, count: int) -> list[int]:
        """The next prompts."""
        with self._counted():
            return super().draw(state, count)

    def observe(self, state: State, outcomes: Sequence[Outcome]) -> State:
        """The state after their rollouts."""
        with self._counted():
            return super().observe(state, outcomes)

    def window(self, state: State, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """What is put down of a window."""
        with self._counted():
            return super().window(state, outcomes)


class Steps(TrainerCallback):
    """CPU seconds of each step, and of the curriculum in it."""

    def __init__(self, sampler: Timed):
        self.sampler, self.steps, self.shares = sampler, list[float](), list[float]()
        self._at = self._spent = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        """Training begins with the first draw."""
        self._mark()

    def on_step_end(self, args, state, control, **kwargs):
        """A step is done."""
        self.steps.append(time.process_time() - self._at)
        self.shares.append(sum(self.sampler.spent) - self._spent)
        self._mark()

    def _mark(self) -> None:
        self._at, self._spent = time.process_time(), sum(self.sampler.spent)


def main() -> None:
    """Measure each curriculum, print a line of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="small", choices=SIZES)
    parser.add_argument("--rows", type=int, default=10_000, help="of the data set (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=8, help="of a step (default: %(default)s)")
    parser.add_argument("--group", type=int, default=8, help="completions of a prompt (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=32, help="of a completion (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="that are counted (default: %(default)s)")
    parser.add_argument("--million", action="store_true", help="the state of a million prompts instead")
    parser.add_argument("--only", nargs="+", default=list(CURRICULA), choices=CURRICULA, metavar="NAME")
    args = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    for name in args.only:
        curriculum = CURRICULA[name](**SETTINGS.get(name, {}))
        print(of_a_million(curriculum) if args.million else of_steps(curriculum, args), flush=True)


def columns_of(size: int) -> dict[str, list[Any]]:
    """Columns that curricula draw by."""
    return {
        "source": [f"source {row % 4}" for row in range(size)],
        "level": [float(row % 5) for row in range(size)],
        "skills": [[f"skill {row % 7}", f"skill {row % 11}"] for row in range(size)],
    }


class Columns(dict[str, list[Any]]):
    """Columns as rows that a table is made of."""


def sampler_of(curriculum: Curriculum, size: int) -> Timed:
    """It over rows of which pass rates are known."""
    columns = columns_of(size)
    rates = [(row % 9) / 8 for row in range(size)] if curriculum.measures else None
    table = curriculum.table(Columns(columns), list(columns), rates)
    return Timed(curriculum, table)


def reward(completions: list[str], **_: Any) -> list[float]:
    """Differs within a group."""
    return [float(len(set(text)) % 3 == 0) for text in completions]


def of_steps(curriculum: Curriculum, args: argparse.Namespace) -> str:
    """Its share of real steps."""
    set_seed(0)
    policy, tokenizer = make(args.model)
    sampler = sampler_of(curriculum, args.rows)
    prompts = Dataset.from_dict({"prompt": [f"What is {row} and {row + 1}?" for row in range(args.rows)]})
    counted = Steps(sampler)
    with tempfile.TemporaryDirectory() as folder:
        config = HybridConfig(
            folder, per_device_train_batch_size=args.prompts * args.group, num_generations=args.group,
            max_completion_length=args.tokens, max_steps=WARM + args.steps, learning_rate=1e-5, use_cpu=True,
            bf16=False, save_strategy="no", report_to=[], completions_every=0, logging_steps=100,
        )  # fmt: skip
        trainer = HybridTrainer(
            policy, reward, config, prompts, processing_class=tokenizer, controller=GRPOOnly(), curriculum=sampler,
            callbacks=[counted],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    steps, own = counted.steps[WARM:], counted.shares[WARM:]
    first = counted.shares[0]
    share, most = sum(own) / sum(steps), max(each / step for each, step in zip(own, steps, strict=True))
    return (
        f"{curriculum.name}: {share:.3%} of a step of {median(steps):.2f} CPU s ({median(own) * 1e3:.2f} ms), at most "
        f"{most:.3%}; {first * 1e3:.0f} ms in the first"
    )


def of_a_million(curriculum: Curriculum, size: int = 1_000_000, windows: int = 5) -> str:
    """What a window and a save take, and the size of the state."""
    sampler = sampler_of(curriculum, size)
    stream = Drawn(sampler, seed=0)
    took: dict[str, list[float]] = {"window": [], "save": [], "fingerprint": []}
    length = 0

    def timed(name: str, work: Callable[[], Any]) -> Any:
        before = time.process_time()
        found = work()
        took[name].append(time.process_time() - before)
        return found

    def one_window() -> None:
        rows = stream.take(64)
        stream.observe([Outcome(row, tuple(float((row + turn) % 3 == 0) for turn in range(8))) for row in rows])

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.json"
        for _ in range(WARM + windows):
            timed("window", one_window)
            timed("save", lambda: write_json(file, stream.saved()))
            timed("fingerprint", lambda: stream.fingerprint)
            length = file.stat().st_size
    millis = {name: median(of[WARM:]) * 1e3 for name, of in took.items()}
    return (
        f"{curriculum.name}: saved in {millis['save']:.1f} ms, {length / 1e6:.2f} MB; a window of 64 in "
        f"{millis['window']:.1f} ms ({took['window'][0] * 1e3:.0f} ms the first), its fingerprint in "
        f"{millis['fingerprint']:.1f} ms"
    )


if __name__ == "__main__":
    main()
