"""Windows whose dead groups are replaced by those of further prompts before TRL sees any of them (see `refill`).

A window is sampled and scored in rounds: first its own prompts, then as many further ones as groups are dead. Every
process takes the same decisions, from the gathered rewards, and samples the rows at its own places. A completion is a
function of the seed, the window, its prompt's number among those drawn for it and its own number in the group. TRL then
gets the window as if it had been drawn so: its normaliser counts the tokens of the groups that stayed.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from posttrain.errors import ConfigError
from posttrain.methods.base import Method
from posttrain.training.begun_side import BegunSide
from posttrain.training.grpo_side import Asked
from posttrain.training.refill import Refill, replacements

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "_generate_single_turn": ("self", "prompt_ids", "images", "multimodal_fields", "num_generations"),
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("self", "inputs"),
}
"""Private methods of GRPOTrainer that are overridden or called here, and their leading parameters."""

PRIVATE_ATTRIBUTES = ("_metrics",)
"""Private attributes of a constructed GRPOTrainer that are set here."""


@dataclass
class Filled:
    """What a window has come to. The first four are of this process's rows, in their order.

    Attributes:
        rows: Of the data set.
        prompt_ids, completions: Token ids.
        logps: Of the sampled tokens, where what sampled has them.
        drawn: Prompts taken from the stream, for all processes.
        scored: Rewards (N, F) of all that was sampled, by all processes, round by round.
        dead: Groups, of all processes, that are dead at the end.
        dropped_tokens: Of this process's prompts and completions that others took the places of.
    """

    rows: list[dict[str, Any]]
    prompt_ids: list[list[int]]
    completions: list[list[int]]
    logps: list[Any] | None
    drawn: int
    scored: list[torch.Tensor] = field(default_factory=list)
    dead: int = 0
    dropped_tokens: int = 0


class RefilledSide(BegunSide):
    """A `GRPOTrainer` that replaces dead groups, where `args.refill` says so; without it nothing is changed."""

    def begin_begun(self, method: Method | None) -> None:
        """Have reward functions score round by round."""
        self._refill = Refill.of(self.args.refill)
        self._filled: Filled | None = None
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

    # ---- the rounds ----

    def _generate_and_score_completions(self, inputs):
        if self._refill is None or not self.model.training:
            return super()._generate_and_score_completions(inputs)
        filled = self._filled = self._fill(inputs, self._refill)
        self.state.num_input_tokens_seen += sum(self.ranks.gathered(filled.dropped_tokens))
        try:
            output = super()._generate_and_score_completions(filled.rows)
        finally:
            self._filled = None
        self._note_refill(filled)
        return output

    def _fill(self, inputs: list[dict[str, Any]], refill: Refill) -> Filled:
        """Sample and score a window until no group is dead, or the limit is reached; all processes at once."""
        assert self._kept is not None
        count, group = len(inputs), self.num_generations
        groups = count * self.ranks.count // group
        filled = Filled(inputs, [[]] * count, [[]] * count, None, drawn=groups)
        self._kept.begin(count)
        numbers = {place: place for place in range(groups)}
        while numbers:
            rewards = self._round(filled, numbers)
            dead = self._dead(rewards).tolist()
            filled.scored.append(rewards.view(groups, group, -1)[list(numbers)].flatten(0, 1))
            filled.dead = sum(dead)
            numbers = replacements(dead, filled.drawn, refill.max_batches * groups)
            self._draw_into(filled, numbers)
        self._kept.due, self._kept.ended = [], True  # what TRL asks for now has been scored
        return filled

    def _round(self, filled: Filled, numbers: dict[int, int]) -> torch.Tensor:
        """Sample and score the groups at these places, whose prompts have these numbers.

        Returns:
            Rewards (B, F) of the whole window.
        """
        assert self._kept is not None
        count, group = len(filled.rows), self.num_generations
        first = count * self.ranks.number
        own = [(place, *divmod(first + place, group)) for place in range(count)]
        places = [place for place, at, _ in own if at in numbers]
        places_or_one = places or [0]  # sharded models need this process's forward passes, too
        rows = filled.rows if len(places) == count else [filled.rows[place] for place in places_or_one]
        asked = None  # the first round is what a window without refilling samples, which a server may have begun
        if filled.scored:
            anew = tuple(numbers[at] * group + row for _, at, row in own if at in numbers)
            asked = Asked(None, anew or (first,), idle=not places)
        with self._ahead.batch(rows) if places else nullcontext():
            sampled = self._sample_round(rows, asked)
            if places:
                self._put(filled, places, *sampled)
            self._kept.due = places
            with self._ledger.clock("score"):
                self._finish_ahead()
                return self.scored(filled.rows, filled.prompt_ids, filled.completions)

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

    def _put(self, filled: Filled, places: list[int], prompt_ids: Any, completions: Any, logps: Any) -> None:
        """What was sampled of rows, in their places."""
        if logps is not None and filled.logps is None:
            filled.logps = [[]] * len(filled.rows)
        for at, place in enumerate(places):
            filled.dropped_tokens += len(filled.prompt_ids[place]) + len(filled.completions[place])
            filled.prompt_ids[place], filled.completions[place] = prompt_ids[at], completions[at]
            if logps is not None and filled.logps is not None:
                filled.logps[place] = logps[at]

    def _draw_into(self, filled: Filled, numbers: dict[int, int]) -> None:
        """Take further prompts from the stream, one for each of these places; all processes take the same."""
        group = self.num_generations
        drawn = dict(zip(numbers, self.prompts.take(len(numbers)), strict=True))
        filled.drawn += len(drawn)
        first = len(filled.rows) * self.ranks.number
        at = {place: drawn[of] for place in range(len(filled.rows)) if (of := (first + place) // group) in drawn}
        new = dict(zip(at, self._data_rows(list(at.values())), strict=True))
        filled.rows = [new.get(place, row) for place, row in enumerate(filled.rows)]

    # ---- what TRL and the step's line get ----

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        if self._filled is not None:
            return self._filled.completions, self._filled.logps
        return super()._generate_single_turn(prompt_ids, images, multimodal_fields, num_generations, has_tool_images)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self._filled is not None and self._kept is not None:
            self._kept.end()
        return rewards

    def _note_refill(self, filled: Filled) -> None:
        """Put down what was replaced; the mean rewards are those of all that was sampled, which is what the policy can
        do: among the groups that stay those in which everything is right are missing.
        """
        metrics, scored = self._metrics["train"], torch.cat(filled.scored)
        metrics["reward"][-1] = self.summed(scored).nanmean().item()
        for name, of_one in zip(self.reward_func_names, scored.unbind(dim=1), strict=True):
            metrics[f"rewards/{name}/mean"][-1] = of_one.nanmean().item()
        groups = len(scored) // self.num_generations
        window = self.args.generation_batch_size // self.num_generations
        seen = self._ledger.facts.setdefault("refill", {"prompts": 0, "replaced": 0, "still_dead": 0})
        for name, more in (("prompts", groups), ("replaced", groups - window), ("still_dead", filled.dead)):
            seen[name] += more
