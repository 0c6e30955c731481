"""Stage 2: `HybridTrainer`, a `GRPOTrainer` whose every step is SFT, GRPO or both, as a controller says.

This is the only file that touches TRL's and transformers' private names. `PRIVATE_NAMES` lists them with the
parameters that we rely on; a test compares them with what is installed. What differs from `GRPOTrainer`:

- Prompts and demonstrations are two `Stream`s with one integer cursor each, so that resuming is exact at any step
  (TRL's sampler starts over at epoch 0, and its generation window at the step one resumes from).
- The dataloader yields ticks; prompts are drawn when a generation is due, never on an SFT step.
- Each loss is normalised by its own token count over the whole step. Its gradient is measured before clipping and, in
  a blend, kept apart until both are known.
- The KL to the policy that training began with is measured on the rollouts, whatever `beta` is.
- A step whose gradient is not finite is skipped and counted; checkpoints appear whole or not at all.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from trl import GRPOTrainer

from posttrain.controllers import SASR, Controller, Mix, Signals, State, check_mix
from posttrain.errors import ResumeError, TrainingError
from posttrain.gradnorm import add_gradients, total_norm
from posttrain.hybrid_config import HybridConfig, check_arguments, check_engine_arguments, check_model
from posttrain.ledger import FolderRecorder, Ledger, NewValues, Recorder, reward_notes, rollout_rows, step_record
from posttrain.losses import kl_k3, matched_sft_scale
from posttrain.resume_state import has_window, load_state, load_window, save_state, save_window
from posttrain.rollouts.engines import Engine, open_engine
from posttrain.rollouts.for_trl import (
    EngineRollouts,
    Place,
    coarser,
    engine_settings,
    sampling_of,
    side_by_side,
    training_dtype,
)
from posttrain.rollouts.sampling import EVALUATIONS
from posttrain.rollouts.transformers import inference
from posttrain.sft_side import SFTSide
from posttrain.snapshot import PolicySnapshot, copy_policy
from posttrain.streams import Stream
from posttrain.whole_checkpoints import WholeCheckpoints

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "_prepare_inputs": ("self", "generation_batch"),
    "_generate": ("self", "prompts"),
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("self", "inputs"),
    "_get_per_token_logps_and_entropies": (
        "self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"
    ),
    "_get_grad_norm": ("self", "model", "grad_norm"),
    "_load_optimizer_and_scheduler": ("self", "checkpoint"),
}  # fmt: skip
"""Private methods of GRPOTrainer and Trainer that are overridden or called here, and their leading parameters."""

PRIVATE_ATTRIBUTES = ("_step", "_buffered_inputs", "_metrics", "_logs", "_tokenizer", "_is_vlm")
"""Private attributes of a constructed GRPOTrainer that are read or set here."""


class HybridTrainer(WholeCheckpoints, GRPOTrainer):
    """Mix SFT on demonstrations with GRPO on verifiable rewards, step by step.

    Args:
        model, reward_funcs, args, train_dataset, *more, **kwargs: As for `trl.GRPOTrainer`; `args` is a
            `HybridConfig`, `train_dataset` has a `prompt` and the columns that the rewards take.
        demonstrations: Rows with `prompt` and `completion`, text or messages; or tokenised rows with `input_ids` and
            `labels`. They need not share prompts with `train_dataset`.
        controller: Decides each step's mix. Defaults to `SASR()`.
        g_warmup: Norm of the SFT gradient at the end of the warm-up. If the controller needs it and it is `None`, it
            is measured on a few batches before the first step.
        recorder: Takes every step's record and sampled rollouts. Defaults to `steps.jsonl` and `completions/` in
            `args.output_dir`.
        engine: What samples when `args.use_vllm` is set. Defaults to one started by `args.vllm_*`.

    Raises:
        ConfigError: Arguments that contradict each other, before anything is trained.
    """

    args: HybridConfig

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: HybridConfig | None = None,
        train_dataset: Dataset | None = None,
        *more: Any,
        demonstrations: Any = None,
        controller: Controller | None = None,
        g_warmup: float | None = None,
        recorder: Recorder | None = None,
        engine: Engine | None = None,
        **kwargs: Any,
    ):
        args = HybridConfig(output_dir="hybrid") if args is None else args
        self.controller: Controller = SASR() if controller is None else controller
        check_arguments(args, train_dataset, demonstrations, self.controller)
        check_engine_arguments(args, kwargs)
        uses_vllm, args.use_vllm = args.use_vllm, False  # GRPOTrainer would start an engine of its own
        try:
            super().__init__(model, reward_funcs, args, train_dataset, *more, **kwargs)
        finally:
            args.use_vllm = uses_vllm
        self.use_vllm = uses_vllm
        if args.max_steps <= 0:
            args.max_steps = self._steps_for_epochs(args.num_train_epochs)

        self.prompts = Stream(
            len(self.train_dataset), seed=args.seed, name="prompts", shuffle=bool(args.shuffle_dataset)
        )
        self.controller_state: State | None = None
        self.last_record: dict[str, Any] = {}
        self._g_warmup = g_warmup
        self._recorder = recorder or FolderRecorder(args.output_dir)
        self.sft: SFTSide | None = None
        if demonstrations is not None and self.controller.shares()[0]:
            self.sft = SFTSide(
                demonstrations,
                model=self.model,
                tokenizer=self._tokenizer,
                args=args,
                accelerator=self.accelerator,
            )
        measures_kl = args.kl_sample > 0 and self.controller.shares()[1]
        check_model(self, measures_kl=measures_kl)
        if self.ref_model is not None and not isinstance(model, str):
            copy_policy(self.accelerator, self.model, self.ref_model)
        self._snapshot = PolicySnapshot(self.model) if measures_kl else None
        self._snapshot_id = self._snapshot.fingerprint() if self._snapshot else None
        self._mix = Mix(0.0, 1.0)
        self._ledger, self._new_values = Ledger(), NewValues()
        self._tick = self._rollouts = self._recorded_at = self._skipped = self._skipped_in_a_row = self._evaluated = 0
        self._sft_gradients: list[torch.Tensor | None] | None = None
        self._policy_logps: torch.Tensor | None = None
        self._reward_notes: list[str] = []
        self._truncated: list[bool] = []
        self._last_loaded_step = -1
        if uses_vllm:
            self.vllm_generation = self._engine_rollouts(engine)
        # First in line, so that every other callback sees the finished step
        self.callback_handler.callbacks.insert(0, _StepEnd(self))

    # ---- the clock: ticks instead of data ----

    def get_train_dataloader(self) -> DataLoader:
        """One tick per micro-step. What a step trains on is drawn when its mix is known."""
        ticks = range(self.args.max_steps * self.args.gradient_accumulation_steps)
        # A generator of its own: the dataloader must not draw from the random state that sampling uses
        return DataLoader(ticks, batch_size=1, collate_fn=_tick, generator=torch.Generator())  # type: ignore[arg-type]

    def _steps_for_epochs(self, epochs: float) -> int:
        prompts_per_window = self.args.generation_batch_size // self.args.num_generations
        windows = math.ceil(epochs * len(self.train_dataset) / prompts_per_window)
        micro_steps = windows * self.args.steps_per_generation * self.args.num_iterations
        return max(1, math.ceil(micro_steps / self.args.gradient_accumulation_steps))

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Called once per optimizer step, before it: the place to decide the mix."""
        ticks, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._begin_step()
        return ticks, None

    def _begin_step(self) -> None:
        if self.controller_state is None:
            self.controller_state = self._start_controller()
        self._ledger = Ledger()
        self._new_values.mark(self._metrics["train"])
        mix = [self.controller.decide(self.controller_state)]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(mix)
        self._mix, self._tick = mix[0], 0
        check_mix(self._mix, has_demonstrations=self.sft is not None)
        if self.sft and (self._mix.sft > 0.0 or self._mix.measure_sft):
            self.sft.draw(advance=self._mix.sft > 0.0)
        self._ledger.facts["learning_rate"] = self.optimizer.param_groups[0]["lr"]

    def _continue_controller(self, saved: State) -> None:
        """The saved state under this controller's settings, which an accepted change may have altered."""
        g_warmup = saved.get("g_warmup", self._g_warmup)
        fresh = self.controller.start(total_steps=self.args.max_steps, seed=self.args.seed, g_warmup=g_warmup)
        settled = ("total_steps", "seed", "g_warmup")
        # Of a controller of another kind only the clock goes on
        self.controller_state = fresh | {name: v for name, v in saved.items() if name in fresh and name not in settled}

    def _start_controller(self) -> State:
        controller, g_warmup = self.controller, self._g_warmup
        if self.sft and controller.needs_g_warmup and (g_warmup or getattr(controller, "g_warmup", None)) is None:
            g_warmup = self.sft.measure_warmup_norm(self.model_wrapped)
        return controller.start(total_steps=self.args.max_steps, seed=self.args.seed, g_warmup=g_warmup)

    # ---- one step ----

    def training_step(self, model, inputs, num_items_in_batch=None):
        """One micro-step: SFT, GRPO, or the SFT of the whole step aside and then GRPO."""
        tick, self._tick = self._tick, self._tick + 1
        mix = self._mix
        if self.sft and mix.grpo == 0.0:
            return self.sft.backward(model, tick, self._ledger)
        if self.sft and tick == 0 and (mix.sft > 0.0 or mix.measure_sft):
            gradients, self._ledger.facts["sft_norm"] = self.sft.backward_aside(model, self._ledger)
            self._sft_gradients = gradients if mix.sft > 0.0 else None
        with self._ledger.clock("grpo"):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self._sft_gradients is not None and self._tick == self.args.gradient_accumulation_steps:
            self._blend()
        return loss

    def _blend(self) -> None:
        """Put `sft * g_sft + grpo * g_grpo` into `.grad`, the first scaled to its share if so asked."""
        mix, sft_norm = self._mix, self._ledger.facts["sft_norm"]
        grpo_norm = total_norm(self.model.parameters())
        weight = matched_sft_scale(mix.sft, sft_norm, grpo_norm) if mix.match_norms else mix.sft
        add_gradients(self.model.parameters(), self._sft_gradients or [], scale=mix.grpo, other_scale=weight)
        self._sft_gradients = None
        self._ledger.facts |= {"grpo_norm": grpo_norm, "sft_weight": weight}

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        value = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        facts = self._ledger.facts
        facts["grad_norm"] = value
        if not math.isfinite(value):
            self._skip_step(model)
        elif self._mix.grpo == 0.0:
            facts["sft_norm"] = value
        elif self._mix.sft == 0.0:
            facts["grpo_norm"] = value
        return norm

    def _skip_step(self, model: nn.Module) -> None:
        """Drop a gradient that is not finite: with no gradients the optimizer changes nothing."""
        model.zero_grad(set_to_none=True)
        self._ledger.facts["skipped"] = True
        self._skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row > self.args.max_skipped_steps:
            raise TrainingError(
                f"the gradient was not finite {self._skipped_in_a_row} steps in a row (loss: "
                f"SFT {self._ledger.mean('sft_loss')}, GRPO {self._ledger.mean('grpo_loss')})",
                expected="at most max_skipped_steps of them",
                where=f"step {self.state.global_step + 1}",
                fix="lower the learning rate, or train in bf16 or fp32; the last checkpoint is from before",
            )

    def finish_step(self) -> None:
        """Tell the controller what the step showed, and record it. Called after the optimizer has stepped."""
        ledger = self._ledger
        ledger.reduce(self.accelerator)
        seen = self._new_values.means(self._metrics["train"])
        skipped = ledger.facts.get("skipped", False)
        self._skipped_in_a_row = self._skipped_in_a_row if skipped else 0
        norms = (None, None) if skipped else (ledger.facts.get("sft_norm"), ledger.facts.get("grpo_norm"))
        signals = Signals(*norms, kl=ledger.mean("kl"), reward=seen.get("reward"))
        assert self.controller_state is not None
        self.controller_state = self.controller.observe(self.controller_state, signals)
        record = step_record(self.state.global_step, self._mix, signals, ledger, seen)
        record["tokens"]["sft"] = self.sft.tokens if self.sft and self._mix.sft > 0.0 else 0
        self.last_record = record | {
            "prompt_cursor": self.prompts.cursor,
            "demonstration_cursor": self.sft.stream.cursor if self.sft else 0,
            "controller": self.controller_state,
            "rollouts": self._rollouts,
            "skipped": skipped,
        }
        for name in ("p", "sft_loss", "grpo_loss", "sft_norm", "grpo_norm"):
            if record[name] is not None:
                self._metrics["train"][f"hybrid/{name}"].append(record[name])
        if signals.kl is not None:
            self._metrics["train"]["hybrid/kl"].append(signals.kl)
        if self.accelerator.is_main_process:
            self._recorder.step(self.last_record)

    # ---- the GRPO side: TRL's, timed and watched ----

    def _prepare_inputs(self, generation_batch):
        if self.model.training and self._generation_due():
            generation_batch = self._draw_prompts()
        return super()._prepare_inputs(generation_batch)

    def _generation_due(self) -> bool:
        window = self.args.steps_per_generation * self.args.num_iterations
        return self._step % window == 0 or self._buffered_inputs is None

    def _draw_prompts(self) -> list[dict[str, Any]]:
        """This process's rows of the next generation batch, each prompt `num_generations` times in a row."""
        args = self.args
        groups = self.prompts.take(args.generation_batch_size // args.num_generations)
        rows = [row for row in groups for _ in range(args.num_generations)]
        share = len(rows) // self.accelerator.num_processes
        start = self.accelerator.process_index * share
        return [dict(self.train_dataset[row]) for row in rows[start : start + share]]

    def _engine_rollouts(self, engine: Engine | None) -> EngineRollouts:
        args = self.args
        return EngineRollouts(
            engine or open_engine(self.model, self.eos_token_ids, **engine_settings(args)),
            sampling_of(args),
            policy=self.model,
            place=self._place,
            run_seed=args.seed,
            probe_every=args.vllm_probe_every,
            trainer_logps=self._logps_of,
            trainer_dtype=coarser(training_dtype(args), self.model.dtype),
        )

    def _place(self, rows: int) -> Place:
        """Where this process's rows that are sampled now stand in the run."""
        first = rows * self.accelerator.process_index
        if self.model.training:
            return Place(self._rollouts // self.args.generation_batch_size, first)
        first += self._evaluated
        self._evaluated += rows * self.accelerator.num_processes
        return Place(EVALUATIONS + self.state.global_step, first)

    def _logps_of(self, prompt_ids: list[list[int]], completion_ids: list[list[int]]) -> list[list[float]]:
        """The policy's own log-probabilities of completions, per token, as training computes them."""
        ids, mask, width = side_by_side(prompt_ids, completion_ids, self._tokenizer.pad_token_id, self.args.device)
        with inference(self.model):
            logps, *_ = super()._get_per_token_logps_and_entropies(self.model, ids, mask, width)
        return [row[: len(sampled)].tolist() for row, sampled in zip(logps, completion_ids, strict=True)]

    def _generate(self, prompts):
        with self._ledger.clock("generate"):
            return super()._generate(prompts)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        with self._ledger.clock("score"):
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._reward_notes = reward_notes(self.reward_funcs, len(prompts))
        ends = {*self.eos_token_ids, self._tokenizer.pad_token_id}
        self._truncated = [not ids or ids[-1] not in ends for ids in completion_ids_list]
        return rewards

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        if self.model.training:
            self._rollouts += self.args.generation_batch_size
            self._record_completions()
            if self._snapshot is not None:
                output["snapshot_logps"] = self._score_with_snapshot(output)
        return output

    def _score_with_snapshot(self, rollouts: dict[str, Any]) -> torch.Tensor:
        """Log-probabilities (B, C) under the policy that training began with; NaN in rows outside the sample."""
        ids = torch.cat([rollouts["prompt_ids"], rollouts["completion_ids"]], dim=1)
        mask = torch.cat([rollouts["prompt_mask"], rollouts["completion_mask"]], dim=1)
        count = max(1, round(self.args.kl_sample * len(ids)))
        rows = torch.linspace(0, len(ids) - 1, count, device=ids.device).round().long()
        policy = self.accelerator.unwrap_model(self.model)
        assert self._snapshot is not None
        with self._ledger.clock("kl"), self._snapshot.swapped_into(policy):
            logps, *_ = super()._get_per_token_logps_and_entropies(
                self.model,
                ids[rows],
                mask[rows],
                rollouts["completion_ids"].size(1),
                batch_size=self.args.per_device_train_batch_size,
            )
        return logps.new_full(rollouts["completion_ids"].shape, math.nan).index_copy_(0, rows, logps)

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        results = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if torch.is_grad_enabled():
            self._policy_logps = results[0].detach()
        return results

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """TRL's GRPO loss, unchanged; its value and the KL to the snapshot are noted on the way."""
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not self.model.training:
            return loss
        self._ledger.add("grpo_loss", loss.item(), 1.0 / self.args.gradient_accumulation_steps)
        reference = inputs.get("snapshot_logps")
        if reference is not None and self._policy_logps is not None:
            measured = inputs["completion_mask"].bool() & ~reference.isnan()
            kl = kl_k3(reference[measured], self._policy_logps[measured])
            self._ledger.add("kl", kl.sum().item(), measured.sum().item())
        return loss

    def _record_completions(self) -> None:
        step, every = self.state.global_step + 1, self.args.completions_every
        # The first generation that is due: SFT steps and long windows leave the exact step without one
        if not every or (self._recorded_at and step // every == self._recorded_at // every):
            return
        self._recorded_at = step
        notes, truncated = gather_object(self._reward_notes), gather_object(self._truncated)
        if self.accelerator.is_main_process:
            self._recorder.completions(step, rollout_rows(step, self._logs, notes, truncated))

    # ---- checkpoints ----

    def save_more(self, checkpoint: Path) -> None:
        """The controller's state and the streams' cursors, and rollouts that are not used up."""
        if self.accelerator.is_main_process:
            save_state(checkpoint, self._resume_state())
        if self._buffered_inputs is not None and not self._generation_due():
            save_window(checkpoint, self.accelerator.process_index, self._buffered_inputs)

    def _resume_state(self) -> dict[str, Any]:
        return {
            "controller": self.controller_state,
            "prompt_cursor": self.prompts.cursor,
            "demonstration_cursor": self.sft.stream.cursor if self.sft else 0,
            "micro_step": self._step,
            "rollouts": self._rollouts,
            "recorded_at": self._recorded_at,
            "skipped": self._skipped,
            "snapshot": self._snapshot_id,
        }

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        state = load_state(Path(checkpoint))
        if self._snapshot_id != state["snapshot"] and self._snapshot_id and state["snapshot"]:
            raise ResumeError(
                "the model handed to the trainer is not the one that this run began with",
                expected="the warmed-up policy: KL is measured from it",
                where="model",
                fix="pass the same model as before; the checkpoint's weights are loaded on top of it",
            )
        self._continue_controller(state["controller"])
        self.prompts.cursor = state["prompt_cursor"]
        if self.sft:
            self.sft.stream.cursor = state["demonstration_cursor"]
        self._step, self._rollouts, self._skipped = state["micro_step"], state["rollouts"], state["skipped"]
        self._recorded_at = state["recorded_at"]
        if self._step % (self.args.steps_per_generation * self.args.num_iterations) and has_window(Path(checkpoint)):
            self._buffered_inputs = load_window(Path(checkpoint), self.accelerator.process_index, self.args.device)


class _StepEnd(TrainerCallback):
    """Closes the trainer's books on a step, before anything logs or saves it."""

    def __init__(self, trainer: HybridTrainer):
        self._trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self._trainer._last_loaded_step = -1  # what the engine has may be from before another train()
        recorder = self._trainer._recorder
        if state.is_world_process_zero and isinstance(recorder, FolderRecorder):
            recorder.forget_after(state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        self._trainer.finish_step()


def _tick(ticks: list[int]) -> dict[str, int]:
    return {"tick": ticks[0]}
