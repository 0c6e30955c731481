"""TRL-style functions called outside of a run, by the very function that a run hands to the trainer: whole groups,
messages where the model has a chat template, token ids, and a trainer's state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.commands.rewards.variants import Example
from posttrain.errors import ConfigError, PosttrainError
from posttrain.planning.machine import hub_answers
from posttrain.planning.model_facts import is_hub_id, tokenizer_of
from posttrain.recipe.arithmetic import generation_batch_size
from posttrain.recipe.recipe import Recipe
from posttrain.scoring.score import TRL_EXTRAS, Outcome, Reward
from posttrain.scoring.scorer import Scorer, trl_reward_functions

_NO_COLUMNS = frozenset({"prompt", "completion", "completion_ids"}) | TRL_EXTRAS


def call_as_a_run(
    reward: Reward,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    rows: Sequence[Mapping[str, Any]],
    completion_ids: Sequence[Sequence[int]] | None = None,
    *,
    max_steps: int = 0,
) -> list[Outcome]:
    """One call of a TRL-style function.

    Args:
        reward: The function.
        prompts, completions: Length B, text or messages.
        rows: Length B: their columns. What only some of them have is None in the others.
        completion_ids: Length B; None where nobody has them.
        max_steps: Of the run.

    Returns:
        B outcomes; one failure is that of all.
    """
    from posttrain.inputs.first_step import first_extras  # loads transformers

    names = dict.fromkeys(name for row in rows for name in row if name not in _NO_COLUMNS)
    columns = {name: [row.get(name) for row in rows] for name in names}
    (function,) = trl_reward_functions(Scorer([reward], max_error_rate=1.0))
    function(prompts, completions, completion_ids, **first_extras(max_steps), **columns)
    return function.last_outcomes  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Caller:
    """Calls a recipe's TRL-style functions as a run of the recipe does.

    Args:
        recipe: Gives the size of groups and of what one process samples at once.
        tokenizer: The model's, or None where it cannot be had: then there are neither messages nor token ids.
    """

    recipe: Recipe
    tokenizer: Any

    def __call__(self, reward: Reward, pairs: Sequence[tuple[Example, str]]) -> list[Outcome]:
        """Score completions, each as a whole group of its prompt; a last call is filled up with the first ones."""
        if not pairs:
            return []
        group = self.recipe.hybrid.grpo.num_generations
        at_once = max(1, generation_batch_size(self.recipe) // group)
        outcomes: list[Outcome] = []
        for start in range(0, len(pairs), at_once):
            taken = [pairs[(start + i) % len(pairs)] for i in range(at_once)]
            outcomes += self._call(reward, [pair for pair in taken for _ in range(group)])[::group]
        return outcomes[: len(pairs)]

    def _call(self, reward: Reward, pairs: Sequence[tuple[Example, str]]) -> list[Outcome]:
        rows = [example.row for example, _ in pairs]
        prompts: list[Any] = [row.get("prompt", example.prompt) for row, (example, _) in zip(rows, pairs, strict=True)]
        completions: list[Any] = [text for _, text in pairs]
        ids = None
        if self.tokenizer is not None:
            from posttrain.inputs.data import fit_to_model  # loads transformers
            from posttrain.inputs.first_step import ids_as_sampled

            ids = ids_as_sampled(completions, self.tokenizer, self.recipe.hybrid.grpo.max_completion_length)
            prompts = [row["prompt"] for row in fit_to_model([{"prompt": one} for one in prompts], self.tokenizer)]
        completions = [
            text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
            for text, prompt in zip(completions, prompts, strict=True)
        ]
        return call_as_a_run(reward, prompts, completions, rows, ids, max_steps=self.recipe.hybrid.steps)


def caller(recipe: Recipe, rewards: Sequence[Reward], rows: Sequence[Mapping[str, Any]]) -> tuple[Caller, str]:
    """How to call a recipe's TRL-style functions, with what is lacking for it in words, if anything.

    Args:
        recipe: The recipe. Its model is not loaded, its tokenizer is where a function wants a batch.
        rewards: The recipe's.
        rows: Demonstrations and prompts of a run, of which a model from scratch gets its tokenizer.

    Raises:
        ConfigError: A function needs token ids, and there is no tokenizer to make them.
    """
    batched = [reward for reward in rewards if reward.style == "trl"]
    if not batched:
        return Caller(recipe, None), ""
    try:
        # Where the hub does not answer its client would go on asking for most of a minute
        offline = is_hub_id(recipe) and not hub_answers()
        return Caller(recipe, tokenizer_of(recipe, rows, offline=offline)), ""
    except PosttrainError as error:
        for reward in batched:
            if needs(reward, "completion_ids"):
                raise ConfigError(
                    f"it takes completion_ids, and the model's tokenizer cannot be had: {error.seen}",
                    expected="a tokenizer, which makes them",
                    where=f"reward {reward.name!r}",
                    fix="correct the recipe's model, or download it",
                ) from error
        return Caller(recipe, None), (
            f"the model's tokenizer cannot be had ({error.seen}): TRL-style functions get text and no completion_ids, "
            "where a run may give them messages"
        )


def needs(reward: Reward, argument: str) -> bool:
    """Whether a function has an argument of this name and no default for it."""
    found = reward.parameters.get(argument)
    return found is not None and found.default is found.empty and argument not in reward.kwargs
