"""vLLM under `GRPOTrainer`: what the trainer asks of its `VLLMGeneration`, answered by an engine of ours."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from trl.trainer.utils import pad

from posttrain.errors import ConfigError
from posttrain.processes.ranks import Ranks
from posttrain.rollouts.engine import ALONE, Engine
from posttrain.rollouts.probe import TOKENS, ProbeResult, bounds_for, probe
from posttrain.rollouts.sampling import Sampled, Sampling, request_seed

TokenIds = list[int]


PROBED = 8
"""Prompts that a probe samples after."""


class Place(NamedTuple):
    """Where a batch of rows stands in the run.

    Attributes:
        window: The generation's number.
        first_row: The first row's number in it.
        rows: The rows' numbers, where they don't follow one another.
        again: How often these rows were sampled in this generation before.
    """

    window: int
    first_row: int
    rows: tuple[int, ...] | None = None
    again: int = 0

    def numbers(self, count: int) -> Sequence[int]:
        """Of each of so many rows."""
        return range(self.first_row, self.first_row + count) if self.rows is None else self.rows

    def child(self, row: int, group: int) -> int:
        """Which of its prompt's completions this row asks for; another one each time that it is sampled."""
        return row % group + self.again * group


@dataclass(frozen=True)
class _Begun:
    """Sampling that is under way: for which rows, since when, and the function that waits for them."""

    place: Place
    prompts: list[TokenIds]
    group: int
    began: float
    collect: Callable[[], list[Sampled]]


