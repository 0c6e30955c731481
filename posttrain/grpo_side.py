"""The GRPO half of a hybrid step: TRL's own, with prompts from a stream, seeded rollouts, and its numbers noted.

`GRPOSide` is `GRPOTrainer` apart from where its prompts come from, in which order a window's rows are trained on, what
samples, and what is written down on the way. `PRIVATE_NAMES` lists the private names of TRL that it touches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from trl import GRPOTrainer
from trl.models.utils import unwrap_model_for_generation

from posttrain import kl, window
from posttrain.hybrid_config import HybridConfig
from posttrain.ledger import Ledger, Recorder, reward_notes, rollout_rows
from posttrain.ranks import Ranks
from posttrain.resume_state import cut_of
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
from posttrain.rollouts.seeded import SeededRollouts
from posttrain.rollouts.transformers import inference
from posttrain.streams import Stream
from posttrain.zero import stage_of

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "_prepare_inputs": ("self", "generation_batch"),
    "_generate": ("self", "prompts"),
    "_tokenize_prompts": ("self", "prompts"),
    "_generate_single_turn": ("self", "prompt_ids", "images", "multimodal_fields", "num_generations"),
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("self", "inputs"),
    "_get_per_token_logps_and_entropies": (
        "self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"
    ),
}  # fmt: skip
"""Private methods of GRPOTrainer that are overridden or called here, and their leading parameters."""

PRIVATE_ATTRIBUTES = ("_step", "_buffered_inputs", "_logs", "_tokenizer", "_is_vlm")
"""Private attributes of a constructed GRPOTrainer that are read or set here."""


class GRPOSide(GRPOTrainer):
    """A `GRPOTrainer` for one half of a step. What is declared here the subclass sets.

    Attributes:
        ranks: The processes of the run.
        prompts: The stream of row numbers of `train_dataset`.
    """

    args: HybridConfig
    ranks: Ranks
    prompts: Stream
    _ledger: Ledger
    _recorder: Recorder
    _start: kl.DistanceFromStart | None
    _seeded: SeededRollouts | None

    def begin_grpo(self) -> None:
        """Set what this half keeps between steps; after TRL's own constructor."""
        self._rollouts = self._recorded_at = 0
        self._evaluated = (0, 0)  # at which step, and how many rows since
        self._policy_logps: torch.Tensor | None = None
        self._reward_notes: list[str] = []
        self._truncated: list[bool] = []
        self._last_loaded_step = -1
        self._drawn_ahead: list[dict[str, Any]] | None = None

    def _prepare_inputs(self, generation_batch):
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        due = self._generation_due()
        if due:
            drawn, self._drawn_ahead = self._drawn_ahead, None
            generation_batch = self._draw_prompts() if drawn is None else drawn
        if self._is_vlm:  # images don't come one to a row; TRL shuffles them along
            return super()._prepare_inputs(generation_batch)
        if due:
            cut = cut_of(self.args)
            rollouts = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = window.cut(rollouts, micro_batches=cut.micro_batches, steps=cut.steps)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _begin_rollouts(self, model: nn.Module) -> None:
        """Have a server sample the step's rollouts while the SFT half is at work here; nothing without one.

        The weights are those of the step: the SFT half changes none before the step's end.
        """
        if not (self.use_vllm and self.args.vllm_overlap and self._generation_due()):
            return
        if not self.vllm_generation.engine.samples_aside:
            return
        model.train()
        with self._ledger.clock("grpo"), self._ledger.clock("generate"):
            self._drawn_ahead = self._draw_prompts()
            prompt_ids, *_ = self._tokenize_prompts([row["prompt"] for row in self._drawn_ahead])
            if self.state.global_step != self._last_loaded_step:
                self.vllm_generation.sync_weights()
                self._last_loaded_step = self.state.global_step
            self.vllm_generation.begin(prompt_ids, self.num_generations)

    def _generation_due(self) -> bool:
        window = self.args.steps_per_generation * self.args.num_iterations
        return self._step % window == 0 or self._buffered_inputs is None

    def _draw_prompts(self) -> list[dict[str, Any]]:
        """This process's rows of the next generation batch, each prompt `num_generations` times in a row."""
        args = self.args
        groups = self.prompts.take(args.generation_batch_size // args.num_generations)
        rows = [row for row in groups for _ in range(args.num_generations)]
        share = len(rows) // self.ranks.count
        start = self.ranks.number * share
        return [dict(self.train_dataset[row]) for row in rows[start : start + share]]

    def _engine_rollouts(self, engine: Engine | None) -> EngineRollouts:
        args = self.args
        return EngineRollouts(
            engine or open_engine(self.model, self.eos_token_ids, ranks=self.ranks, **engine_settings(args)),
            sampling_of(args),
            policy=self.model,
            place=self._place,
            run_seed=args.seed,
            probe_every=args.vllm_probe_every,
            trainer_logps=self._logps_of,
            trainer_dtype=coarser(training_dtype(args), self.model.dtype),
            ranks=self.ranks,
        )

    def _place(self, rows: int) -> Place:
        """Where this process's rows that are sampled now stand in the run."""
        first = rows * self.ranks.number
        if self.model.training:
            return Place(self._rollouts // self.args.generation_batch_size, first)
        step, before = self._evaluated
        before = before if step == self.state.global_step else 0
        self._evaluated = (self.state.global_step, before + rows * self.ranks.count)
        return Place(EVALUATIONS + self.state.global_step, before + first)

    def _logps_of(self, prompt_ids: list[list[int]], completion_ids: list[list[int]]) -> list[list[float]]:
        """The policy's own log-probabilities of completions, per token, as training computes them."""
        ids, mask, width = side_by_side(prompt_ids, completion_ids, self._tokenizer.pad_token_id, self.args.device)
        with inference(self.model):
            logps, *_ = super()._get_per_token_logps_and_entropies(self.model, ids, mask, width)
        return [row[: len(sampled)].tolist() for row, sampled in zip(logps, completion_ids, strict=True)]

    def _generate(self, prompts):
        with self._ledger.clock("generate"):
            generated = super()._generate(prompts)
        if self.use_vllm and self.vllm_generation.overlapped:
            self._ledger.seconds["overlapped"] += self.vllm_generation.overlapped
        return generated

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        if self._seeded is None:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        with unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            gather_deepspeed3_params=self.args.ds3_gather_for_generation,
            gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
        ) as policy:
            place, synced = self._place(len(prompt_ids)), True if self.is_fsdp_enabled else None
            sample = partial(self._seeded.sample, policy, prompt_ids, place, group=num_generations, synced=synced)
            if synced or stage_of(self.accelerator) == 3:
                return sample(), None  # the others wait for this process's shards, not for its error
            return self.ranks.together(sample), None

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
            if self._start is not None:
                with self._ledger.clock("kl"):
                    policy = self.accelerator.unwrap_model(self.model)
                    output[kl.NAME] = self._start.score(policy, output, self._score)
        return output

    def _score(self, ids: torch.Tensor, mask: torch.Tensor, width: int) -> torch.Tensor:
        logps, *_ = super()._get_per_token_logps_and_entropies(
            self.model, ids, mask, width, batch_size=self.args.per_device_train_batch_size
        )
        return logps

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
        if self._policy_logps is not None and (sums := kl.kl_sum(inputs, self._policy_logps)):
            self._ledger.add("kl", *sums)
        return loss

    def _record_completions(self) -> None:
        step, every = self.state.global_step + 1, self.args.completions_every
        # The first generation that is due: SFT steps and long windows leave the exact step without one
        if not every or (self._recorded_at and step // every == self._recorded_at // every):
            return
        self._recorded_at = step
        notes, truncated = gather_object(self._reward_notes), gather_object(self._truncated)
        self.record(lambda recorder: recorder.completions(step, rollout_rows(step, self._logs, notes, truncated)))

    def record(self, write: Callable[[Recorder], Any]) -> None:
        """Have the main process's recorder write; a disk that is full ends all processes by its error."""
        self.ranks.on_main(lambda: write(self._recorder))
