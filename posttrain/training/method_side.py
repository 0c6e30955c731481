"""What a method makes of GRPO steps: beginnings that rollouts go on from, advantages, and rows of demonstrations.

Decisions are taken once a window, by every process from the same numbers: the gathered rewards and the prompts' places
in the run. A window's rollouts carry what is needed to make the rest again, so that a checkpoint inside a window is as
small as it was:

    demonstration   (B,) number of the demonstration in `Pairs.ids`, -1 without one
    whole           (B,) credit of the whole demonstration of the row's group
    nll             (B,) what its NLL counts beside that; with both 0 it is left out
    credit          (B,) of the row's own demonstrated tokens
    demonstrated    (B, C) 1 on tokens that were given, not sampled

The rows that demonstrations become, and their loss, are in `demonstrated_side`.
"""

from __future__ import annotations

import random
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from trl import GRPOTrainer

from posttrain.errors import ConfigError
from posttrain.inputs.data import IGNORED
from posttrain.inputs.pairs import Pairs
from posttrain.methods.base import LOSSES, Arranged, Group, Method, beginning
from posttrain.training.demonstrated_side import DemonstratedSide
from posttrain.training.failures import Buffer, Item
from posttrain.training.ledger import FolderRecorder
from posttrain.training.method_records import columns_of, demonstration_row, facts_of, with_rows
from posttrain.training.teacher import Teacher
from posttrain.training.window import kl, window
from posttrain.training.window.window import Rollouts

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "_generate_single_turn": ("self", "prompt_ids", "images", "multimodal_fields", "num_generations"),
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("self", "inputs"),
}
"""Private methods of GRPOTrainer that are overridden or called here, and their leading parameters."""

PRIVATE_ATTRIBUTES = ("_tokenizer", "_pending_extra_logs", "_pending_metrics")
"""Private attributes of a constructed GRPOTrainer that are read or set here."""


class MethodSide(DemonstratedSide):
    """A `GRPOTrainer` whose GRPO steps a method arranges; without one nothing is changed."""

    method: Method | None
    pairs: Pairs
    buffer: Buffer | None
    _pending_extra_logs: dict[str, list[Any]]
    _pending_metrics: dict[str, list[Any]]
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
            f"scale_rewards: {args.scale_rewards}, which has no effect on its advantages": method.own_advantages
            and args.scale_rewards != "group",
            "a reward model, which scores whole batches": method.escalates
            and any(isinstance(function, torch.nn.Module) for function in self.reward_funcs),
        }
        for seen, there in wrong.items():
            if there:
                raise ConfigError(
                    f"{seen}, with the method {method.name}",
                    expected=f"loss_type {', '.join(LOSSES)}, one pass over each window, text alone, and packed: true "
                    "or drop_zero_advantage: true (without migu): only so is a step the same however it is cut",
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
            prompts = zip(output["prompt_ids"], output["prompt_mask"].bool(), strict=True)
            prompt_ids = [ids[mask].tolist() for ids, mask in prompts]
            scored = self._scores_of([chosen[group] for group, _ in own], inputs, prompt_ids)[::rows]
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

    def _scores_of(self, numbers: list[int], inputs: list[dict[str, Any]], prompt_ids: list[list[int]]) -> torch.Tensor:
        """(N, rewards) of demonstrations in the places of this process's rows; of all processes, in order."""
        ids = [self.pairs.ids[number] if number >= 0 else [] for number in numbers]
        completions, prompts = self._as_trl_decodes(inputs, prompt_ids, ids), [row["prompt"] for row in inputs]
        logged = self._pending_extra_logs, self._pending_metrics  # of rollouts, or to be: not of demonstrations
        self._pending_extra_logs, self._pending_metrics = defaultdict(list), defaultdict(list)
        try:
            # TRL's own: what has been noted of the rollouts' rewards stays
            return GRPOTrainer._calculate_rewards(self, inputs, prompts, completions, ids)
        finally:
            self._pending_extra_logs, self._pending_metrics = logged
