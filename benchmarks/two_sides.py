"""TRL's `GRPOTrainer`, untouched, and our `HybridTrainer` without demonstrations, set up for the same work.

A side makes one optimizer step at a time, so that two of them can take turns. The learning rate is 0: the optimizer
works as ever, and each repetition begins from the same weights.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from rollout_loads import Load
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from posttrain.controllers import GRPOOnly
from posttrain.training.config import HybridConfig
from posttrain.training.trainer import HybridTrainer
from posttrain.watching.quiet import quiet_libraries

SIDES = ("trl", "ours")

PRIVATE_ATTRIBUTES = ("_last_loaded_step",)
"""Private attributes of a GRPOTrainer that are set here."""

MEANS = {"packed": "packed", "drop": "drop_zero_advantage", "seeded": "seeded_rollouts"}
"""What `--without` can switch off, and the field of `HybridConfig` that does it."""


@dataclass
class Taken:
    """What a step took.

    Attributes:
        wall_s, cpu_s: Seconds of the clock, and of all of the process's threads.
        tokens: Completion tokens in the step.
        gradient: All gradients in a row, as the optimizer gets them; `None` where not asked for.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    tokens: int = 0
    gradient: torch.Tensor | None = None


class Stopwatch:
    """Adds up wall-clock and CPU time while it runs."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self.running = False

    def start(self) -> None:
        """Run on."""
        self.running, self._wall, self._cpu = True, time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Stand still; nothing if it does."""
        if self.running:
            self.wall_s += time.perf_counter() - self._wall
            self.cpu_s += time.process_time() - self._cpu
        self.running = False


