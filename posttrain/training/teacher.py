"""The policy as its own teacher: shown a prompt's demonstration, it judges the tokens of the rollouts.

What the teacher says of a rollout is made once a window, under the policy that sampled, and travels with the rows, so
that neither the cut of a step nor a checkpoint inside a window changes it. The KL over the whole vocabulary is made in
the training pass (`full_kl`). Shapes: B rows, P columns of a context, C columns of a completion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from trl.trainer.utils import pad

from posttrain.inputs.pairs import Pairs
from posttrain.inputs.shown import teacher_contexts
from posttrain.methods.base import Method
from posttrain.models.inference import inference
from posttrain.processes.zero import stage_of
from posttrain.recipe.zero import no_teacher_kl
from posttrain.training.full_kl import TeacherKL
from posttrain.training.ledger import Ledger
from posttrain.training.losses import per_rollout
from posttrain.training.window import window
from posttrain.training.window.window import Rollouts

NAME = "teacher_per_token_logps"
"""Of the column (B, C) of the teacher's log-probabilities; NaN where it has no demonstration to show, or no say."""

GUIDED = "guided"
"""Of the column (B,), 1 on rows of which the KL to the teacher is trained on."""

Score = Callable[[torch.Tensor, torch.Tensor, int, int], torch.Tensor]
"""Token ids (B, P + C), their mask, C and the rows of a pass to log-probabilities (B, C) under the policy as it is."""


class Teacher:
    """What the policy says of rollouts when it is shown their prompts' demonstrations.

    Args:
        method: With `shows_teacher`.
        pairs: Prompts and demonstrations; demonstrations that the model has no positions for are left out of them.
        trainer: The trainer, constructed as far as its model.
        template_kwargs: Of the chat template.

    Raises:
        ConfigError: The model or the launch gives no KL over the whole vocabulary.
        DataError: A context is too long, and `too_long` is `refuse`; or a demonstration has no text to show.
    """

    def __init__(self, method: Method, pairs: Pairs, trainer: Any, template_kwargs: Mapping[str, Any]):
        self._method, self._args, self._pad = method, trainer.args, trainer._tokenizer.pad_token_id
        self._contexts = teacher_contexts(
            pairs,
            method.context,
            trainer._tokenizer,
            template_kwargs=template_kwargs,
            longest=trainer.max_completion_length,
            positions=getattr(trainer.model.config.get_text_config(), "max_position_embeddings", None),
            too_long=method.too_long,
        )
        stage = stage_of(trainer.accelerator)
        self._even = trainer.is_fsdp_enabled or stage == 3  # processes must make equally many passes
        self._kl: TeacherKL | None = None
        self._seen: torch.Tensor | None = None
        if method.teacher_kl:
            if stage is not None:
                raise no_teacher_kl("method")
            float32 = bool(self._args.cast_lm_head_to_fp32)
            self._kl = TeacherKL(trainer.model, temperature=trainer.temperature, float32=float32)

    # ---- once a window ----

    def columns(self, rollouts: Rollouts, model: nn.Module, score: Score, *, step: float) -> Rollouts:
        """What a window's rows have of the teacher.

        Args:
            rollouts: This process's share, with `demonstration`.
            model: That scores.
            score: With its present values.
            step: Optimizer steps that lie behind, as schedules count them.
        """
        shown = rollouts["demonstration"] >= 0
        made: Rollouts = {}
        if self._method.teacher_kl:
            made[GUIDED] = shown.long()
        if self._method.teacher_share(step) > 0:
            weighed = shown & window.has_advantage(rollouts)
            rows = range(len(shown)) if self._even else weighed.nonzero()[:, 0].tolist()
            column = torch.full(rollouts["completion_ids"].shape, math.nan, device=shown.device)
            if rows:
                some = window.pick(rollouts, rows)
                with inference(model):
                    column[list(rows)] = score(*self._rows(some), self._args.per_device_train_batch_size).float()
            mask = rollouts["completion_mask"].bool() & weighed[:, None]
            made[NAME] = column.masked_fill(~mask, math.nan)
        return made

    def _rows(self, rollouts: Rollouts) -> tuple[torch.Tensor, torch.Tensor, int]:
        """The rollouts behind the teacher's contexts, or behind their own prompts where it has nothing to show."""
        device, before = rollouts["completion_ids"].device, []
        for place, number in enumerate(rollouts["demonstration"].tolist()):
            prompt = rollouts["prompt_ids"][place][rollouts["prompt_mask"][place].bool()]
            before.append(torch.tensor(self._contexts[number], device=device) if number >= 0 else prompt)
        prompts = {
            "prompt_ids": pad(before, self._pad, padding_side="left"),
            "prompt_mask": pad([torch.ones_like(ids) for ids in before], 0, padding_side="left"),
        }
        return window.sequences({**rollouts, **prompts})

    # ---- in a training pass ----

    @contextmanager
    def beside(self, rollouts: Rollouts, model: nn.Module, score: Score) -> Iterator[None]:
        """The training pass of a micro-batch; its KL is kept for `loss`."""
        self._seen = None
        if self._kl is None:
            yield
            return
        with self._kl.keeping() as kept, inference(model):
            score(*self._rows(rollouts), len(rollouts["completion_ids"]))
        with self._kl.to(torch.cat(kept)) as seen:
            yield
        (self._seen,) = seen

    def weigh(self, rollouts: Rollouts, old: torch.Tensor, step: float, ledger: Ledger) -> None:
        """Make the rows' advantages a token's, and note by how much.

        Args:
            rollouts: A micro-batch; its `advantages` become (B, C).
            old: (B, C) log-probabilities under the policy that sampled.
            step: Optimizer steps that lie behind, as schedules count them.
            ledger: Of the step.
        """
        share, teacher = self._method.teacher_share(step), rollouts.get(NAME)
        ledger.add("teacher_share", share, 1.0)
        if not share or teacher is None:
            return
        advantages = rollouts["advantages"].reshape(len(teacher), -1)[:, :1]
        known = ~teacher.isnan()
        deltas = torch.where(known, teacher - old, 0.0)
        weights = torch.where(known, self._method.teacher_weights(advantages, deltas, share), 1.0)
        rollouts["advantages"] = advantages * weights
        ratio = (advantages.sign() * deltas).exp()
        cut = known & (ratio != self._method.clipped(advantages, deltas))
        ledger.add("teacher_weight", (weights * known).sum(), known.sum())
        ledger.add("teacher_clipped", cut.sum(), known.sum())

    def loss(
        self, rollouts: Rollouts, ledger: Ledger, *, loss_type: str, longest: int, ranks: int
    ) -> torch.Tensor | None:
        """The KL to the teacher of the pass that was just made, divided as the rollouts' tokens are."""
        if self._seen is None:
            return None
        args, seen = self._args, self._seen
        mask = rollouts["completion_mask"].bool()
        kl = seen.new_zeros(mask.shape).index_put((mask,), seen)
        mask = mask & (rollouts[GUIDED] != 0)[:, None]
        ledger.add("teacher_kl", (kl * mask).sum(), mask.sum())
        loss = per_rollout(
            kl,
            mask,
            loss_type=loss_type,
            rows=args.per_device_train_batch_size,
            longest=longest,
            tokens=rollouts["num_items_in_batch"] / ranks / args.steps_per_generation,
        )
        return self._method.teacher_kl * loss / args.gradient_accumulation_steps
