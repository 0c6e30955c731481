"""Windows whose dead groups are replaced by those of further prompts before TRL sees any of them (see `refill`).

Prompts are sampled and scored in rounds, whose rows the processes share evenly. Every process takes the same decisions,
from the gathered rewards, and gets the rows of its own places from those that sampled them. A completion is a function
of the seed, the window, its prompt's number among those drawn for it and its own number in the group. TRL then gets the
window as if it had been drawn so: its normaliser counts the tokens of the groups that stayed.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from posttrain.errors import ConfigError
from posttrain.methods.base import Method
from posttrain.training.begun_side import BegunSide
from posttrain.training.grpo_side import Asked
from posttrain.training.kept_rewards import Known
from posttrain.training.refill import Refill, expected, needed, settled

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "_generate_single_turn": ("self", "prompt_ids", "images", "multimodal_fields", "num_generations"),
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("self", "inputs"),
}
"""Private methods of GRPOTrainer that are overridden or called here, and their leading parameters."""

PRIVATE_ATTRIBUTES = ("_metrics",)
"""Private attributes of a constructed GRPOTrainer that are set here."""


class Row(NamedTuple):
    """A row that was sampled: token ids, log-probabilities where what sampled has them, what rewards said of it."""

    prompt_ids: list[int]
    completion: list[int]
    logps: Any
    known: list[Known]


@dataclass
class Sampled:
    """What was sampled for a window so far.

    Attributes:
        base: Where its prompts begin in the stream.
        own: Rows that this process sampled, by the prompt's number and the row's in the group.
        dead: Of each prompt by number, whether its group is.
        rewards: (G, F) of each prompt by number.
    """

    base: int
    own: dict[tuple[int, int], Row] = field(default_factory=dict)
    dead: list[bool] = field(default_factory=list)
    rewards: list[torch.Tensor] = field(default_factory=list)


class Filled(NamedTuple):
    """What a window has come to.

    Attributes:
        data: This process's rows of the data set.
        rows: What was sampled of each.
        taken: Prompts that were taken from the stream, by their rows of the data set.
        dead: Groups that are dead.
        unused: Prompts that were sampled and not needed.
        rewards: (N, F) of all rows of the prompts that were taken, of all processes.
    """

    data: list[dict[str, Any]]
    rows: list[Row]
    taken: list[int]
    dead: int
    unused: int
    rewards: torch.Tensor


class RefilledSide(BegunSide):
    """A `GRPOTrainer` that replaces dead groups, where `args.refill` says so; without it nothing is changed."""

    def begin_begun(self, method: Method | None) -> None:
        """Have reward functions score round by round."""
        self._refill = Refill.of(self.args.refill)
        self._filled: Filled | None = None
        self._begun_aside = False
        self.dead_lately: float | None = None  # the share of dead groups to expect
        super().begin_begun(method)
        if self._refill is not None:
            self._check_refill()
            self._keep_rewards()

    def _check_refill(self) -> None:
        models = any(isinstance(function, torch.nn.Module) for function in self.reward_funcs)
        wrong = {
            "tools, environments or a rollout_func, by which a prompt is more than its row": bool(self.tools)
            or self.environment_factories is not None
            or self.rollout_func is not None,
            "images": self._is_vlm,
            "a reward model, which scores whole batches": models,
        }
        for seen, there in wrong.items():
            if there:
                raise ConfigError(
                    f"refill with {seen}",
                    expected="single-turn rollouts of text, and rewards that are functions: a part of a window is "
                    "sampled and scored again",
                    where="refill",
                    fix="leave refill out",
                )

    def _begin_rollouts(self, model: Any) -> None:
        super()._begin_rollouts(model)
        self._begun_aside = self._drawn_ahead is not None

    # ---- the rounds ----

    def _generate_and_score_completions(self, inputs):
        if self._refill is None or not self.model.training:
            return super()._generate_and_score_completions(inputs)
        filled = self._filled = self._fill(inputs, self._refill)
        try:
            output = super()._generate_and_score_completions(filled.data)
        finally:
            self._filled = None
        self._note_refill(filled)
        return output

    def _fill(self, inputs: list[dict[str, Any]], refill: Refill) -> Filled:
        """Sample and score until no group is dead, or the limit is reached; all processes at once."""
        places = len(inputs) * self.ranks.count // self.num_generations
        sampled = Sampled(self.prompts.cursor - places)
        upto, most = places, refill.most(places)
        if not self._begun_aside:  # else a server has begun with the window's own
            upto = refill.at_first(places, self.dead_lately or 0.0)
        self._begun_aside = False
        while len(sampled.dead) < upto:
            plain = not sampled.dead and upto == places
            self._round(sampled, range(len(sampled.dead), upto), inputs if plain else None)
            upto = needed(sampled.dead, places, most)
        self.dead_lately = expected(self.dead_lately, sampled.dead)
        self.prompts.cursor = sampled.base + upto
        there = settled(sampled.dead[:upto], places)
        own = {name: row for name, row in sampled.own.items() if name[0] in set(there)}
        stays = {name: row for of in self.ranks.gathered(own) for name, row in of.items()}
        names = [(number, row) for number in there for row in range(self.num_generations)]
        mine = names[len(inputs) * self.ranks.number :][: len(inputs)]
        filled = Filled(
            self._data_of(sampled, [number for number, _ in mine]),
            [stays[name] for name in mine],
            taken=[self.prompts.row(sampled.base + number) for number in range(upto)],
            dead=sum(sampled.dead[number] for number in there),
            unused=len(sampled.dead) - upto,
            rewards=torch.cat(sampled.rewards[:upto]),
        )
        self._know(sampled, filled)
        return filled

    def _know(self, sampled: Sampled, filled: Filled) -> None:
        """Have reward functions answer for the window, and count the tokens that TRL does not see."""
        assert self._kept is not None
        self._kept.begin_known([row.known for row in filled.rows])
        kinds: tuple[Iterable[Row], ...] = (sampled.own.values(), filled.rows)
        tokens = [sum(len(row.prompt_ids) + len(row.completion) for row in rows) for rows in kinds]
        self.state.num_input_tokens_seen += sum(self.ranks.gathered(tokens[0] - tokens[1]))

    def _data_of(self, sampled: Sampled, numbers: list[int]) -> list[dict[str, Any]]:
        return self._data_rows([self.prompts.row(sampled.base + number) for number in numbers])

    def _round(self, sampled: Sampled, numbers: range, inputs: list[dict[str, Any]] | None) -> None:
        """Sample and score the groups of the prompts with these numbers.

        Args:
            sampled: Gets what comes of it.
            numbers: Those that follow what was sampled before.
            inputs: This process's rows of the data set, where they are what a window without refilling samples.
        """
        assert self._kept is not None
        group, total = self.num_generations, len(numbers) * self.num_generations
        share = -(-total // self.ranks.count)  # of which the last processes may lack some
        mine = range(total)[share * self.ranks.number : share * (self.ranks.number + 1)]
        names = [(numbers[row // group], row % group) for row in mine]
        rows = inputs or self._data_of(sampled, [number for number, _ in names])
        spare = self._data_of(sampled, [numbers[0]]) * (share - len(rows))
        asked = None
        if inputs is None:
            places = tuple(number * group + row for number, row in names) or (numbers[0] * group,)
            asked = Asked(None, places, idle=not names)
        with self._ahead.batch(rows) if rows else nullcontext():
            prompt_ids, completions, logps = self._sample_round(rows or spare[:1], asked)
            self._kept.begin(share)
            self._kept.due = list(range(len(names)))
            with self._ledger.clock("score"):
                self._finish_ahead()
                ids = [[*some[: len(names)], *([] for _ in spare)] for some in (prompt_ids, completions)]
                rewards = self.scored(rows + spare, *ids)[:total]
        for place, (name, known) in enumerate(zip(names, self._kept.known(), strict=False)):
            logp = None if logps is None else logps[place]
            sampled.own[name] = Row(prompt_ids[place], completions[place], logp, known)
        sampled.dead += self._dead(rewards).tolist()
        sampled.rewards += rewards.split(group)

    def _sample_round(self, rows: list[dict[str, Any]], asked: Asked | None) -> tuple[list[list[int]], Any, Any]:
        """Prompts and completions of rows as token ids, and log-probabilities or `None`."""
        with self._ledger.clock("generate"):
            prompt_ids, images, fields = self._tokenize_prompts([row["prompt"] for row in rows])
            self._asked = asked
            if self.use_vllm:
                self.vllm_generation.on_row = self._ahead.on_row
            try:
                completions, logps = super()._generate_single_turn(prompt_ids, images, fields, self.num_generations)
            finally:
                self._asked = None
        self._note_engine()
        return prompt_ids, completions, logps

    # ---- what TRL and the step's line get ----

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        if self._filled is not None:
            logps = [row.logps for row in self._filled.rows]
            return [row.completion for row in self._filled.rows], None if None in logps else logps
        return super()._generate_single_turn(prompt_ids, images, multimodal_fields, num_generations, has_tool_images)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self._filled is not None and self._kept is not None:
            self._kept.end()
        return rewards

    def _taken(self, rewards: torch.Tensor) -> tuple[list[int], torch.Tensor]:
        filled = self._filled
        return super()._taken(rewards) if filled is None else (filled.taken, filled.rewards)

    def _note_refill(self, filled: Filled) -> None:
        """Put down what was replaced. The mean rewards are of all prompts that were taken: the groups that stay lack
        those that are all right, and would say less than the policy can do.
        """
        metrics = self._metrics["train"]
        metrics["reward"][-1] = self.summed(filled.rewards).nanmean().item()
        for name, of_one in zip(self.reward_func_names, filled.rewards.unbind(dim=1), strict=True):
            metrics[f"rewards/{name}/mean"][-1] = of_one.nanmean().item()
        places = self.args.generation_batch_size // self.num_generations
        facts = {
            "prompts": len(filled.taken),
            "replaced": len(filled.taken) - places,
            "still_dead": filled.dead,
            "unused": filled.unused,
        }
        before = self._ledger.facts.get("refill") or {}  # of other windows of the step
        self._ledger.facts["refill"] = {name: before.get(name, 0) + more for name, more in facts.items()}