class Side:
    """One trainer, stepped by hand.

    Args:
        name: `trl` or `ours`.
        model: Trained in place (with a learning rate of 0).
        tokenizer: Its tokenizer.
        rows: Prompts and columns, all of which are one step's.
        reward: A TRL-style reward function.
        settings: Fields of `GRPOConfig` beyond those that are fixed here.
        folder: For what the trainer writes.
        without: Keys of `MEANS` that are switched off in ours.
        rollout_func: Recorded rollouts; `None` has the trainer sample.
        sampler: The rollouts come with log-probabilities, as from vLLM.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        rows: Sequence[dict[str, Any]],
        reward: Callable[..., Any],
        settings: dict[str, Any],
        folder: Path,
        *,
        without: Sequence[str] = (),
        rollout_func: Callable[..., Any] | None = None,
        sampler: bool = False,
    ):
        quiet_libraries()
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is
        self.name = name
        self.watch = Stopwatch()
        self._lengths: list[int] = []
        common = {
            "output_dir": str(folder / name), "max_steps": 1, "learning_rate": 0.0, "lr_scheduler_type": "constant",
            "weight_decay": 0.0, "max_grad_norm": 0.0, "shuffle_dataset": False, "bf16": False, "use_cpu": True,
            "report_to": [], "disable_tqdm": True, "save_strategy": "no", "seed": 0, **settings,
        }  # fmt: skip
        arguments: dict[str, Any] = {"processing_class": tokenizer, "rollout_func": self._timed_rollouts(rollout_func)}
        dataset = Dataset.from_list(list(rows))
        if name == "trl":
            self.trainer: Any = GRPOTrainer(
                model, self._timed_reward(reward), GRPOConfig(**common), dataset, **arguments
            )
        else:
            # TRL measures no KL to the start and writes no rollouts down: with these, ours would do more
            args = HybridConfig(**common, kl_sample=0.0, completions_every=0, **switched_off(without))
            self.trainer = HybridTrainer(
                model, self._timed_reward(reward), args, dataset, controller=GRPOOnly(), **arguments
            )
        self.trainer.remove_callback(PrinterCallback)
        if sampler:  # the rollouts are there already: no engine is needed, and there is nothing to send weights to
            self.trainer.use_vllm = self.trainer.args.use_vllm = True
            self.trainer.vllm_generation = SimpleNamespace(sync_weights=lambda: None, overlapped=0.0, probed=None)
            self.trainer._last_loaded_step = 0
        self._recorded = rollout_func is not None

    def training_part(self, *, gradient: bool = False) -> Taken:
        """One step on recorded rollouts; timed is what follows generation and scoring, up to the last backward pass.

        Args:
            gradient: Keep the gradients.
        """
        return self._step(_TrainingPart(self.watch, gradient))

    def whole_step(self) -> Taken:
        """One optimizer step, timed from drawing the prompts to the step's end."""
        return self._step(_WholeStep(self.watch))

    def _step(self, callback: _Timing) -> Taken:
        self.watch.__init__()  # type: ignore[misc]
        self._lengths.clear()
        self.trainer.add_callback(callback)
        self.trainer.train()
        self.trainer.remove_callback(callback)
        return Taken(self.watch.wall_s, self.watch.cpu_s, sum(self._lengths), callback.gradient)

    def _timed_rollouts(self, rollout_func: Callable[..., Any] | None) -> Callable[..., Any] | None:
        if rollout_func is None:
            return None

        def rollouts(prompts: Any, trainer: Any) -> dict[str, Any]:
            try:
                return rollout_func(prompts, trainer)
            finally:
                self.watch.start()

        return rollouts

    def _timed_reward(self, reward: Callable[..., Any]) -> Callable[..., Any]:
        def scored(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> Any:
            self._lengths += [len(ids) for ids in completion_ids]
            if self._recorded:
                self.watch.stop()
            try:
                return reward(prompts=prompts, completions=completions, completion_ids=completion_ids, **columns)
            finally:
                if self._recorded:
                    self.watch.start()

        return scored


class _Timing(TrainerCallback):
    gradient: torch.Tensor | None = None

    def __init__(self, watch: Stopwatch):
        self.watch = watch


class _TrainingPart(_Timing):
    def __init__(self, watch: Stopwatch, keep: bool):
        super().__init__(watch)
        self._keep = keep

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.watch.stop()
        if self._keep:
            self.gradient = torch.cat([p.grad.flatten().clone() for p in model.parameters()])


class _WholeStep(_Timing):
    def on_epoch_begin(self, args, state, control, **kwargs):
        self.watch.start()

    def on_step_end(self, args, state, control, **kwargs):
        self.watch.stop()


def switched_off(means: Sequence[str]) -> dict[str, bool]:
    """The fields of `HybridConfig` that do without some of `MEANS`.

    Raises:
        KeyError: There is no such means.
    """
    known = {each.name for each in fields(HybridConfig)}
    return {MEANS[name]: False for name in means if MEANS[name] in known}


def replayed(load: Load) -> tuple[Callable[..., Any], Callable[..., list[float]]]:
    """A rollout function and a reward function that give what a load has recorded."""
    number = {text: index for index, text in enumerate(load.prompts)}
    reward_of = {
        (text, tuple(ids)): reward
        for text, group, rewards in zip(load.prompts, load.completion_ids, load.rewards, strict=True)
        for ids, reward in zip(group, rewards, strict=True)
    }

    def rollouts(prompts: list[str], trainer: Any) -> dict[str, Any]:
        seen = [0] * len(load.prompts)
        rows = []
        for text in prompts:
            index = number[text]
            rows.append((index, seen[index]))
            seen[index] += 1
        logps = load.logps
        return {
            "prompt_ids": [load.prompt_ids[index] for index, _ in rows],
            "completion_ids": [load.completion_ids[index][row] for index, row in rows],
            "logprobs": None if logps is None else [logps[index][row] for index, row in rows],
        }

    def reward(prompts: list[str], completion_ids: list[list[int]], **columns: Any) -> list[float]:
        return [reward_of[text, tuple(ids)] for text, ids in zip(prompts, completion_ids, strict=True)]

    return rollouts, reward


def paired(measure: dict[str, Callable[[], Taken]], repeats: int) -> dict[str, list[Taken]]:
    """Let the sides take turns, the first of a pair alternating. Each should have made a step before."""
    taken: dict[str, list[Taken]] = {name: [] for name in measure}
    for repeat in range(repeats):
        for name in list(measure) if repeat % 2 else list(reversed(measure)):
            taken[name].append(measure[name]())
    return taken
