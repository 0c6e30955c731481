"""A token budget that decays over the stage, is told in the prompt and paid by the reward `length_budget`.

Reinforcement mid-training (RMT, arXiv 2509.24375): at the share s of the stage a completion may take
max(least, floor(start * rate^s)) tokens. Here s is the share of the stage's steps, or of its budget, that is behind the
step that samples; a prompt's line is the recipe's own. The reward is `rewards/length_budget.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from posttrain.errors import ConfigError
from posttrain.nearest import did_you_mean
from posttrain.recipe.selected_tokens import BUDGET


@dataclass(frozen=True)
class LengthBudget:
    """How many tokens completions may take, by the share of the stage that is behind.

    Attributes:
        start, rate, least: As above.
        prompt: The line that tells it, with `{budget}` in it; `None` tells nothing.
    """

    start: int = 800
    rate: float = 0.2
    least: int = 1
    prompt: str | None = "Use at most {budget} tokens."

    @classmethod
    def of(cls, given: Mapping[str, Any] | LengthBudget | None) -> LengthBudget | None:
        """From a mapping of its attributes.

        Raises:
            ConfigError: It has others, or values that make no budget.
        """
        if given is None or isinstance(given, LengthBudget):
            return given
        names = [each.name for each in fields(cls)]
        if unknown := [str(name) for name in given if name not in names]:
            seen, fix = f"length_budget with {', '.join(unknown)}", did_you_mean(unknown[0], names)
            raise ConfigError(seen, expected=" and ".join(names), where="length_budget", fix=fix)
        budget = cls(**given)
        if not (1 <= budget.least <= budget.start and 0.0 < budget.rate <= 1.0):
            raise ConfigError(
                f"start {budget.start}, rate {budget.rate:g}, least {budget.least}",
                expected="1 <= least <= start, and a rate above 0 and at most 1",
                where="length_budget",
            )
        if budget.prompt is not None and "{budget}" not in budget.prompt:
            raise ConfigError(
                repr(budget.prompt),
                expected="{budget} in it, where the number stands",
                where="length_budget.prompt",
                fix="set it to null to tell nothing",
            )
        return budget

    def tokens(self, share: float) -> int:
        """The budget where `share` of the stage, from 0 to 1, is behind."""
        return max(self.least, math.floor(self.start * self.rate ** min(max(share, 0.0), 1.0) + 1e-9))

    def told(self, row: dict[str, Any], share: float) -> dict[str, Any]:
        """A row with its budget as a column, and told at the end of its prompt: text, or the last user message."""
        tokens = self.tokens(share)
        row = {**row, BUDGET: tokens}
        if self.prompt is None:
            return row
        line = self.prompt.replace("{budget}", str(tokens))
        if isinstance(row["prompt"], str):
            return {**row, "prompt": f"{row['prompt']}\n{line}"}
        messages = [dict(message) for message in row["prompt"]]
        last = next((message for message in reversed(messages) if message.get("role") == "user"), messages[-1])
        content = last.get("content")
        if isinstance(content, list):
            last["content"] = [*content, {"type": "text", "text": line}]
        else:
            last["content"] = f"{content or ''}\n\n{line}"
        return {**row, "prompt": messages}
