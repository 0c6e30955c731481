"""Rows of demonstrations beside the rollouts of a window, and the loss of what was given (see `method_side`).

A group's demonstration becomes a row beside its rollouts: packed, it costs its completion only. TRL's loss sees all
rows, with `tool_mask` 0 on demonstrated tokens, but where a method has GRPO train them, and the method's loss is added.
What a policy that is shown demonstrations has to say of rollouts is in `teacher`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from trl.trainer.utils import pad

from posttrain.inputs.pairs import Pairs
from posttrain.methods.base import Method
from posttrain.training.by_entropy import weigh_rollouts, weighed_nll
from posttrain.training.losses import per_rollout
from posttrain.training.refilled_side import RefilledSide
from posttrain.training.teacher import Teacher
from posttrain.training.token_weights import weighted
from posttrain.training.window import kl, window
from posttrain.training.window.bins import More
from posttrain.training.window.cut import cut_of
from posttrain.training.window.side import OLD, RATIO, SAMPLING
from posttrain.training.window.window import Rollouts

PRIVATE_ATTRIBUTES = ("_step", "_tokenizer")
"""Private attributes of a constructed GRPOTrainer that are read here."""

REFERENCE = "ref_per_token_logps"


class DemonstratedSide(RefilledSide):
    """A `GRPOTrainer` whose windows may have rows of demonstrations. What is declared here the subclass sets."""

    method: Method | None
    pairs: Pairs
    _teacher: Teacher | None
    _demonstrated_tokens: list[int]

    # ---- rows of demonstrations ----

    def _more_rows(self, share: Rollouts) -> More | None:
        if self.method is None:
            return None
        rows, count, steps = self.num_generations, window.row_count(share), cut_of(self.args).steps
        first, total = count * self.ranks.number, count * self.ranks.count
        wanted = ((share["whole"] != 0) | (share["nll"] != 0)).tolist()
        mine = [place for place in range(count) if (first + place) % rows == 0 and wanted[place]]
        groups = [(first + place) // rows for place in mine]
        lengths = [len(self.pairs.ids[int(share["demonstration"][place])]) for place in mine]
        begun = [0] * steps
        if self.method.prefix == "own" and self.method.prefix_credit:
            trained = share["demonstrated"].sum(dim=1) * (share["credit"] != 0)
            for place, tokens in enumerate(trained.tolist()):
                begun[(first + place) % steps] += tokens
        held = self.ranks.gathered((list(zip(groups, lengths, strict=True)), begun))
        self._demonstrated_tokens = [sum(of[step] for _, of in held) for step in range(steps)]
        for group, tokens in (pair for of, _ in held for pair in of):
            self._demonstrated_tokens[group % steps] += tokens
        # Rows that come out even on the processes: where demonstrations don't, some are there once more, for nothing
        spare: list[int] = []
        every = [group for of, _ in held for group, _ in of]
        leaders = {min(some) for step in range(steps) if (some := [of for of in every if of % steps == step])}
        for place, group in zip(mine, groups, strict=True):
            spare += [place] * ((self.ranks.count - 1) if group in leaders else 0)
        numbers = [total + group for group in groups]
        groups_of_spare = [(first + place) // rows for place in spare]
        most = total + total // rows
        numbers += [most + group * self.ranks.count + copy for copy, group in enumerate(groups_of_spare)]
        needed = [True] * len(mine) + [False] * len(spare)
        return More(self._rows_of(share, mine + spare, needed), numbers, groups + groups_of_spare, needed)

    def _rows_of(self, share: Rollouts, places: list[int], needed: list[bool]) -> Rollouts:
        """Rows like the share's at these places, with their groups' demonstrations as completions."""
        made = window.pick(share, places)
        if not places:
            return made
        device = share["completion_ids"].device
        ids = [torch.tensor(self.pairs.ids[int(share["demonstration"][place])]) for place in places]
        made["completion_ids"] = pad(ids, self._tokenizer.pad_token_id).to(device)
        made["completion_mask"] = pad([torch.ones_like(of) for of in ids], 0).to(device)
        made["demonstrated"] = made["completion_mask"].clone()
        made["tool_mask"] = torch.zeros_like(made["completion_mask"])
        made["advantages"] = torch.zeros_like(made["advantages"])
        counts = torch.tensor(needed, device=device)
        made["credit"], made["nll"] = made["whole"] * counts, made["nll"] * counts
        shape = made["completion_ids"].shape
        for name, fill in ((OLD, 0.0), (REFERENCE, 0.0), (SAMPLING, 0.0), (RATIO, 1.0), (kl.NAME, float("nan"))):
            if isinstance(made.get(name), torch.Tensor) and made[name].dim() == 2 and made[name].size(1) > 1:
                made[name] = torch.full(shape, fill, dtype=made[name].dtype, device=device)
        return made

    # ---- the loss ----

    def _before_loss(self, inputs: Rollouts, logps: torch.Tensor, entropies: torch.Tensor | None) -> None:
        if self.method is None:
            return
        given, now = inputs["demonstrated"].bool(), logps.detach()
        masked = given if self.method.prefix == "own" else given & (inputs["tool_mask"] == 0)
        for name in (OLD, REFERENCE):  # what TRL makes of these is masked out, and must be finite for that
            if inputs.get(name) is not None:
                inputs[name] = torch.where(masked, now, inputs[name])
        if self.method.prefix == "grpo" and entropies is not None:
            advantages = inputs["advantages"].reshape(len(given), -1)[:, :1]
            inputs["advantages"] = self.method.advantages_by_token(advantages, entropies.detach(), given)
        if self.method.needs_entropies and entropies is not None:
            weigh_rollouts(self.method, inputs, entropies.detach(), self._ledger)
        if self._teacher is not None:
            old = now if inputs.get(OLD) is None else inputs[OLD]
            self._teacher.weigh(inputs, old, self.clock, self._ledger)

    def _teacher_logps(self, ids: torch.Tensor, mask: torch.Tensor, width: int, rows: int) -> torch.Tensor:
        logps, *_ = self._get_per_token_logps_and_entropies(self.model, ids, mask, width, batch_size=rows)
        return logps

    def _around_pass(self, inputs: Rollouts) -> AbstractContextManager[None]:
        if self._teacher is None:
            return super()._around_pass(inputs)
        return self._teacher.beside(inputs, self.model, self._teacher_logps)

    def _loss_beside(
        self, inputs: Rollouts, logps: torch.Tensor, entropies: torch.Tensor | None
    ) -> torch.Tensor | None:
        if self.method is None:
            return None
        if self._teacher is not None:
            return self._teacher.loss(
                inputs,
                self._ledger,
                loss_type=self.loss_type,
                longest=self.max_completion_length,
                ranks=self.ranks.count,
            )
        mask = inputs["demonstrated"] * inputs["completion_mask"] * (inputs["credit"] != 0)[:, None]
        # A method with a buffer trains on demonstrations in SFT steps alone, which weigh them
        args, here = self.args, self.method.likelihood and not self.method.buffer
        weight = args.sft_weight if here else "nll"
        weighed = logps if weight == "nll" else weighted(weight, logps)
        losses = self.method.token_loss(weighed, inputs["credit"][:, None])
        if self.method.divisor == "rollouts":
            loss = per_rollout(
                losses,
                mask,
                loss_type=self.loss_type,
                rows=args.per_device_train_batch_size,
                longest=self.max_completion_length,
                tokens=inputs["num_items_in_batch"] / self.ranks.count / args.steps_per_generation,
            )
            loss = loss / args.gradient_accumulation_steps
        else:
            loss = self._by_own_tokens(losses * mask)
        if self.method.needs_entropies and entropies is not None:
            loss = loss + self._by_own_tokens(weighed_nll(self.method, inputs, logps, entropies, self._ledger))
            mask = inputs["demonstrated"] * inputs["completion_mask"] * window.needed(inputs)[:, None]
        self._ledger.add("demonstration_loss", loss, 1.0 / args.gradient_accumulation_steps)
        self._ledger.add("demonstration_nll", -(logps * mask).sum(), mask.sum())
        return loss

    def _note_empty(self, part: float) -> None:
        if self.method is not None and self._teacher is None:
            self._ledger.add("demonstration_loss", 0.0, part)

    def _by_own_tokens(self, losses: torch.Tensor) -> torch.Tensor:
        """A micro-batch's losses of demonstrated tokens, divided by their number over the optimizer step."""
        micro_batches = self.args.steps_per_generation // cut_of(self.args).steps
        step = self._step % self.args.steps_per_generation // micro_batches
        return losses.sum() / max(self._demonstrated_tokens[step], 1) * self.ranks.count
