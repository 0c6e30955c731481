"""The checkpoints of `HybridTrainer`: all that resuming needs to equal never stopping."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from posttrain.controllers import Controller, State
from posttrain.training.checkpoints.resume_state import (
    check_start,
    describe_window,
    load_state,
    load_window,
    save_state,
    save_window,
)
from posttrain.training.checkpoints.whole import WholeCheckpoints
from posttrain.training.drawn import Drawn
from posttrain.training.method_side import MethodSide
from posttrain.training.sft_side import SFTSide
from posttrain.training.skipped import SkippedSteps
from posttrain.training.spending import Spending
from posttrain.training.window.cut import cut_of

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "_load_from_checkpoint": ("self", "resume_from_checkpoint", "model"),
    "_load_optimizer_and_scheduler": ("self", "checkpoint"),
}
"""Private methods of GRPOTrainer and Trainer that are overridden here, and their leading parameters."""


class HybridCheckpoints(WholeCheckpoints, MethodSide):
    """Saves and restores a controller's state, the streams' cursors and a window that is not used up.

    None of it depends on the number of processes. What is declared here the subclass sets.
    """

    controller: Controller
    controller_state: State | None
    sft: SFTSide | None
    _g_warmup: float | None
    _skips: SkippedSteps
    spending: Spending
    start_of: Callable[[float | None], State]

    def save_more(self, checkpoint: Path) -> None:
        """The controller's state and the streams' cursors, and rollouts that are not used up."""
        checkpoint.mkdir(parents=True, exist_ok=True)  # no process waits for another one to make it
        if self.accelerator.is_main_process:
            save_state(checkpoint, self._resume_state())
        if self._window_open():
            save_window(checkpoint, self.ranks.number, self._whole_share())
        self.save_next(checkpoint)
        if self.sft and self.sft.window:
            self.sft.window.save(checkpoint, self.ranks.number, self.sft.stream.cursor)

    def _window_open(self) -> bool:
        return self._buffered_inputs is not None and not self._generation_due()

    def _resume_state(self) -> dict[str, Any]:
        return {
            "controller": self.controller_state,
            "prompt_cursor": self.prompts.cursor,
            **({"curriculum": self.prompts.saved()} if isinstance(self.prompts, Drawn) else {}),
            "demonstration_cursor": self.sft.stream.cursor if self.sft else 0,
            "old_scores": {"until": self.sft.window.until, "processes": self.ranks.count}
            if self.sft and self.sft.window
            else None,
            "grpo_steps": self._step // self.args.gradient_accumulation_steps,
            "window": describe_window(cut_of(self.args), self.ranks.count) if self._window_open() else None,
            "rollouts": self._rollouts,
            "recorded_at": self._recorded_at,
            "dead_lately": self.dead_lately,
            "spent": self.spending.so_far,
            "skipped": self._skips.total,
            "skipped_in_a_row": self._skips.in_a_row,
            "snapshot": self._start.fingerprint if self._start else None,
            "buffer": self.buffer.state() if self.buffer is not None else None,
            "next_window": self.next_state(),
        }

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if self._start is not None:  # a sharded policy is sharded by now, and still the one that was handed in
            self._start.take(self.model)
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            share = self.ranks.together(lambda: self._continue_from(Path(checkpoint)))
            if share is not None:
                self._open_window(share)

    def _continue_from(self, checkpoint: Path) -> dict[str, Any] | None:
        """Take up a checkpoint's state; this process's share of the window that it lies inside, if it does."""
        state = load_state(checkpoint)
        check_start(state["snapshot"], self._start.fingerprint if self._start else None)
        self._continue_controller(state["controller"])
        self.prompts.cursor = state["prompt_cursor"]
        if isinstance(self.prompts, Drawn):
            self.prompts.go_on(state.get("curriculum"), state["prompt_cursor"])
        if self.sft:
            self.sft.stream.cursor = state["demonstration_cursor"]
        if self.sft and self.sft.window and (saved := state.get("old_scores")):
            self.sft.window.load(checkpoint, saved["until"], saved["processes"], self.args.device)
        if self.buffer is not None and (waiting := state.get("buffer")):
            self.buffer.load(waiting, self.pairs.of)
        self._rollouts, self._recorded_at = state["rollouts"], state["recorded_at"]
        self.dead_lately = state.get("dead_lately")
        self.load_next(checkpoint, state.get("next_window"))
        self.spending.go_on(state.get("spent"))
        self._skips.total, self._skips.in_a_row = state["skipped"], state["skipped_in_a_row"]
        self._step = 0  # in the window that is open, if one is
        if not state["window"]:
            return None
        self._step = state["grpo_steps"] * self.args.gradient_accumulation_steps
        return load_window(
            checkpoint,
            state["window"],
            cut_of(self.args),
            rank=self.ranks.number,
            world_size=self.ranks.count,
            device=self.args.device,
        )

    def _continue_controller(self, saved: State) -> None:
        """The saved state under this controller's settings, which an accepted change may have altered."""
        g_warmup = saved.get("g_warmup", self._g_warmup)
        fresh = self.start_of(g_warmup)
        settled = ("total_steps", "seed", "g_warmup")
        # Of a controller of another kind only the clock goes on
        self.controller_state = fresh | {name: v for name, v in saved.items() if name in fresh and name not in settled}