class EngineRollouts:
    """Takes the place of a trainer's `vllm_generation`.

    One request per prompt asks for its whole group, with a seed made of the run's seed, the window and the prompt: what
    is sampled depends neither on the order of the requests nor on the processes that share them, and a run that resumes
    samples what it would have sampled.

    Several processes call `sync_weights`, `begin` and `generate` equally often; each samples its own rows, and an error
    of one is raised on all of them.

    Args:
        engine: What samples.
        sampling: Temperature and the like, and the limit on a completion's length.
        policy: The model whose weights the engine gets.
        place: Given how many rows are asked for, where they stand in the run.
        run_seed: Of all seeds.
        probe_every: Loads of weights between probes; 0 probes after the first only. Where the engine adds the
            adapter itself there is one more after 2, 4, 8, ... loads.
        trainer_logps: The trainer's own log-probabilities of completions, per token, for the probe.
        trainer_dtype: What the trainer computes them in.
        ranks: The processes that share the rows.

    Attributes:
        overlapped: Seconds that the latest sampling was under way before it was waited for; 0 where none was begun.
        probed: What the latest probe found, until someone takes it.
        limits: Most tokens of each row that is sampled next, where they differ; `None` is the sampling's own limit.
        on_row: Called with a row's number and its completion's token ids when its prompt's completions have ended and
            others are still being sampled; from whatever thread.
    """

    def __init__(
        self,
        engine: Engine,
        sampling: Sampling,
        *,
        policy: Any,
        place: Callable[[int], Place],
        run_seed: int,
        probe_every: int,
        trainer_logps: Callable[[list[TokenIds], list[TokenIds]], list[list[float]]],
        trainer_dtype: torch.dtype,
        ranks: Ranks = ALONE,
    ):
        self.engine, self.sampling, self.policy, self.place = engine, sampling, policy, place
        self.run_seed, self.probe_every = run_seed, probe_every
        self.trainer_logps, self.trainer_dtype, self.ranks = trainer_logps, trainer_dtype, ranks
        self.loads = 0
        self.overlapped = 0.0
        self.limits: Sequence[int] | None = None
        self.on_row: Callable[[int, TokenIds], None] | None = None
        self.probed: ProbeResult | None = None
        self._probed_at: int | None = None
        self._begun: _Begun | None = None
        self._next: _Begun | None = None

    def sync_weights(self) -> None:
        """Push the policy's weights to the engine. The trainer calls this when they changed and rollouts are due."""
        self._begun = None
        self.ranks.together(lambda: self.engine.load(self.policy))
        self.loads += 1

    def begin(self, prompts: Sequence[TokenIds], num_generations: int) -> None:
        """Start what `generate` of the same prompts will wait for. The weights must be there already.

        Args:
            prompts, num_generations: As for `generate`.

        Raises:
            TrainingError: As `generate`, where it is known already.
        """
        place = self.place(len(prompts))
        began = time.perf_counter()
        collect = self.ranks.together(lambda: self._ask(place, list(prompts), num_generations))
        self._begun = _Begun(place, [list(ids) for ids in prompts], num_generations, began, collect)

    def begin_next(self, prompts: Sequence[TokenIds], num_generations: int) -> None:
        """Start what a later `generate` of the same prompts in their place will take, whatever weights come in between.

        The engine's weights are compared with the policy's now, if that is due, for they will not be the same then.

        Args:
            prompts, num_generations: As for `generate`.

        Raises:
            TrainingError: As `generate`.
        """
        if self._probe_due():
            self._probe(prompts)
        place, began, self.on_row = self.place(len(prompts)), time.perf_counter(), None
        collect = self.ranks.together(lambda: self._ask(place, list(prompts), num_generations))
        self._next = _Begun(place, [list(ids) for ids in prompts], num_generations, began, collect)

    def wait_for_next(self) -> list[Sampled]:
        """What `begin_next` began, once it is there; the later `generate` takes it as well.

        Raises:
            TrainingError: The engine failed; on this process alone.
        """
        assert self._next is not None
        rows = self._next.collect()
        self._next = replace(self._next, collect=lambda: rows)
        return rows

    def restore_next(
        self, place: Place, prompts: Sequence[TokenIds], num_generations: int, sampled: Sequence[Sampled]
    ) -> None:
        """What `wait_for_next` gave, in another process: a later `generate` of these prompts in this place takes it."""
        rows = list(sampled)
        self._next = _Begun(place, [list(ids) for ids in prompts], num_generations, time.perf_counter(), lambda: rows)

    def generate(
        self,
        prompts: Sequence[TokenIds],
        images: Any,
        num_generations: int,
        profiler: AbstractContextManager[Any] | None = None,
    ) -> tuple[list[TokenIds], list[TokenIds], list[list[list[float]]], None]:
        """Sample a completion for each row, or wait for those that `begin` asked for.

        Args:
            prompts: Token ids of each row's prompt, each prompt `num_generations` rows in a row.
            images: Must be `None`.
            num_generations: Rows per prompt, G.
            profiler: Entered while the engine samples.

        Returns:
            Prompt ids, completion ids, log-probabilities of the sampled tokens as [row][token][0], and nothing.

        Raises:
            TrainingError: The engine died, took too long, or does not sample from the policy.
        """
        if images is not None:
            raise ConfigError("images in the prompts", expected="text", where="rollout.engine", fix="set transformers")
        place = self.place(len(prompts))
        ahead = self._next is not None and self._next.place == place
        if ahead:
            self._begun, self._next = self._next, None
        with profiler or nullcontext():
            sampled = self.ranks.together(lambda: self._sample(place, list(prompts), num_generations))
        if not ahead and self._probe_due():
            self._probe(prompts)
        self.engine.sleep(level=1)  # with its weights: rollouts may be due again before they change
        return list(prompts), [row.token_ids for row in sampled], [[[p] for p in row.logprobs] for row in sampled], None

    def _probe(self, prompts: Sequence[TokenIds]) -> None:
        """Compare the engine's log-probabilities with the trainer's behind a few of these prompts."""
        places = {tuple(ids): place for place, ids in reversed(list(enumerate(prompts)))}  # of each the first
        few = sorted(places.values())[:PROBED]
        self.probed = probe(
            self.engine,
            self.trainer_logps,
            [list(prompts[place]) for place in few],
            temperature=self.sampling.temperature,
            bounds=bounds_for(self.engine.dtype, self.trainer_dtype),
            run_seed=self.run_seed,
            tokens=min(TOKENS, len(few) * self.sampling.max_tokens),  # what a rollout's length leaves room for
            limits=None if self.limits is None else [self.limits[place] for place in few],
            ranks=self.ranks,
        )
        self._probed_at = self.loads

    def _sample(self, place: Place, prompts: list[TokenIds], group: int) -> list[Sampled]:
        begun, self._begun, self.overlapped = self._begun, None, 0.0
        if begun is None:
            return self._ask(place, prompts, group)()
        if (begun.place, begun.prompts, begun.group) != (place, prompts, group):
            # The weights are those of this step, so that nothing is wrong but the time
            warnings.warn("rollouts were begun for other prompts than are due now; sampling again", stacklevel=2)
            begun.collect()  # while these run, no weights could be sent
            return self._ask(place, prompts, group)()
        self.overlapped = time.perf_counter() - begun.began
        return begun.collect()

    def _ask(self, place: Place, prompts: list[TokenIds], group: int) -> Callable[[], list[Sampled]]:
        """Have the engine begin; the function that is returned waits for a completion of each row."""
        rows, every = place.numbers(len(prompts)), self._in_a_request(place, prompts, group)
        seeds = [
            request_seed(self.run_seed, place.window, row // group) + place.child(row, group) for row in rows[::every]
        ]
        sampling, on_row = replace(self.sampling, n=every), self.on_row

        def on_prompt(place: int, sampled: list[Sampled]) -> None:
            for number, one in enumerate(sampled, start=place * every):
                on_row(number, one.token_ids)  # type: ignore[misc]

        # An engine of before there was `on_prompt` goes on working where nobody asks for it
        early: dict[str, Any] = {} if on_row is None else {"on_prompt": on_prompt}
        if self.limits is not None:
            early["limits"] = list(self.limits[::every])
        collect = self.engine.begin(prompts[::every], seeds, sampling, **early)
        return lambda: [one for some in collect() for one in some]

    def _in_a_request(self, place: Place, prompts: list[TokenIds], group: int) -> int:
        """Rows of one request: those of a group that stand side by side and begin alike.

        Where that is not everywhere the same number, each row has its own request, and is sampled the same.
        """
        rows = place.numbers(len(prompts))
        lengths: list[int] = []
        for number, row in enumerate(rows):
            follows = number and row == rows[number - 1] + 1 and row % group and prompts[number] == prompts[number - 1]
            if follows:
                lengths[-1] += 1
            else:
                lengths.append(1)
        return lengths[0] if len(set(lengths)) == 1 else 1

    def _probe_due(self) -> bool:
        if self._probed_at is None:
            return True
        if self.probe_every and getattr(self.engine, "adds_adapters", False) and self._doubled():
            return True  # a new adapter adds nothing: look again after 2, 4, 8, ... transfers while it grows
        return bool(self.probe_every) and self.loads - self._probed_at >= self.probe_every

    def _doubled(self) -> bool:
        """Whether this load is number 1, 2, 4, 8, ..., and was not looked at yet."""
        return self.loads != self._probed_at and self.loads & (self.loads - 1) == 0


def sampling_of(args: Any) -> Sampling:
    """How a `GRPOConfig` wants completions sampled."""
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    return Sampling(max_tokens=args.max_completion_length, **{name: getattr(args, name) for name in names})


def engine_settings(args: Any) -> dict[str, Any]:
    """The arguments of `open_engine` in a `HybridConfig`."""
    of_servers = ("mode", "server_base_url", "weights_transfer", "weights_folder")
    names = (*of_servers, "gpu_memory_utilization", "max_model_length", "enable_sleep_mode", "time_limit_s", "lora")
    settings = {name: getattr(args, f"vllm_{name}") for name in names}
    return {**settings, "dtype": str(training_dtype(args)).removeprefix("torch."), "seed": args.seed}


def training_dtype(args: Any) -> torch.dtype:
    """What a trainer of these arguments computes in."""
    return torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32


def coarser(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype with the larger rounding errors."""
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)


def side_by_side(
    prompt_ids: list[TokenIds], completion_ids: list[TokenIds], fill: int, device: Any
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Token ids (B, P + C) and mask of prompts padded on the left and completions on the right, and C."""
    prompts, completions = ([torch.tensor(ids, device=device) for ids in some] for some in (prompt_ids, completion_ids))
    masks = pad([torch.ones_like(x) for x in prompts], 0, "left"), pad([torch.ones_like(x) for x in completions], 0)
    ids = pad(prompts, fill, "left"), pad(completions, fill)
    return torch.cat(ids, dim=1), torch.cat(masks, dim=1), ids[1].size(1)
