"""The GRPO half of a hybrid step: TRL's own, with prompts from a stream, seeded rollouts, and its numbers noted.

`GRPOSide` is `GRPOTrainer` apart from where its prompts come from, what samples, and what is written down on the way;
`window.side` has how a window's rows are trained on. `PRIVATE_NAMES` lists the private names of TRL that it touches.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from torch import nn
from trl.models.utils import unwrap_model_for_generation

from posttrain.alarms.rollout_facts import rollout_facts
from posttrain.curricula.base import PROMPT_SOURCE
from posttrain.errors import ConfigError
from posttrain.inputs.tokens import without_added_end
from posttrain.models.generation import plain_generation
from posttrain.models.inference import inference
from posttrain.processes.zero import stage_of
from posttrain.recipe.adapter_serving import SLOW_ON_A_CPU
from posttrain.rollouts.engine import Engine
from posttrain.rollouts.engines import open_engine
from posttrain.rollouts.for_trl import (
    EngineRollouts,
    Place,
    coarser,
    engine_settings,
    sampling_of,
    side_by_side,
    training_dtype,
)
from posttrain.rollouts.sampling import EVALUATIONS
from posttrain.rollouts.seeded import SeededRollouts
from posttrain.scoring.ahead import ScoringAhead
from posttrain.training.by_source import by_source, source_column
from posttrain.training.drawn import Drawn, outcomes_of_window
from posttrain.training.given import scorer_of
from posttrain.training.ledger import Recorder, completion_columns, rollout_rows, without_note
from posttrain.training.length_budget import LengthBudget
from posttrain.training.spending import note_passes
from posttrain.training.spread import unscored, without_spread
from posttrain.training.streams import Stream
from posttrain.training.window import kl
from posttrain.training.window.side import WindowSide

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "_prepare_inputs": ("self", "generation_batch"),
    "_generate": ("self", "prompts"),
    "_tokenize_prompts": ("self", "prompts"),
    "_generate_single_turn": ("self", "prompt_ids", "images", "multimodal_fields", "num_generations"),
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("self", "inputs"),
}
"""Private methods of GRPOTrainer that are overridden or called here, and their leading parameters."""

PRIVATE_ATTRIBUTES = ("_step", "_buffered_inputs", "_logs", "_metrics", "_tokenizer", "_is_vlm")
"""Private attributes of a constructed GRPOTrainer that are read or set here."""

UNSCORED = (
    "none of the {count} completions of step {step} was scored by a reward, so that nothing is learned from them: does "
    "a reward function forget `return`, or return None for these rows?"
)


class Asked(NamedTuple):
    """What of this process's rows is sampled now, where it is not each of them, once and without a beginning.

    Attributes:
        limits: Most tokens of each, where they differ.
        rows: Their numbers in the window; `None` is each of the process's, one after the other.
        again: How often they were sampled before.
        idle: Whether they are sampled for nothing.
    """

    limits: list[int] | None
    rows: tuple[int, ...] | None = None
    again: int = 0
    idle: bool = False


class GRPOSide(WindowSide):
    """A `GRPOTrainer` for one half of a step. What is declared here the subclass sets.

    Attributes:
        prompts: The stream of row numbers of `train_dataset`.
    """

    prompts: Stream
    horizon: int
    _recorder: Recorder
    _start: kl.DistanceFromStart | None
    _seeded: SeededRollouts | None
    _ahead: ScoringAhead

    @property
    def clock(self) -> float:
        """Where schedules stand, in steps of `horizon`."""
        return self.state.global_step

    def begin_grpo(self) -> None:
        """Set what this half keeps between steps; after TRL's own constructor."""
        self._rollouts = self._recorded_at = 0
        self._evaluated = (0, 0)  # at which step, and how many rows since
        self._columns: list[dict[str, Any]] = []
        self._looks_at_rollouts = True
        self._without_spread: float | None = None
        self._said_unscored = False
        self._last_loaded_step = -1
        self._asked: Asked | None = None
        self._drawn_ahead: list[dict[str, Any]] | None = None
        self._prompts_taken: list[int] = []
        self._length_budget = LengthBudget.of(self.args.length_budget)
        if self._length_budget is not None and (self._is_vlm or self.environment_factories is not None):
            raise ConfigError(
                "length_budget with images or environments, whose prompts are made elsewhere",
                expected="prompts of text",
                where="length_budget",
                fix="leave it out",
            )
        self.begin_windows()

    def _prepare_inputs(self, generation_batch):
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        due = self._generation_due()
        if due:
            drawn, self._drawn_ahead = self._drawn_ahead, None
            generation_batch = self._draw_prompts() if drawn is None else drawn
        if self._is_vlm:  # images don't come one to a row; TRL shuffles them along
            return super()._prepare_inputs(generation_batch)
        if due:
            self._open_window(self._generate_and_score_completions(generation_batch), sampled=True)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _begin_rollouts(self, model: nn.Module) -> None:
        """Have a server sample the step's rollouts while the SFT half is at work here; nothing without one.

        The weights are those of the step: the SFT half changes none before the step's end.
        """
        if not (self.use_vllm and self.args.vllm_overlap and self._generation_due()):
            return
        if not self.vllm_generation.engine.samples_aside:
            return
        model.train()
        with self._ledger.clock("grpo"), self._ledger.clock("generate"):
            self._drawn_ahead = self._draw_prompts()
            prompt_ids, *_ = self._tokenize_prompts([row["prompt"] for row in self._drawn_ahead])
            if self.state.global_step != self._last_loaded_step:
                self.vllm_generation.sync_weights()
                self._last_loaded_step = self.state.global_step
            self._ahead.begin(self._drawn_ahead)
            self.vllm_generation.on_row = self._ahead.on_row
            self.vllm_generation.begin(prompt_ids, self.num_generations)

    def _generation_due(self) -> bool:
        window = self.args.steps_per_generation * self.args.num_iterations
        return self._step % window == 0 or self._buffered_inputs is None

    def _draw_prompts(self) -> list[dict[str, Any]]:
        """This process's rows of the next generation batch, each prompt `num_generations` times in a row."""
        return self._own_rows(self._draw_numbers())

    def _draw_numbers(self) -> list[int]:
        """Rows of the data set for the next generation batch, of all processes."""
        groups = self._prompts_taken = self.prompts.take(self.args.generation_batch_size // self.args.num_generations)
        return groups

    def _own_rows(self, groups: list[int]) -> list[dict[str, Any]]:
        """This process's share of the rows of groups, each prompt `num_generations` times in a row."""
        rows = [row for row in groups for _ in range(self.args.num_generations)]
        share = len(rows) // self.ranks.count
        start = self.ranks.number * share
        own = rows[start : start + share]
        if self._is_vlm:
            return [dict(self.train_dataset[row]) for row in own]
        return self._data_rows(own)

    def _data_rows(self, numbers: list[int]) -> list[dict[str, Any]]:
        """Rows of the data set by number; what one completion's reward does to its row is its own."""
        read = {number: dict(self.train_dataset[number]) for number in dict.fromkeys(numbers)}
        if self._length_budget is not None:
            share = self.clock / self.horizon
            read = {number: self._length_budget.told(row, share) for number, row in read.items()}
        return [copy.deepcopy(read[number]) for number in numbers]

    def _tokenize_prompts(self, prompts):
        ids, images, fields = self._tokenize_each_once(prompts)
        # Without the end that a tokenizer may add to any text: behind it nothing would be sampled that goes on
        return without_added_end(self._tokenizer, ids) if isinstance(prompts[0], str) else ids, images, fields

    def _tokenize_each_once(self, prompts):
        firsts = [place for place, prompt in enumerate(prompts) if not place or prompt != prompts[place - 1]]
        if self._is_vlm or self.environment_factories is not None or len(firsts) == len(prompts):
            return super()._tokenize_prompts(prompts)
        ids, images, fields = super()._tokenize_prompts([prompts[place] for place in firsts])
        if images is not None or fields:
            return super()._tokenize_prompts(prompts)
        counts = [end - start for start, end in zip(firsts, [*firsts[1:], len(prompts)], strict=True)]
        return [list(one) for one, count in zip(ids, counts, strict=True) for _ in range(count)], None, fields

    def _engine_rollouts(self, engine: Engine | None) -> EngineRollouts:
        args = self.args
        if engine is None:
            engine = open_engine(self.model, self.eos_token_ids, ranks=self.ranks, **engine_settings(args))
            adapters = getattr(engine, "adapters", None)
            if adapters is not None and adapters.said not in (None, SLOW_ON_A_CPU):
                warnings.warn(f"vLLM gets whole weights with the adapter added: {adapters.said}", stacklevel=2)
        return EngineRollouts(
            engine,
            sampling_of(args),
            policy=self.model,
            place=self._place,
            run_seed=args.seed,
            probe_every=args.vllm_probe_every,
            trainer_logps=self._logps_of,
            trainer_dtype=coarser(training_dtype(args), self.model.dtype),
            ranks=self.ranks,
        )

    def _place(self, rows: int) -> Place:
        """Where this process's rows that are sampled now stand in the run."""
        first = rows * self.ranks.number
        if self.model.training:
            place, asked = self._place_in_window(rows), self._asked
            if asked is None or asked.rows is None:
                return place
            return Place(place.window, asked.rows[0], asked.rows, asked.again)
        step, before = self._evaluated
        before = before if step == self.state.global_step else 0
        self._evaluated = (self.state.global_step, before + rows * self.ranks.count)
        return Place(EVALUATIONS + self.state.global_step, before + first)

    def _place_in_window(self, rows: int) -> Place:
        """Where as many rows of each process as it has in a window stand in the one that is due next."""
        return Place(self._rollouts // self.args.generation_batch_size, rows * self.ranks.number)

    def _logps_of(self, prompt_ids: list[list[int]], completion_ids: list[list[int]]) -> list[list[float]]:
        """The policy's own log-probabilities of completions, per token, as training computes them."""
        ids, mask, width = side_by_side(prompt_ids, completion_ids, self._tokenizer.pad_token_id, self.args.device)
        with inference(self.model):
            logps, *_ = self._get_per_token_logps_and_entropies(self.model, ids, mask, width)
        return [row[: len(sampled)].tolist() for row, sampled in zip(logps, completion_ids, strict=True)]

    def _generate(self, prompts):
        with self._ledger.clock("generate"):
            generated = super()._generate(prompts)
        self._note_engine()
        return generated

    def _note_engine(self) -> None:
        """Put down what an engine has to tell of the latest sampling, once."""
        if self.use_vllm and self.vllm_generation.overlapped:
            self._ledger.seconds["overlapped"] += self.vllm_generation.overlapped
            self.vllm_generation.overlapped = 0.0
        if self.use_vllm and self.vllm_generation.probed:
            self._ledger.facts["probe"], self.vllm_generation.probed = self.vllm_generation.probed, None

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        more = (images, multimodal_fields, num_generations, has_tool_images)
        if self._seeded is None:
            with plain_generation(self.accelerator.unwrap_model(self.model)):
                completions, logps = super()._generate_single_turn(prompt_ids, *more)
        else:
            completions, logps = self._seeded_sample(prompt_ids, num_generations), None
        if self.model.training and not (self._asked and self._asked.idle):
            lengths = (torch.tensor([len(ids) for ids in some]) for some in (prompt_ids, completions))
            note_passes(self._ledger, "sampled", *lengths, group=self.num_generations)
        return completions, logps

    def _seeded_sample(self, prompt_ids, num_generations):
        assert self._seeded is not None
        with unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            gather_deepspeed3_params=self.args.ds3_gather_for_generation,
            gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
        ) as policy:
            place, synced = self._place(len(prompt_ids)), True if self.is_fsdp_enabled else None
            limits = None if self._asked is None else self._asked.limits
            sample = partial(
                self._seeded.sample, policy, prompt_ids, place, group=num_generations, synced=synced, limits=limits,
                on_row=self._ahead.on_row,
            )  # fmt: skip
            if synced or stage_of(self.accelerator) == 3:
                return sample()  # the others wait for this process's shards, not for its error
            return self.ranks.together(sample)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        with self._ledger.clock("score"):
            self._finish_ahead()
            with self._groups_of(self.num_generations if self.model.training else self.num_generations_eval):
                rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        ends = {*self.eos_token_ids, self._tokenizer.pad_token_id}
        self._columns = completion_columns(self.reward_funcs, completion_ids_list, ends)
        self._note_sources(inputs)
        if self.model.training:
            self._look_at(rewards)
            if isinstance(self.prompts, Drawn):
                self._observe(self.prompts, *self._taken(rewards))
        return rewards

    def _note_sources(self, inputs: Sequence[Mapping[str, Any]]) -> None:
        """Put each completion's source beside what it scored, where rows say where they are from."""
        drawn_by = self.prompts.sampler.curriculum if isinstance(self.prompts, Drawn) else None
        column = source_column(list(inputs[0]), drawn_by) if inputs else None
        for columns, row in zip(self._columns, inputs, strict=True):
            if column is not None and column in row:
                columns[PROMPT_SOURCE] = str(row[column])

    @contextmanager
    def _groups_of(self, size: int) -> Iterator[None]:
        """Tell rewards that vote in a group how many rows one has: an evaluation may have others."""
        scorers = [scorer for function in self.reward_funcs if (scorer := scorer_of(function))]
        for scorer in scorers:
            scorer.group = size
        try:
            yield
        finally:
            for scorer in scorers:
                scorer.group = self.num_generations

    def _finish_ahead(self) -> None:
        """Everything is sampled that is to be scored now."""
        seconds = self._ahead.finish()
        if self._ahead.on_row is not None:  # then in every line, also where no worker was done in time
            self._ledger.seconds["scored_ahead"] += seconds

    def _taken(self, rewards: torch.Tensor) -> tuple[list[int], torch.Tensor]:
        """The prompts that a window took from the stream, and the rewards of all their rollouts, given the window's."""
        return self._prompts_taken, rewards

    def _observe(self, prompts: Drawn, rows: list[int], rewards: torch.Tensor) -> None:
        """Tell the curriculum what a window gave; the same on every process, whose rewards are gathered."""
        weights = self.reward_weights.to(rewards.device)
        with self._ledger.clock("curriculum"):
            window = prompts.observe(outcomes_of_window(rows, rewards, weights, self.summed))
        self._ledger.facts["curriculum"] = [*self._ledger.facts.get("curriculum", ()), window]

    def summed(self, rewards: torch.Tensor) -> torch.Tensor:
        """(N,) rewards of all processes' rows, weighted and summed; NaN where no reward applies."""
        total = (rewards * self.reward_weights.to(rewards.device)).nansum(dim=1)
        return total.masked_fill(rewards.isnan().all(dim=1), float("nan"))

    def _look_at(self, rewards: torch.Tensor) -> None:
        """Note how many completions, of all processes, no reward scored, and how many groups have no spread."""
        share = float(unscored(rewards).float().mean())
        self._ledger.facts["unscored_share"] = share
        self._without_spread = float(self._dead(rewards).float().mean())
        if share == 1.0 and not self._said_unscored:
            self._said_unscored = True
            # A run silences TRL, which tells of one such completion, and has alarms instead
            if self.ranks.is_main and logging.getLogger("trl").isEnabledFor(logging.WARNING):
                warnings.warn(UNSCORED.format(count=len(rewards), step=self.state.global_step + 1), stacklevel=2)

    def _dead(self, rewards: torch.Tensor) -> torch.Tensor:
        """(B / G,) which groups, of all processes, have no spread in their rewards (B, F)."""
        return without_spread(
            rewards,
            self.reward_weights.to(rewards.device),
            group=self.num_generations,
            summed=self.multi_objective_aggregation == "sum_then_normalize",
        )

    def _generate_and_score_completions(self, inputs):
        if self.use_vllm:
            self.vllm_generation.on_row = self._ahead.on_row
        with self._ahead.batch(inputs):
            output = super()._generate_and_score_completions(inputs)
        if self.model.training:
            if self._without_spread is not None:  # TRL has appended its own count just now
                self._metrics["train"]["frac_reward_zero_std"][-1] = self._without_spread
            self._rollouts += self.args.generation_batch_size
            self._record_completions()
            if self._start is not None and self.args.kl_sample > 0:
                with self._ledger.clock("kl"):
                    policy = self.accelerator.unwrap_model(self.model)
                    output[kl.NAME] = self._start.score(policy, output, self._score)
        return output

    def _score(self, ids: torch.Tensor, mask: torch.Tensor, width: int) -> torch.Tensor:
        logps, *_ = self._get_per_token_logps_and_entropies(
            self.model, ids, mask, width, batch_size=self.args.per_device_train_batch_size
        )
        return logps

    def _record_completions(self) -> None:
        """Note what the generation shows, and keep its completions if it is time to."""
        step, every = self.state.global_step + 1, self.args.completions_every
        # The first generation that is due: SFT steps and long windows leave the exact step without one
        due = every and not (self._recorded_at and step // every == self._recorded_at // every)
        if due:
            self._recorded_at = step
        own = self._columns if due else [without_note(row) for row in self._columns]  # notes may be long
        columns = gather_object(own)

        def write(recorder: Recorder) -> None:
            rows = rollout_rows(step, self._logs, columns)
            self._ledger.facts["sampled"] = self._facts_of(rows)
            self._ledger.facts["by_source"] = by_source(rows, self._weights)
            if due:
                recorder.completions(step, self._recorded(rows))

        self.record(write)

    def _recorded(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows of a generation as `completions/` has them."""
        return rows

    def _facts_of(self, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
        """What the alarms look at. Where that fails it is said once, and left out from then on: training goes on."""
        if not self._looks_at_rollouts:
            return None
        try:
            return rollout_facts(rows, group=self.num_generations, weights=self._weights)
        except Exception as error:
            self._looks_at_rollouts = False
            warnings.warn(
                f"alarms do not see the completions any more, for this failed: {type(error).__name__}: {error}",
                stacklevel=2,
            )
            return None

    @property
    def _weights(self) -> dict[str, float]:
        """Of the rewards, by name."""
        names = self.reward_func_names
        return dict(zip(names, self.args.reward_weights or [1.0] * len(names), strict=True))

    def last_rollouts(self) -> list[dict[str, Any]]:
        """Those of the newest rollouts that the main process scored, as `rollout_rows`; there, and on no other."""
        return rollout_rows(self.state.global_step, self._logs, self._columns)

    def record(self, write: Callable[[Recorder], Any]) -> None:
        """Have the main process's recorder write; a disk that is full ends all processes by its error."""
        self.ranks.on_main(lambda: write(self._recorder))
