"""What a method makes of GRPO steps: beginnings that rollouts go on from, advantages, and rows of demonstrations.

Decisions are taken once a window, by every process from the same numbers: the gathered rewards and the prompts' places
in the run. A window's rollouts carry what is needed to make the rest again, so that a checkpoint inside a window is as
small as it was:

    demonstration   (B,) number of the demonstration in `Pairs.ids`, -1 without one
    whole           (B,) credit of the whole demonstration of the row's group
    nll             (B,) what its NLL counts beside that; with both 0 it is left out
    credit          (B,) of the row's own demonstrated tokens
    demonstrated    (B, C) 1 on tokens that were given, not sampled

A group's demonstration becomes a row beside its rollouts: packed, it costs its completion only. TRL's loss sees all
rows, with `tool_mask` 0 on demonstrated tokens, but where a method has GRPO train them, and the method's loss is added.
What a policy that is shown demonstrations has to say of rollouts is in `teacher`.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from trl import GRPOTrainer
from trl.trainer.utils import pad

from posttrain.errors import ConfigError
from posttrain.inputs.data import IGNORED
from posttrain.inputs.pairs import Pairs
from posttrain.methods.base import LOSSES, Arranged, Group, Method, beginning
from posttrain.training.begun_side import BegunSide
from posttrain.training.by_entropy import weigh_rollouts, weighed_nll
from posttrain.training.failures import Buffer, Item
from posttrain.training.ledger import FolderRecorder
from posttrain.training.losses import per_rollout
from posttrain.training.method_records import columns_of, demonstration_row, facts_of, with_rows
from posttrain.training.teacher import Teacher
from posttrain.training.token_weights import weighted
from posttrain.training.window import kl, window
from posttrain.training.window.bins import More
from posttrain.training.window.cut import cut_of
from posttrain.training.window.side import OLD, RATIO, SAMPLING
from posttrain.training.window.window import Rollouts

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "_generate_single_turn": ("self", "prompt_ids", "images", "multimodal_fields", "num_generations"),
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("self", "inputs"),
}
"""Private methods of GRPOTrainer that are overridden or called here, and their leading parameters."""

PRIVATE_ATTRIBUTES = ("_step", "_tokenizer")
"""Private attributes of a constructed GRPOTrainer that are read here."""

REFERENCE = "ref_per_token_logps"


class MethodSide(BegunSide):
    """A `GRPOTrainer` whose GRPO steps a method arranges; without one nothing is changed."""

    method: Method | None
    pairs: Pairs
    buffer: Buffer | None
    horizon: int

    def begin_method(self, method: Method | None, demonstrations: Any, template_kwargs: dict[str, Any]) -> None:
        """Pair prompts with demonstrations; after `begin_grpo`.

        Raises:
            ConfigError: A setting that the method's loss does not go with.
            DataError: No prompt has a demonstration, or one is too long.
        """
        self.method = method
        self._seed = ""  # of the window's draws
        self._chosen: list[int] = []  # for each group of the window, the number of its demonstration, -1 without one
        self._begun: list[int] = []
        self._counting: dict[int, tuple[int, Arranged, list[float]]] = {}  # groups' demonstrations with scores
        self._rewards_seen: torch.Tensor | None = None
        self._demonstrated_tokens: list[int] = []
        self._teacher: Teacher | None = None
        self._prompts_drawn: list[int] = []
        self.buffer = Buffer(method.buffer) if method and method.buffer else None
        if method is not None:
            self._check_method(method)
        self.begin_begun(method)
        if method is None:
            return
        self.pairs = Pairs(
            self.train_dataset,
            demonstrations,
            self._tokenizer,
            longest=self.max_completion_length,
            too_long=method.too_long,
            template_kwargs=template_kwargs,
            after=self.args.demonstrations_after,
        )
        if method.shows_teacher:
            self._teacher = Teacher(method, self.pairs, self, template_kwargs)
        rest = (
            self.pairs.alone or self.pairs.beyond or self.pairs.left_out or len(self.pairs.of) < len(self.train_dataset)
        )
        if rest and isinstance(self._recorder, FolderRecorder):  # a run tells of it by itself
            warnings.warn(f"method {method.name}: {self.pairs.in_words()}", stacklevel=4)

    def _check_method(self, method: Method) -> None:
        args = self.args
        wrong = {
            "several windows in an optimizer step": args.gradient_accumulation_steps > args.steps_per_generation,
            f"num_iterations: {args.num_iterations}": args.num_iterations > 1,
            f"loss_type: {self.loss_type}": self.loss_type not in LOSSES,
            "importance_sampling_level: sequence": self.importance_sampling_level == "sequence",
            "an entropy bonus or a quantile of entropies": self._keeps_micro_batches(),
            "a controller that gathers statistics of rollouts": self._statistics is not None,
            "tools or environments": bool(self.tools) or self.environment_factories is not None,
            "mask_truncated_completions": args.mask_truncated_completions,
            "a model whose rows stay where they were sampled": self._bins is None,
            "a reward model, which scores whole batches": method.escalates
            and any(isinstance(function, torch.nn.Module) for function in self.reward_funcs),
        }
        for seen, there in wrong.items():
            if there:
                raise ConfigError(
                    f"{seen}, with the method {method.name}",
                    expected=f"loss_type {', '.join(LOSSES)}, one pass over each window, text alone, and packed: true "
                    "or drop_zero_advantage: true: only so is the loss of a step the same however it is cut",
                    where="hybrid.method",
                    fix="change that setting, or leave the method out",
                )
        method.check_group(self.num_generations)

    # ---- before sampling ----

    def _draw_prompts(self) -> list[dict[str, Any]]:
        if self.method is not None:
            args = self.args
            drawn = self._prompts_drawn = self.prompts.peek(args.generation_batch_size // args.num_generations)
            self._seed = f"{args.seed}:{self._rollouts // args.generation_batch_size}"
            self._chosen = [self._demonstration_of(group, prompt) for group, prompt in enumerate(drawn)]
        return super()._draw_prompts()

    def _begin_rollouts(self, model: Any) -> None:
        if self.method is None or not self.method.begins_rollouts:  # they would be sampled without their beginnings
            super()._begin_rollouts(model)

    def _demonstration_of(self, group: int, prompt: int) -> int:
        numbers = self.pairs.of.get(prompt, [])
        return random.Random(f"demonstration:{self._seed}:{group}").choice(numbers) if numbers else -1

    @property
    def clock(self) -> float:
        """Where schedules stand, in steps of `horizon`."""
        return self.state.global_step

    def _prefixes(self, count: int) -> list[list[int]]:
        """The beginning of each of this process's rows."""
        assert self.method is not None
        rows, done = self.num_generations, self.clock / max(self.horizon - 1, 1)
        prefixes: list[list[int]] = []
        for number in range(count * self.ranks.number, count * (self.ranks.number + 1)):
            group, row = divmod(number, rows)
            demonstration = self._chosen[group]
            ids = self.pairs.ids[demonstration] if demonstration >= 0 else []
            prefixes.append(
                ids[: beginning(self.method, group, row, rows=rows, tokens=len(ids), done=done, window=self._seed)]
            )
        return prefixes

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        more = (images, multimodal_fields, num_generations, has_tool_images)
        self._begun, self._escalated, method = [], None, self.method
        if method is None or not method.begins_rollouts or not self.model.training:
            return super()._generate_single_turn(prompt_ids, *more)
        if method.escalates:
            shown = [self.pairs.ids[number] if number >= 0 else [] for number in self._chosen]
            window = self._escalated = self.sample_in_blocks(method, shown, prompt_ids, more)
            self._begun = window.begun
            return window.completions, window.logps
        begun = self._prefixes(len(prompt_ids))
        self._begun = [len(prefix) for prefix in begun]
        return self.sample_behind(prompt_ids, begun, more)

    # ---- behind scoring ----

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.method is not None and self.model.training:
            self._rewards_seen = self.summed(rewards)
            if self._kept is not None:
                self._kept.end()
        return rewards

    def _generate_and_score_completions(self, inputs):
        self._inputs_drawn = inputs
        output = super()._generate_and_score_completions(inputs)
        if self.method is not None and self.model.training:
            self._arrange(self.method, inputs, output)
            super()._record_completions()
        return output

    def _record_completions(self) -> None:
        if self.method is None:  # else behind `_arrange`, which makes the advantages
            super()._record_completions()

    def _recorded(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.method is None:
            return rows
        names, decode = self.reward_func_names, self._tokenizer.decode
        more = {
            group: demonstration_row(self.pairs.ids[number], decode, of, dict(zip(names, scores, strict=False)))
            for group, (number, of, scores) in self._counting.items()
        }
        return with_rows(rows, more, group=self.num_generations)

    def _arrange(self, method: Method, inputs: list[dict[str, Any]], output: Rollouts) -> None:
        """Have the method decide on every group of the window, and put down what concerns this process's rows."""
        rows, device = self.num_generations, output["completion_ids"].device
        count = window.row_count(output)
        first = count * self.ranks.number
        own = [divmod(number, rows) for number in range(first, first + count)]
        assert self._rewards_seen is not None
        rewards = self._rewards_seen.view(-1, rows).tolist()
        advantages = self.accelerator.gather(output["advantages"].contiguous()).view(-1, rows).tolist()
        chosen = self._chosen
        worth: list[float | None] = [None if number < 0 else float("nan") for number in chosen]
        scores: list[list[float]] = [[] for _ in chosen]  # by reward
        if method.scores_demonstrations:
            scored = self._scores_of([chosen[group] for group, _ in own], inputs)[::rows]
            scores = scored.tolist()
            summed = self.summed(scored).tolist()
            worth = [None if number < 0 else score for number, score in zip(chosen, summed, strict=True)]
        levels = [0] * len(chosen) if self._escalated is None else self._escalated.levels
        groups = [
            Group(tuple(r), tuple(a), worth[place], levels[place])
            for place, (r, a) in enumerate(zip(rewards, advantages, strict=True))
        ]
        arranged = [method.arrange(group) for group in groups]
        if self.buffer is not None:  # all processes put the same into it
            each = zip(self._prompts_drawn, chosen, arranged, strict=True)
            self.buffer.enter([(prompt, number) for prompt, number, of in each if of.waits])

        def column(values: list[Any], dtype: torch.dtype) -> torch.Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        begun = self._begun or [0] * count
        places = torch.arange(output["completion_ids"].size(1), device=device)
        given = (places < column(begun, torch.long)[:, None]) & output["completion_mask"].bool()
        trained = begun if self._escalated is None else self._escalated.trained
        credit = [method.prefix_credit if of and method.prefix == "own" else 0.0 for of in trained]
        output["advantages"] = column([arranged[group].advantages[row] for group, row in own], torch.float32)
        output["demonstration"] = column([chosen[group] for group, _ in own], torch.long)
        output["whole"] = column([arranged[group].credit for group, _ in own], torch.float32)
        output["nll"] = column([arranged[group].nll for group, _ in own], torch.float32)
        output["credit"] = column(credit, torch.float32)
        output["demonstrated"] = given.long()
        output["tool_mask"] = (~given).long() if method.prefix == "own" else torch.ones_like(given).long()
        if kl.NAME in output:  # k3 is an estimate on what the policy sampled
            output[kl.NAME] = output[kl.NAME].masked_fill(given, float("nan"))
        if self._teacher is not None:
            output |= self._teacher.columns(output, self.model, self._teacher_logps, step=self.clock)
        tokens = self.accelerator.gather(window.loss_mask(output).sum()).sum()
        if method.divisor == "rollouts":
            whole = sum(len(self.pairs.ids[n]) for n, a in zip(chosen, arranged, strict=True) if a.credit or a.nll)
            shown = (given.sum(dim=1) * (output["credit"] != 0)).sum()
            tokens = tokens + whole + self.accelerator.gather(shown).sum()
        output["num_items_in_batch"] = tokens
        begun_of_all = self.accelerator.gather(given.sum(dim=1)).view(-1, rows).tolist()
        lengths = [len(self.pairs.ids[number]) if number >= 0 else 0 for number in chosen]
        self._ledger.facts["method"] = {
            "name": method.name,
            "window": self._rollouts // self.args.generation_batch_size - 1,
            **facts_of(groups, arranged, begun_of_all, lengths),
        }
        sizes = output["completion_mask"].sum(dim=1).tolist()
        kept = [ids[:size] for ids, size in zip(output["completion_ids"].tolist(), sizes, strict=True)]
        of_rows = columns_of(groups, arranged, own, kept, given.sum(dim=1).tolist(), credit, self._tokenizer.decode)
        for columns, more in zip(self._columns, of_rows, strict=True):
            columns |= more
        self._counting = {
            group: (number, of, score)
            for group, (number, of, score) in enumerate(zip(chosen, arranged, scores, strict=True))
            if of.credit or of.nll
        }
        if self._escalated is not None:
            self._ledger.facts["method"]["sampled_again"] = self._escalated.again

    def _failed_rows(self, items: Sequence[Item]) -> list[dict[str, list[int]]]:
        """Demonstrations behind the very tokens that rollouts of their prompts start from."""
        starts, *_ = self._tokenize_prompts([self.train_dataset[prompt]["prompt"] for prompt, _ in items])
        ids = [self.pairs.ids[number] for _, number in items]
        return [
            {"input_ids": [*start, *of], "labels": [IGNORED] * len(start) + of}
            for start, of in zip(starts, ids, strict=True)
        ]

    def _scores_of(self, numbers: list[int], inputs: list[dict[str, Any]]) -> torch.Tensor:
        """(N, rewards) of demonstrations in the places of this process's rows; of all processes, in order."""
        ids = [self.pairs.ids[number] if number >= 0 else [] for number in numbers]
        texts = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        prompts = [row["prompt"] for row in inputs]
        chats = [isinstance(prompt, list) for prompt in prompts]
        completions = [
            [{"role": "assistant", "content": text}] if chat else text for text, chat in zip(texts, chats, strict=True)
        ]
        # TRL's own: what has been noted of the rollouts' rewards stays
        return GRPOTrainer._calculate_rewards(self, inputs, prompts, completions, ids)

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
        args, weight = self.args, self.args.sft_weight if self.method.likelihood else "nll"
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

    def _by_own_tokens(self, losses: torch.Tensor) -> torch.Tensor:
        """A micro-batch's losses of demonstrated tokens, divided by their number over the optimizer step."""
        micro_batches = self.args.steps_per_generation // cut_of(self.args).steps
        step = self._step % self.args.steps_per_generation // micro_batches
        return losses.sum() / max(self._demonstrated_tokens[step], 1) * self.ranks.count
