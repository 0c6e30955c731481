"""Rollouts that go on from the beginning of a demonstration: all at once, or block by block (see `escalation`).

Beginnings are token ids behind those of the prompt, never text that is templated again. A completion has at most
`max_completion_length` tokens with what it begins with.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from trl import GRPOTrainer
from trl.chat_template_utils import parse_response

from posttrain.methods.base import Method
from posttrain.training.ahead_side import AheadSide
from posttrain.training.escalation import Ask, Escalated, in_blocks
from posttrain.training.grpo_side import Asked
from posttrain.training.kept_rewards import KeptRewards

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "_generate_single_turn": ("self", "prompt_ids", "images", "multimodal_fields", "num_generations"),
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
}
"""Private methods of GRPOTrainer that are called here, and their leading parameters."""

PRIVATE_ATTRIBUTES = ("_tokenizer",)
"""Private attributes of a constructed GRPOTrainer that are read here."""


class BegunSide(AheadSide):
    """A `GRPOTrainer` whose rollouts may begin with given tokens. What is declared here the subclass sets."""

    reward_funcs: list[Any]
    _kept: KeptRewards | None

    def begin_begun(self, method: Method | None) -> None:
        """Have reward functions score block by block, for a method that escalates."""
        self._inputs_drawn: list[dict[str, Any]] = []
        self._escalated: Escalated | None = None
        self._kept = None
        if method is not None and method.escalates:
            self._keep_rewards()

    def _keep_rewards(self) -> None:
        """Have reward functions score rows when they are due."""
        self._kept = KeptRewards(self.reward_funcs)
        self.reward_funcs = self._kept.functions

    def sample_behind(
        self, prompt_ids: list[list[int]], begun: list[list[int]], more: tuple[Any, ...], asked: Asked | None = None
    ) -> tuple[list[list[int]], Any]:
        """A completion of each prompt that begins with the given tokens, and log-probabilities, `None` on these.

        Args:
            prompt_ids: Of each row.
            begun: Of each row, fewer than a completion may have.
            more: The other arguments of `_generate_single_turn`.
            asked: Which rows these are, where it is not each of this process's.
        """
        limits = [self.max_completion_length - len(prefix) for prefix in begun]
        self._asked = Asked(limits) if asked is None else asked._replace(limits=limits)
        if self.use_vllm:
            self.vllm_generation.limits = limits
        try:
            longer = [[*ids, *prefix] for ids, prefix in zip(prompt_ids, begun, strict=True)]
            completions, logps = super()._generate_single_turn(longer, *more)
        finally:
            self._asked = None
            if self.use_vllm:
                self.vllm_generation.limits = None
        limit = self.max_completion_length  # where TRL samples, which knows one limit
        whole = [[*prefix, *ids][:limit] for prefix, ids in zip(begun, completions, strict=True)]
        if logps is not None:  # None becomes NaN, which corrects for nothing
            logps = [[*[None] * len(prefix), *of][:limit] for prefix, of in zip(begun, logps, strict=True)]
        return whole, logps

    def sample_in_blocks(
        self, method: Method, demonstrations: list[list[int]], prompt_ids: list[list[int]], more: tuple[Any, ...]
    ) -> Escalated:
        """A completion of each of this process's rows, scored and sampled on as the method decides.

        Args:
            method: One that escalates.
            demonstrations: Of each group of the window, over all processes; none is empty.
            prompt_ids: Of each row.
            more: The other arguments of `_generate_single_turn`.
        """
        assert self._kept is not None
        count = len(prompt_ids)
        first = count * self.ranks.number

        def sample(ask: Ask) -> tuple[list[list[int]], Any]:
            rows = tuple(first + place for place in ask.places)
            some = [prompt_ids[place] for place in ask.places]
            return self.sample_behind(some, ask.begun, more, Asked([], rows, ask.again, ask.idle))

        def score(places: list[int], completions: list[list[int]]) -> list[float]:
            return self._score_rows(places, prompt_ids, completions)

        self._kept.begin(count)
        group = self.num_generations
        escalated = in_blocks(method, demonstrations, group=group, first=first, count=count, sample=sample, score=score)
        self._kept.due, self._kept.ended = [], True  # what TRL asks for now has been scored
        return escalated

    def _score_rows(self, places: list[int], prompt_ids: list[list[int]], completions: list[list[int]]) -> list[float]:
        """Rewards of the window's rows of which these of this process are new."""
        assert self._kept is not None
        before = time.perf_counter()
        self._kept.due = places
        with self._ledger.clock("score"):
            rewards = self.scored(self._inputs_drawn, prompt_ids, completions)
        self._ledger.seconds["generate"] -= time.perf_counter() - before  # whose clock is running
        return self.summed(rewards).tolist()

    def scored(
        self, inputs: list[dict[str, Any]], prompt_ids: list[list[int]], completions: list[list[int]]
    ) -> torch.Tensor:
        """(N, F) rewards of all processes' rows, given this one's; of those that are not due, what is known."""
        texts, prompts = self._as_trl_decodes(inputs, prompt_ids, completions), [row["prompt"] for row in inputs]
        return GRPOTrainer._calculate_rewards(self, inputs, prompts, texts, completions)

    def _as_trl_decodes(
        self, inputs: list[dict[str, Any]], prompt_ids: list[list[int]], completions: list[list[int]]
    ) -> list[Any]:
        """Completions as reward functions get them; of rows without one yet, an empty one."""
        texts = self.processing_class.batch_decode(completions, skip_special_tokens=True)
        tokenizer: PreTrainedTokenizerBase = self._tokenizer
        if not isinstance(inputs[0]["prompt"], list):
            return texts
        parses = any(getattr(tokenizer, name, None) is not None for name in ("response_template", "response_schema"))
        return [
            [parse_response(tokenizer, ids, prefix=prompt, tools=self.tools)]
            if parses and ids
            else [{"role": "assistant", "content": text}]
            for prompt, ids, text in zip(prompt_ids, completions, texts, strict=True)
        ]
