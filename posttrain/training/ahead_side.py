"""One window ahead: a server samples the next window's rollouts while this one is trained on.

They come from the policy as it was before this window's update, and are trained on after it. What they are worth then
is TRL's correction: the ratio of the policy's own log-probabilities to those that the engine sampled by, truncated or
masked as `vllm_importance_sampling_mode` says. SFT steps in between make them older; every step says by how many.

A checkpoint waits for the rollouts under way and holds them, so that a resumed run trains on the ones that it would
have trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from posttrain.errors import ConfigError
from posttrain.methods.base import Method
from posttrain.recipe.window_ahead import refused
from posttrain.rollouts.sampling import Sampled
from posttrain.training.grpo_side import GRPOSide
from posttrain.training.saved import saved_tensors

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "_prepare_inputs": ("self", "generation_batch"),
    "_tokenize_prompts": ("self", "prompts"),
}
"""Private methods of GRPOTrainer that are overridden or called here, and their leading parameters."""


@dataclass(frozen=True)
class NextWindow:
    """Rollouts that are sampled already, or being sampled, for the window that comes next.

    Attributes:
        numbers: The rows of `train_dataset` of all processes' groups.
        rows: This process's, each as often as it has completions.
        step: Optimizer steps that the policy had taken that they are sampled from.
    """

    numbers: list[int]
    rows: list[dict[str, Any]]
    step: int


class AheadSide(GRPOSide):
    """A `GRPOTrainer` that may have the next window's rollouts sampled ahead of it."""

    def begin_grpo(self) -> None:
        """Set what this half keeps between steps."""
        super().begin_grpo()
        self._next: NextWindow | None = None

    def _prepare_inputs(self, generation_batch):
        if not (self.use_vllm and self.model.training and self._generation_due()):
            return super()._prepare_inputs(generation_batch)
        taken, self._next = self._next, None
        if taken is not None:
            self._drawn_ahead = taken.rows
            self._last_loaded_step = self.state.global_step  # TRL is to send no weights before these are here
        inputs = super()._prepare_inputs(generation_batch)
        if self.args.vllm_ahead:
            self._ledger.facts["stale_steps"] = self.state.global_step - taken.step if taken else 0
            if comes_another(self.args, self.state.global_step):
                self._begin_next(sent=taken is None)
        return inputs

    def _begin_rollouts(self, model: nn.Module) -> None:
        if self._next is None:
            super()._begin_rollouts(model)

    def _begin_next(self, *, sent: bool) -> None:
        """Have the server sample for the next window, from the policy as it is.

        Args:
            sent: Whether it has these weights already.
        """
        with self._ledger.clock("generate"):
            numbers = self._draw_numbers()
            rows = self._own_rows(numbers)
            prompt_ids, *_ = self._tokenize_prompts([row["prompt"] for row in rows])
            if not sent:
                self.vllm_generation.sync_weights()
            self.vllm_generation.begin_next(prompt_ids, self.num_generations)
        self._note_engine()
        self._next = NextWindow(numbers, rows, self.state.global_step)

    # ---- checkpoints ----

    def save_next(self, checkpoint: Path) -> None:
        """Wait for the rollouts under way, and write this process's."""
        if self._next is not None:
            save_sampled(checkpoint, self.ranks.number, self.vllm_generation.wait_for_next())

    def next_state(self) -> dict[str, Any] | None:
        """What a checkpoint's state says of them; `None` where there are none."""
        if self._next is None:
            return None
        return {"rows": self._next.numbers, "step": self._next.step, "processes": self.ranks.count}

    def load_next(self, checkpoint: Path, saved: Mapping[str, Any] | None) -> None:
        """Take up what `save_next` wrote; any number of processes may have."""
        self._next = None
        if saved is None:
            return
        rows = self._own_rows(saved["rows"])
        prompt_ids, *_ = self._tokenize_prompts([row["prompt"] for row in rows])
        first = self.ranks.number * len(rows)
        sampled = load_sampled(checkpoint, saved["processes"])[first : first + len(rows)]
        self.vllm_generation.restore_next(self._place_in_window(len(rows)), prompt_ids, self.num_generations, sampled)
        self._next = NextWindow(list(saved["rows"]), rows, saved["step"])


def comes_another(args: Any, step: int) -> bool:
    """Whether a window comes behind the one that opens after so many steps; what is sampled for none is for nothing."""
    lasts = args.steps_per_generation * args.num_iterations // args.gradient_accumulation_steps
    return step + max(1, lasts) < args.max_steps


def check_ahead(args: Any, method: Method | None, curriculum: Any = None) -> None:
    """Refuse sampling ahead where it could not be, or would be another thing than asked for.

    Raises:
        ConfigError: With what to set.
    """
    if not args.vllm_ahead:
        return
    problem = refused(
        corrects=args.vllm_importance_sampling_correction,
        refill=args.refill,
        length_budget=args.length_budget,
        curriculum=curriculum,
        method=method,
    )
    problems = [
        (args.vllm_ahead != 1, f"vllm_ahead {args.vllm_ahead}", "0 or 1: one window", "set it to 1"),
        (
            not (args.use_vllm and args.vllm_mode == "server"),
            "vllm_ahead without a server, whose sampling goes on beside training",
            "use_vllm with vllm_mode='server'",
            "start one with `posttrain serve`, or leave vllm_ahead out",
        ),
        *([(True, f"vllm_ahead {problem[0]}", *problem[1:])] if problem else []),
    ]
    for wrong, seen, expected, fix in problems:
        if wrong:
            raise ConfigError(seen, expected=expected, where="vllm_ahead", fix=fix)


def save_sampled(checkpoint: Path, rank: int, rows: list[Sampled]) -> None:
    """Write completions of a process's rows, in the order of their numbers."""
    tensors = {
        "tokens": torch.tensor([token for row in rows for token in row.token_ids], dtype=torch.int64),
        "logprobs": torch.tensor([value for row in rows for value in row.logprobs], dtype=torch.float64),
        "lengths": torch.tensor([len(row.token_ids) for row in rows], dtype=torch.int64),
        "truncated": torch.tensor([row.truncated for row in rows], dtype=torch.bool),
    }
    save_file(tensors, checkpoint / _name(rank))


def load_sampled(checkpoint: Path, processes: int) -> list[Sampled]:
    """The completions of all rows, as `save_sampled` of so many processes wrote them.

    Raises:
        ResumeError: A file is missing or torn.
    """
    rows = []
    for rank in range(processes):
        saved = saved_tensors(checkpoint / _name(rank), "rollouts that were sampled ahead")
        lengths = saved["lengths"].tolist()
        cut = [part.split(lengths) for part in (saved["tokens"], saved["logprobs"])]
        for tokens, logprobs, truncated in zip(*cut, saved["truncated"].tolist(), strict=True):
            rows.append(Sampled(tokens.tolist(), logprobs.tolist(), truncated))
    return rows


def _name(rank: int) -> str:
    return f"next-rank{rank}.safetensors"
