"""What a run evaluates with: one sampling engine and one pool of reward workers, shared by all its stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from posttrain.evaluation.angles import Angles, measure
from posttrain.evaluation.curriculum import pass_rates
from posttrain.evaluation.evaluate import Evaluation, evaluate
from posttrain.inputs.data import fit_to_model, with_demonstrated
from posttrain.inputs.inputs import load_judges
from posttrain.inputs.rendering import tokenize_prompts
from posttrain.processes.ranks import Ranks
from posttrain.processes.zero import is_partitioned
from posttrain.recipe.adapter_serving import adapter_of, rank_in, why_sent_whole
from posttrain.recipe.recipe import Recipe
from posttrain.rollouts.engine import Engine
from posttrain.rollouts.engines import open_engine
from posttrain.rollouts.transformers import end_of_sequence_ids
from posttrain.rollouts.vllm_build import Unserved
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.score import Reward
from posttrain.tasks import TaskData


class Examiner:
    """Samples and scores for a run; a context manager that ends the engine and the workers.

    Args:
        recipe: The run's recipe.
        data: The task's rows: how long their prompts are bounds what the engine must hold.
        rewards: What the policy is trained by, and so judged by where the recipe names nothing else for that.
        tokenizer: The policy's.
        on_gpu: Whether the run computes on a GPU.
        ranks: The processes of the run, each of which samples and scores its share.
        instead: Gives the recipe to go on by, without vLLM, when vLLM cannot serve the model; `None` lets that be an
            error.

    Attributes:
        judges: The rewards that the evaluations are judged by.
        pool: The workers.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TaskData,
        rewards: Sequence[Reward],
        tokenizer: Any,
        *,
        on_gpu: bool,
        ranks: Ranks | None = None,
        instead: Callable[[Unserved], Recipe] | None = None,
    ):
        self._instead = instead
        self._recipe, self._data, self._tokenizer, self._on_gpu = recipe, data, tokenizer, on_gpu
        self._ranks = ranks or Ranks()
        self._template_kwargs = recipe.hybrid.template_kwargs
        self.judges = load_judges(recipe, data, rewards)
        self._engine: Engine | None = None
        scoring = recipe.scoring
        self.pool = self._ranks.together(
            lambda: RewardPool(
                [*rewards, *(each for each in self.judges if each not in rewards)],
                workers=scoring.workers,
                time_limit_s=scoring.time_limit_s,
                memory_limit_mb=scoring.memory_limit_mb,
            )
        )

    def __enter__(self) -> Examiner:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.pool.close()
        finally:
            self._close_engine()

    def _close_engine(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = None

    def engine(self, model: Any) -> Engine | None:
        """The engine that the recipe asks for, started when it is first needed; `None` where transformers samples."""
        section = self._recipe.rollout
        if not section.uses_vllm():
            return None
        if self._engine is not None and not self._engine.fits(model):
            self._close_engine()
        if self._engine is None:
            settings = section.model_dump(exclude={"engine", "overlap", "ahead", "probe_every", "max_model_length"})
            opened = partial(
                open_engine,
                model,
                end_of_sequence_ids(model, self._tokenizer),
                max_model_length=section.max_model_length or self._longest(model),
                dtype=str(self._dtype).removeprefix("torch."),
                seed=self._recipe.run.seed,
                trust_remote_code=self._recipe.model.trust_remote_code,
                lora_rank=self._adapter_rank(),
                ranks=self._ranks,
                **settings,
            )
            try:
                self._engine = self._ranks.together(opened)
            except Unserved as error:
                if self._instead is None:
                    raise
                self._recipe = self._instead(error)
        return self._engine

    def _adapter_rank(self) -> int | None:
        """For which the engine is built, although the first model that it samples from may have no adapter yet."""
        config = adapter_of(self._recipe)
        return rank_in(config) if config and why_sent_whole(config) is None else None

    @property
    def _dtype(self) -> torch.dtype:
        """What training computes in."""
        if not self._on_gpu:
            return torch.float32
        args = self._recipe.hybrid.args
        if args.get("fp16"):
            return torch.float16
        return torch.float32 if args.get("bf16") is False else torch.bfloat16  # TRL's default is bf16

    def _longest(self, model: Any) -> int:
        """Tokens of the longest prompt and a completion: what a model could hold besides costs memory for nothing."""
        train = with_demonstrated(self._data) if self._recipe.hybrid.method else self._data.train
        rows = fit_to_model([*train, *self._data.eval], self._tokenizer)
        prompt_ids = tokenize_prompts(self._tokenizer, [row["prompt"] for row in rows], self._template_kwargs)
        lengths = self._recipe.evaluate.max_completion_length, self._recipe.hybrid.grpo.max_completion_length
        completion = max(length for length in lengths if length)
        longest = max(len(ids) for ids in prompt_ids) + completion
        if (told := self._recipe.hybrid.length_budget) is not None and told.prompt:
            longest += len(self._tokenizer(f"\n\n{told.prompt}{told.start}")["input_ids"])
        return min(longest, int(model.config.get_text_config().max_position_embeddings))

    def evaluate(
        self, model: Any, rows: list[dict[str, Any]], on_progress: Callable[[int, int], None] | None
    ) -> Evaluation:
        """The recipe's evaluation of a model on the task's held-out rows."""
        section = self._recipe.evaluate
        length = section.max_completion_length or self._recipe.hybrid.grpo.max_completion_length
        return self._examine(model, rows, section.k, section.samples, section.temperature, length, on_progress)

    def pass_rates(
        self, model: Any, rows: list[dict[str, Any]], samples: int, on_progress: Callable[[int, int], None] | None
    ) -> list[float]:
        """The share of passes among `samples` completions of each row, drawn as the rollouts are."""
        grpo = self._recipe.hybrid.grpo
        result = self._examine(model, rows, [1], samples, grpo.temperature, grpo.max_completion_length, on_progress)
        return pass_rates(result.rows, len(rows))

    def angles(
        self, model: Any, rows: list[dict[str, Any]], on_progress: Callable[[int, int], None] | None
    ) -> list[Angles]:
        """The angles of each row's hidden states, of one pass through the model."""
        prompts = [row["prompt"] for row in fit_to_model(rows, self._tokenizer)]
        with self._autocast():
            return measure(
                model.to("cuda" if self._on_gpu else "cpu"),
                tokenize_prompts(self._tokenizer, prompts, self._template_kwargs),
                batch_size=self._recipe.evaluate.batch_size,
                on_progress=on_progress,
                ranks=self._ranks,
            )

    def _autocast(self) -> AbstractContextManager[Any]:
        """The arithmetic that training computes in, which wraps the policy during a stage and not after it."""
        autocast = self._on_gpu and self._dtype != torch.float32
        return torch.autocast("cuda", self._dtype) if autocast else nullcontext()

    def _examine(
        self,
        model: Any,
        rows: list[dict[str, Any]],
        k: Sequence[int],
        samples: int,
        temperature: float,
        max_new_tokens: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> Evaluation:
        engine = self.engine(model)
        sharded = any(isinstance(each, DTensor) or is_partitioned(each) for each in model.parameters())
        with self._autocast() if engine is None else nullcontext():
            return evaluate(
                model if sharded else model.to("cuda" if self._on_gpu else "cpu"),
                self._tokenizer,
                fit_to_model(rows, self._tokenizer),
                self.judges,
                threshold=self._recipe.evaluate.threshold,
                k=k,
                samples=samples,
                temperature=temperature,
                max_new_tokens=max_new_tokens,
                batch_size=self._recipe.evaluate.batch_size,
                seed=self._recipe.run.seed,
                template_kwargs=self._template_kwargs,
                slice_by=self._recipe.task.slice_by,
                engine=engine,
                pool=self.pool,
                on_progress=on_progress,
                ranks=self._ranks,
                synced=sharded and self._ranks.count > 1,
            )
