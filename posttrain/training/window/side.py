"""The training part of a GRPO step: TRL's loss on the rows of a window that add to it, in as few passes as they need.

TRL's `_compute_loss` runs unchanged, on micro-batches of other rows than TRL's own and on log-probabilities of a packed
forward pass. What makes the gradient the same:

- A row whose advantage is 0 is left out only where all that it adds is 0 (`_keeps_micro_batches`, `beta`).
- Losses that average over a micro-batch's rows are scaled from the rows that it has to those that TRL's has.
- What TRL computes for all rows before it knows their rewards, log-probabilities under the policy that sampled, is
  computed behind them for the rows that are left, or not at all where the training pass has the same policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing

from posttrain.models.positions import is_scaled
from posttrain.packing.scores import FAMILIES, installed, row_scores
from posttrain.processes.ranks import Ranks
from posttrain.processes.zero import stage_of
from posttrain.training.config import HybridConfig
from posttrain.training.ledger import Ledger
from posttrain.training.losses import importance_ratio
from posttrain.training.row_statistics import RowStatistics
from posttrain.training.sampling_drift import SamplingDrift
from posttrain.training.selection import Band, Selection
from posttrain.training.spending import note_passes
from posttrain.training.window import kl, window
from posttrain.training.window.bins import More, Planned, WindowBins
from posttrain.training.window.cut import cut_of
from posttrain.training.window.plan import passes
from posttrain.training.window.selection import band_loss, select
from posttrain.training.window.window import Rollouts

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "_generate_and_score_completions": ("self", "inputs"),
    "_get_per_token_logps_and_entropies": (
        "self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy",
        "compute_aux_loss",
    ),
}  # fmt: skip
"""Private methods of GRPOTrainer that are overridden here, and their leading parameters."""

PRIVATE_ATTRIBUTES = ("_step", "_buffered_inputs", "_metrics", "_is_vlm", "_entropy_bonus_enabled")
"""Private attributes of a constructed GRPOTrainer that are read or set here."""

MEANS_OVER_ROWS = ("grpo", "sapo", "dr_grpo", "luspo")
"""Losses that are divided by the rows of their micro-batch."""

CLIPPING = ("grpo", "dr_grpo", "dapo", "luspo")
"""Planned losses for which TRL measures how much is clipped."""

OLD, RATIO, SAMPLING = "old_per_token_logps", "importance_sampling_ratio", "sampling_per_token_logps"
"""Columns of TRL's rollouts: log-probabilities under the policy that sampled, the weights that correct for an engine's
own ones, and these."""


class WindowSide(GRPOTrainer):
    """A `GRPOTrainer` that plans its windows. What is declared here the subclass sets."""

    args: HybridConfig
    ranks: Ranks
    vllm_importance_sampling_correction: bool
    _ledger: Ledger
    _statistics: RowStatistics | None

    def begin_windows(self) -> None:
        """Decide how windows are trained on; after TRL's constructor and `packing.scores.install`."""
        args = self.args
        self._drift = SamplingDrift()
        self._share: Rollouts | None = None
        self._planned: Planned | None = None
        self._inputs: Rollouts = {}
        self._scored: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self._live: torch.Tensor | None = None
        self._defers = False
        self._selection = Selection.of(args.tokens)
        self._selected: tuple[torch.Tensor, torch.Tensor] | None = None  # and their entropies, with a gradient
        self._unclipped = 0.0
        self._packs = args.packed and not self._is_vlm and not self.aux_loss_enabled and installed(self.model)
        config = self.model.config
        # What padding does to a row was looked at in these; rotary positions that are scaled see a batch's longest row
        by_column = config.model_type not in FAMILIES or is_scaled(config)
        # Processes pad prompts to widths of their own: a row that moves would get other columns
        stays = self._keeps_micro_batches() or (by_column and self.ranks.count > 1)
        # Statistics are of all rows, as are what keeps entropies together and the magnitudes that migu goes by
        of_all = self._statistics is not None or args.migu is not None
        of_all = of_all or (self._selection is not None and self._selection.band is not None)
        self._drops = args.drop_zero_advantage and self.beta == 0.0 and not stays and not of_all
        self._bins: WindowBins | None = None
        if (self._packs or self._drops) and not stays:
            self._bins = WindowBins(
                cut_of(args),
                self.ranks,
                group=self.num_generations,
                drop=self._drops,
                packed=self._packs,
                fill=stage_of(self.accelerator) is not None,  # DeepSpeed counts backward passes
                by_column=by_column,
            )
        # Whether all passes over a window are under the policy that sampled it
        self._one_policy = args.gradient_accumulation_steps % (args.steps_per_generation * self.num_iterations) == 0
        self._takes_over = self._bins is not None and (self._one_policy or self.beta == 0.0)

    def _keeps_micro_batches(self) -> bool:
        """Whether the loss depends on which rows share a micro-batch, or on all of them whatever their advantage."""
        return (
            self._is_vlm
            or self.loss_type == "bnpo"
            or self._entropy_bonus_enabled
            or self.top_entropy_quantile < 1.0
            or self.aux_loss_enabled
        )

    def _generate_and_score_completions(self, inputs):
        if not (self.model.training and self._takes_over):
            return super()._generate_and_score_completions(inputs)
        with self._scored_later():
            return super()._generate_and_score_completions(inputs)

    @contextmanager
    def _scored_later(self) -> Iterator[None]:
        """Keep TRL from log-probabilities under the sampling policy, and from what it makes of them."""
        corrects = self.vllm_importance_sampling_correction
        # With a reference model, its log-probabilities are still asked for
        self.vllm_importance_sampling_correction, self._defers = False, self.beta == 0.0
        try:
            yield
        finally:
            self.vllm_importance_sampling_correction, self._defers = corrects, False

    @property
    def _corrects(self) -> bool:
        return bool(self.use_vllm and self.vllm_importance_sampling_correction)

    def _open_window(self, share: Rollouts, *, sampled: bool = False) -> None:
        """Make the micro-batches of a window; all processes at once.

        Args:
            share: This process's rows in the order of their numbers. It is kept for a checkpoint, whole.
            sampled: Just now; otherwise it comes from a checkpoint.
        """
        if self._bins is None:
            cut, whole = cut_of(self.args), dict(share)
            _fill_unknown(whole)
            if self._corrects and RATIO not in whole and OLD in whole:  # from a checkpoint of planned micro-batches
                whole[RATIO] = self._ratio(whole, whole[OLD], seen=False)
            self._share = share
            self._buffered_inputs = window.cut(whole, micro_batches=cut.micro_batches, steps=cut.steps)
            return
        planned = self._planned = self._bins.plan(share, self._more_rows(share))
        batches = [batch for batch in planned.batches if batch]
        if sampled and self._takes_over and not self._one_policy:
            for batch in batches:
                batch[OLD] = self._logps_now(batch)
            share = {**share, OLD: self._bins.brought_home(planned, OLD, share)}
        for batch in batches:
            _fill_unknown(batch)
        if self._takes_over and not self._one_policy and self._corrects:
            for batch in batches:
                batch[RATIO] = self._ratio(batch, batch[OLD], seen=sampled)
        self._share, self._buffered_inputs = share, planned.batches

    def _whole_share(self) -> Rollouts:
        """This process's rows of the open window, in the order of their numbers."""
        if self._share is not None:
            return self._share
        tensors = [{k: v for k, v in of.items() if isinstance(v, torch.Tensor)} for of in self._buffered_inputs]
        return window.join(tensors, steps=cut_of(self.args).steps)

    def _logps_now(self, batch: Rollouts) -> torch.Tensor:
        """Log-probabilities (B, C) under the policy as it is."""
        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            logps, *_ = self._get_per_token_logps_and_entropies(self.model, *window.sequences(batch))
        return logps

    def _ratio(self, batch: Rollouts, logps: torch.Tensor, *, seen: bool) -> torch.Tensor:
        """The weights that correct for an engine's own log-probabilities; `seen` notes them for the log."""
        mask = window.loss_mask(batch)
        ratio = importance_ratio(
            logps,
            batch[SAMPLING],
            mask,
            mode=self.vllm_importance_sampling_mode,
            clip_min=self.vllm_importance_sampling_clip_min,
            clip_max=self.vllm_importance_sampling_clip_max,
        )
        if seen:
            self._drift.add(logps, batch[SAMPLING], ratio, mask)
        return ratio

    def _get_per_token_logps_and_entropies(
        self,
        model,
        input_ids,
        attention_mask,
        logits_to_keep,
        batch_size=None,
        compute_entropy=False,
        compute_aux_loss=False,
        **images,
    ):
        if self._defers and not torch.is_grad_enabled() and self.model.training:
            return None, None, None
        trains = torch.is_grad_enabled() and self.model.training
        with self._around_pass(self._inputs) if trains else nullcontext():
            if self._packs and installed(model) and not compute_aux_loss:
                results = self._packed_scores(
                    model, input_ids, attention_mask, logits_to_keep, batch_size, entropy=compute_entropy
                )
            else:
                results = super()._get_per_token_logps_and_entropies(
                    model,
                    input_ids,
                    attention_mask,
                    logits_to_keep,
                    batch_size,
                    compute_entropy,
                    compute_aux_loss,
                    **images,
                )
        if not torch.is_grad_enabled():
            split = input_ids.size(1) - logits_to_keep
            lengths = (attention_mask[:, part].sum(dim=1) for part in (slice(split), slice(split, None)))
            note_passes(self._ledger, "scored", *lengths)
        if trains:
            self._before_loss(self._inputs, *results[:2])
            if self._selection is not None:
                needed = window.needed(self._inputs) if self._drops else None
                chosen = select(self._selection, self._inputs, results[0], results[1], needed, self._ledger)
                self._selected = None if self._selection.band is None else (chosen, results[1])
            self._live = results[0]
            logps = results[0].detach()
            self._scored = logps, None if results[1] is None else results[1].detach()
            if self._takes_over and self._one_policy and self._corrects:
                self._inputs[RATIO] = self._ratio(self._inputs, logps, seen=True)
        return results

    def _packed_scores(self, model, input_ids, attention_mask, width, batch_size, *, entropy):
        split = input_ids.size(1) - width
        columns = (input_ids[:, :split], attention_mask[:, :split], input_ids[:, split:], attention_mask[:, split:])
        sizes = self._passes(*columns[:2], columns[3], batch_size)
        scores = [
            row_scores(model, *some, autocast=self.accelerator.autocast, entropy=entropy)
            for some in zip(*(column.split(sizes) for column in columns), strict=True)
        ]
        logps, entropies = zip(*scores, strict=True)
        return torch.cat(logps), torch.cat(entropies) if entropy else None, None

    def _passes(self, prompt_ids, prompt_mask, completion_mask, batch_size) -> list[int]:
        """Rows of each forward pass, which has no more positions than one of `batch_size` padded rows."""
        rows = len(prompt_ids)
        if not batch_size or batch_size >= rows:
            return [rows]
        if self.is_fsdp_enabled or stage_of(self.accelerator) == 3:  # processes must make equally many
            return [min(batch_size, rows - start) for start in range(0, rows, batch_size)]
        prompts, completions = (mask.sum(dim=1).tolist() for mask in (prompt_mask, completion_mask))
        same = (prompt_ids[1:] == prompt_ids[:-1]).all(dim=1) & (prompt_mask[1:] == prompt_mask[:-1]).all(dim=1)
        budget = batch_size * (prompt_mask.size(1) + completion_mask.size(1))
        return passes(prompts, completions, [False, *same.tolist()], budget)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """TRL's GRPO loss; a zero without a pass where a micro-batch is empty. What it shows goes into the ledger."""
        if not self.model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        args, rows = self.args, window.row_count(inputs)
        self._ledger.add("trained_rows", rows, args.per_device_train_batch_size)
        part = 1.0 / args.gradient_accumulation_steps
        if not rows:
            self._ledger.add("grpo_loss", 0.0, part)
            self._note_empty(part)
            if self._selection is not None and self._selection.band is not None:
                self._ledger.add("band_loss", 0.0, part)
            self._note(inputs)
            return torch.zeros((), device=args.device, requires_grad=True)
        # A selection is of this pass: the window's advantages stay as they are for the next one
        self._inputs = inputs if self._selection is None else dict(inputs)
        self._live = None
        self._note_passes(inputs)
        loss = super().compute_loss(model, self._inputs, return_outputs, num_items_in_batch)
        if self._planned is not None and self.loss_type in MEANS_OVER_ROWS:
            loss = loss * (rows / args.per_device_train_batch_size)
        self._ledger.add("grpo_loss", loss, part)
        self._note(inputs)
        live, self._live = self._live, None
        if self._selection is not None and self._selection.band is not None:
            loss = loss + self._band_loss(self._selection.band, part)
        beside = None if live is None or self._scored is None else self._loss_beside(inputs, live, self._scored[1])
        return loss if beside is None else loss + beside

    def _band_loss(self, band: Band, part: float) -> torch.Tensor:
        args, chosen = self.args, self._selected
        assert chosen is not None
        loss = band_loss(
            band,
            chosen[1],
            chosen[0],
            self._inputs,
            loss_type=self.loss_type,
            rows=args.per_device_train_batch_size,
            longest=self.max_completion_length,
            tokens=self._inputs["num_items_in_batch"] / self.ranks.count / args.steps_per_generation,
            accumulation=args.gradient_accumulation_steps,
        )
        self._selected = None
        self._ledger.add("band_loss", loss, part)
        return loss

    def _note_passes(self, inputs: Rollouts) -> None:
        """Put down what is about to pass with gradients."""
        planned = self._planned
        if planned is None:
            positions = inputs["prompt_mask"].numel() + inputs["completion_mask"].numel()
        else:
            positions = planned.positions[self._step % self.args.steps_per_generation]
        lengths = (inputs[name].sum(dim=1) for name in ("prompt_mask", "completion_mask"))
        group = self.num_generations if self._packs else 1
        note_passes(self._ledger, "trained", *lengths, group=group, positions=float(positions))

    def _more_rows(self, share: Rollouts) -> More | None:
        """Rows of the window that were not sampled."""
        return None

    def _before_loss(self, inputs: Rollouts, logps: torch.Tensor, entropies: torch.Tensor | None) -> None:
        """Look at a micro-batch's scores before TRL makes a loss of them."""

    def _around_pass(self, inputs: Rollouts) -> AbstractContextManager[None]:
        """What a micro-batch's training pass stands in."""
        return nullcontext()

    def _loss_beside(
        self, inputs: Rollouts, logps: torch.Tensor, entropies: torch.Tensor | None
    ) -> torch.Tensor | None:
        """What is added to TRL's loss of a micro-batch; `logps` (B, C) have a gradient, `entropies` none."""
        return None

    def _note_empty(self, part: float) -> None:
        """Put down a micro-batch without rows, which is `part` of the step."""

    def _note(self, inputs: Rollouts) -> None:
        """Put down what a micro-batch showed, as sums over the rows that are needed."""
        ledger, planned = self._ledger, self._planned
        micro_batch = self._step % self.args.steps_per_generation
        by_row = self.importance_sampling_level == "sequence"
        if planned:
            ledger.add("positions", planned.positions[micro_batch], planned.padded)
            # Rows that are left out would not have been clipped
            self._unclipped += self.args.per_device_train_batch_size if by_row else planned.tokens[micro_batch]
        if self._scored is None or not inputs:
            return
        logps, entropies = self._scored
        mask = window.loss_mask(inputs)
        shares = self._metrics["train"].get("clip_ratio/region_mean")  # a subclass's loss may show none
        if planned and self.loss_type in CLIPPING and shares:
            # The last micro-batch of a step is never empty, so that those before it are counted with it at the latest
            ledger.add("clip_ratio", shares[-1] * (len(mask) if by_row else mask.sum()), self._unclipped)
            self._unclipped = 0.0
        if self._statistics is not None:
            self._statistics.rollouts(logps, mask, inputs["advantages"])
        if sums := kl.kl_sum(inputs, logps):
            ledger.add("kl", *sums)
        if entropies is None:
            return
        if self._drops:
            mask = mask * window.needed(inputs)[:, None]
        ledger.add("entropy", (entropies * mask).sum(), mask.sum())


def _fill_unknown(rollouts: Rollouts) -> None:
    """Log-probabilities that were not needed when a checkpoint was written: any will do where nothing adds."""
    if rollouts.get(OLD) is not None:
        adds = window.loss_mask(rollouts).bool() & window.has_advantage(rollouts)[:, None]
        rollouts[OLD] = rollouts[OLD].masked_fill(rollouts[OLD].isnan() & ~adds, 0.0)
