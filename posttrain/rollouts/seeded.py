"""Rollouts with transformers whose every completion is a function of the run's seed and its own place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from posttrain.models.inference import inference
from posttrain.rollouts.drafts import Texts
from posttrain.rollouts.for_trl import Place
from posttrain.rollouts.sampling import Sampling, request_seed
from posttrain.rollouts.transformers import sample_tokens


class SeededRollouts:
    """Samples completions of rows; the counterpart of `EngineRollouts` without an engine.

    A completion is a function of the run's seed, the window, its prompt's place in the window and its number in the
    group, and of the policy: neither of the processes that share the rows nor of torch's generators. The policy samples
    in eval mode, so without dropout, as vLLM would.

    Args:
        sampling: Temperature and the like, and the limit on a completion's length.
        tokenizer: The policy's.
        eos_token_ids: Tokens that end a completion.
        run_seed: Of all seeds.
        examples: Texts like the completions, such as demonstrations, and where in each to begin: sampling guesses by
            them what comes next, which is faster where it is right and changes nothing where it is wrong.
    """

    def __init__(
        self,
        sampling: Sampling,
        *,
        tokenizer: Any,
        eos_token_ids: list[int],
        run_seed: int,
        examples: Iterable[tuple[Sequence[int], int]] = (),
    ):
        self.sampling, self.tokenizer, self.eos_token_ids = sampling, tokenizer, eos_token_ids
        self.run_seed, self._examples = run_seed, examples

    @cached_property
    def _texts(self) -> Texts:
        return Texts(self._examples)

    def sample(
        self,
        policy: Any,
        prompt_ids: list[list[int]],
        place: Place,
        *,
        group: int,
        synced: bool | None = None,
        limits: Sequence[int] | None = None,
        on_row: Callable[[int, list[int]], None] | None = None,
    ) -> list[list[int]]:
        """Token ids of a completion for each row, with the end-of-sequence token if there is one.

        Args:
            policy: What samples, ready for generate().
            prompt_ids: Of each row, each prompt `group` rows in a row over all processes.
            place: Where the rows stand in the run.
            group: Rows per prompt, G.
            synced: Every process makes the same number of forward passes; `None` leaves it to transformers.
            limits: Most tokens of each row, where they differ.
            on_row: Called with (the row's place in `prompt_ids`, its token ids) as soon as the row has ended.
        """
        seeds = [
            (request_seed(self.run_seed, place.window, row // group), place.child(row, group))
            for row in place.numbers(len(prompt_ids))
        ]
        with inference(policy):
            return sample_tokens(
                policy, prompt_ids, seeds, self.sampling,
                tokenizer=self.tokenizer, eos_ids=self.eos_token_ids, synced=synced,
                limits=limits, on_row=on_row, texts=self._texts if policy.device.type == "cpu" else None,
            )  # fmt: skip


def seeded_rollouts(trainer: Any, examples: Iterable[tuple[Sequence[int], int]] = ()) -> SeededRollouts | None:
    """What samples for a `GRPOTrainer` with `args.seeded_rollouts`; `None` leaves it to TRL.

    Supported are temperature, top_p, top_k, min_p and repetition_penalty on text. TRL itself samples for images, tools
    and environments, with continuous batching, `generation_kwargs` or `cache_implementation`, and under FSDP1.
    """
    from posttrain.rollouts.for_trl import sampling_of

    args = trainer.args
    otherwise = (
        trainer.use_vllm, trainer._is_vlm, trainer.tools, args.use_transformers_continuous_batching,
        args.generation_kwargs, args.cache_implementation,
    )  # fmt: skip
    if not args.seeded_rollouts or any(otherwise):
        return None
    return SeededRollouts(
        sampling_of(args),
        tokenizer=trainer._tokenizer,
        eos_token_ids=list(trainer.eos_token_ids),
        run_seed=args.seed,
        examples=examples,
    )
