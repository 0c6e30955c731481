"""Stage 2: `HybridTrainer`, a `GRPOTrainer` whose every step is SFT, GRPO or both, as a controller says.

Here are the clock and the step; `grpo_side` and `sft_side` have its halves, `checkpoints.hybrid` what is saved. Where
private names of TRL and transformers are touched, `PRIVATE_NAMES` lists them with the parameters that we rely on; a
test compares them with what is installed. What differs from `GRPOTrainer`:

- Prompts and demonstrations are two `Stream`s with one integer cursor each, so that resuming is exact at any step
  (TRL's sampler starts over at epoch 0, and its generation window at the step one resumes from).
- A completion is a function of the seed and its place in the run, a window's rows are trained on in a fixed order, and
  all that is saved is independent of the number of processes: two of them do what one does.
- The dataloader yields ticks; prompts are drawn when a generation is due, never on an SFT step.
- Each loss is normalised by its own token count over the whole step. Its gradient is measured before clipping and, in
  a blend, kept apart until both are known.
- The KL to the policy that training began with is measured on the rollouts, whatever `beta` is.
- A step whose gradient is not finite is skipped and counted; checkpoints appear whole or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from posttrain.controllers import Controller, Mix, Signals, State, check_mix
from posttrain.curricula import Curriculum, Sampler
from posttrain.curricula.base import summed_up
from posttrain.methods import Method
from posttrain.models.four_bit import adapters_kept
from posttrain.models.positions import count_by_mask
from posttrain.models.reference_adapter import check_adapter, reference_is_a_copy
from posttrain.models.snapshot import copy_policy
from posttrain.processes.drift import facts_of
from posttrain.processes.ranks import Ranks
from posttrain.processes.zero import check_step
from posttrain.recipe.optimizers import check_given
from posttrain.recipe.section import AGAINST_START
from posttrain.rollouts.engine import Engine
from posttrain.rollouts.seeded import seeded_rollouts
from posttrain.scoring.ahead import ScoringAhead
from posttrain.scoring.scorer import Scorer
from posttrain.training.ahead_side import check_ahead
from posttrain.training.budget import Budget
from posttrain.training.budgeted import Budgeted
from posttrain.training.checkpoints.hybrid import HybridCheckpoints
from posttrain.training.config import HybridConfig, check_arguments, check_engine_arguments, check_model
from posttrain.training.drawn import Drawn, check_curriculum, curriculum_of, stream_of
from posttrain.training.failures import SFTOnFailures
from posttrain.training.given import (
    Failures,
    check_alike,
    check_fit,
    check_prompts,
    check_same_stream,
    check_tokenizer,
    check_votes,
    controller_of,
    method_of,
    rewards_of,
    scorer_of,
)
from posttrain.training.gradnorm import add_gradients, total_norm, whole
from posttrain.training.ledger import FolderRecorder, Ledger, NewValues, Recorder, step_record
from posttrain.training.losses import matched_sft_scale
from posttrain.training.migu import RowsByMagnitude
from posttrain.training.packable import ROUTER_LOSS, in_halves, pack, warn_of_padding
from posttrain.training.padding_row import PaddingKept
from posttrain.training.row_statistics import RowStatistics
from posttrain.training.scheduled import check_own_schedule
from posttrain.training.sft_side import SFTSide
from posttrain.training.skipped import SaveLater, SkippedSteps
from posttrain.training.streams import Stream
from posttrain.training.window.kl import DistanceFromStart
from posttrain.training.zero import check_zero

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {"_get_grad_norm": ("self", "model", "grad_norm")}
"""Private methods of transformers' Trainer that are overridden here, and their leading parameters."""

PRIVATE_ATTRIBUTES = ("_is_vlm", "_metrics", "_tokenizer")
"""Private attributes of a constructed GRPOTrainer that are read or set here."""


class HybridTrainer(Budgeted, HybridCheckpoints):
    """Mix SFT on demonstrations with GRPO on verifiable rewards, step by step.

    Args:
        model, reward_funcs, args, train_dataset, *more, **kwargs: As for `trl.GRPOTrainer`; `args` is a
            `HybridConfig`, `train_dataset` has a `prompt` and the columns that the rewards take. Beside TRL's
            reward functions, which take a batch, those of one completion, `score(completion, *, answer, **row)`, are
            taken as in a recipe: in worker processes under its default limits.
        demonstrations: Rows with `prompt` and `completion`, text or messages; or tokenised rows with `input_ids` and
            `labels`. They need not share prompts with `train_dataset`, but where a method joins them.
        controller: Decides each step's mix, or the name of one that does with its defaults. Defaults to `SASR()`, and
            to `GRPOOnly()` beside a method.
        method: What GRPO steps make of a prompt's own demonstration, or its name with its defaults. Prompts are joined
            to `demonstrations` by content, or carry a column `demonstration`, a completion or a list of several.
        curriculum: Which prompt is next, or its name with its defaults; a `Sampler` where it needs pass rates. It takes
            the place of `args.shuffle_dataset`.
        g_warmup: Norm of the SFT gradient at the end of the warm-up. If the controller needs it and it is `None`, it
            is measured on a few batches before the first step.
        recorder: Takes every step's record and sampled rollouts. Defaults to `steps.jsonl` and `completions/` in
            `args.output_dir`.
        engine: What samples when `args.use_vllm` is set. Defaults to one started by `args.vllm_*`.
        agreement: Facts by name that must be the same on every process, such as hashes of the recipe and the data;
            they are compared with the rest every `args.compare_ranks_every` steps.

    Attributes:
        padded: Why rows have padding, by half (`sft`, `grpo`); halves that are packed are not in it.

    Raises:
        ConfigError: Arguments that contradict each other, before anything is trained.
        DataError, RewardError: Rows or rewards that cannot be trained on.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: HybridConfig | None = None,
        train_dataset: Dataset | None = None,
        *more: Any,
        demonstrations: Any = None,
        controller: Controller | str | None = None,
        method: Method | str | None = None,
        curriculum: Curriculum | Sampler | str | None = None,
        g_warmup: float | None = None,
        recorder: Recorder | None = None,
        engine: Engine | None = None,
        agreement: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        args = HybridConfig(output_dir="hybrid") if args is None else args
        method, drawn_by = method_of(method), curriculum_of(curriculum)
        self.controller = controller_of("grpo_only" if controller is None and method else controller)
        if not isinstance(demonstrations, Dataset | Sequence | type(None)):
            demonstrations = list(demonstrations)  # which are looked at several times
        check_arguments(args, train_dataset, demonstrations, self.controller, kwargs.get("environment_factory"), method)
        check_curriculum(drawn_by, self.controller, method, kwargs.get("environment_factory"))
        check_engine_arguments(args, kwargs)
        check_ahead(args, method, drawn_by)
        check_given((kwargs.get("optimizers") or (None,))[0], "optimizers")
        check_adapter(model, beta=args.beta)
        check_tokenizer(model, kwargs.get("processing_class") or more[1:2])
        columns = [] if train_dataset is None else train_dataset.column_names
        reward_funcs, scorer = rewards_of(reward_funcs, columns, kwargs)
        padding = PaddingKept(model)
        uses_vllm, args.use_vllm = args.use_vllm, False  # GRPOTrainer would start an engine of its own
        try:
            with adapters_kept(model), reference_is_a_copy(model):
                super().__init__(model, reward_funcs, args, train_dataset, *more, **kwargs)
        finally:
            args.use_vllm = uses_vllm
        self.use_vllm = uses_vllm
        self.add_callback(padding.built(self.model))
        check_fit(self.model, self._tokenizer)
        if not self._is_vlm and (self.environment_factories is None or "prompt" in self.train_dataset.column_names):
            check_prompts(self.train_dataset, self._tokenizer, args.chat_template_kwargs or {})
            check_alike(self.train_dataset, demonstrations or ())
        if args.max_steps <= 0:
            args.max_steps = self._steps_for_epochs(args.num_train_epochs)
            check_own_schedule(args, args.max_steps)
        self.horizon, self.budget = args.max_steps, Budget.of(args.budget)
        if self.budget is not None:
            args.max_steps = self.budget.most_steps

        self.prompts: Stream = stream_of(
            drawn_by, self.train_dataset, seed=args.seed, shuffle=bool(args.shuffle_dataset)
        )
        self.controller_state: State | None = None
        self.last_record: dict[str, Any] = {}
        self._g_warmup = g_warmup
        self._agreement = dict(agreement or {})
        self._recorder = recorder or FolderRecorder(args.output_dir)
        for scored in filter(None, (self.model, self.ref_model)):
            if not self._is_vlm:
                count_by_mask(scored)  # as rollouts are sampled
        self.padded = self._pack()
        self.sft: SFTSide | None = None
        if demonstrations is not None and self.controller.shares()[0]:
            self.sft = SFTSide(
                demonstrations,
                model=self.model,
                tokenizer=self._tokenizer,
                args=args,
                accelerator=self.accelerator,
                template_kwargs=self._template_kwargs(),
            )
            self._check_same_stream(demonstrations, scorer)
        self._statistics: RowStatistics | None = None
        if getattr(self.controller, "needs_statistics", False):
            self._statistics = RowStatistics(args.sft_weight)
            if self.sft is not None:
                self.sft.statistics = self._statistics
        self.ranks = Ranks.of(self.accelerator)
        if scorer is not None:
            scorer.ranks = self.ranks
        for judge in filter(None, map(scorer_of, self.reward_funcs)):
            judge.group = self.num_generations
            check_votes(judge, method)
        self._failures = Failures(scorer)
        self.spending = self._new_spending()
        measures_kl = args.kl_sample > 0 and self.controller.shares()[1]
        check_model(self, measures_kl=measures_kl)
        against_start = args.sft_weight in AGAINST_START
        check_zero(self, measures_kl=measures_kl, g_warmup=g_warmup, against_start=against_start)
        if self.ref_model is not None and not isinstance(model, str):
            copy_policy(self.accelerator, self.model, self.ref_model)
        self._start: DistanceFromStart | None = None
        if measures_kl or against_start:
            self._start = DistanceFromStart(self.model, args, self.ranks, sharded=self.is_fsdp_enabled)
        self._mix = Mix(0.0, 1.0)
        self._ledger, self._new_values = Ledger(), NewValues()
        self._tick = 0
        self._skips = SkippedSteps(args.max_skipped_steps, "max_skipped_steps")
        self._sft_gradients: list[torch.Tensor | None] | None = None
        self.begin_grpo()
        self.begin_method(method, demonstrations, self._template_kwargs())
        if method and self.sft is None and demonstrations is not None:
            self._check_same_stream(demonstrations, scorer)
        if self.buffer is not None:
            more_of_sft = {"model": self.model, "tokenizer": self._tokenizer, "accelerator": self.accelerator}
            self.sft = SFTOnFailures(
                self.pairs.ids, self.buffer, self._failed_rows, args=args, template_kwargs={}, **more_of_sft
            )
        if self.sft is not None:
            self.sft.start = self._start
        if uses_vllm:
            self.vllm_generation = self._engine_rollouts(engine)
        self._seeded = seeded_rollouts(self, () if self.sft is None else self.sft.texts())
        begins = method is not None and method.begins_rollouts  # what is scored is not what is sampled alone
        self._ahead = ScoringAhead(self.reward_funcs, self.processing_class, enabled=args.score_ahead and not begins)
        if args.migu is not None:
            self.add_callback(RowsByMagnitude(self.model, self.accelerator, args.migu, "migu"))
        # First in line, so that every other callback sees the finished step
        self.callback_handler.callbacks.insert(0, _StepEnd(self))
        self.callback_handler.callbacks.insert(2, SaveLater(self._skips))  # behind DefaultFlowCallback

    def _pack(self) -> dict[str, str]:
        """Prepare the policy and its reference for packed rows; why those of each half are padded, where they are."""
        reason = pack(self.model, self.args)
        if self.ref_model is not None:
            pack(self.ref_model, self.args)
        of_grpo = reason or (ROUTER_LOSS if self.aux_loss_enabled else "images beside the text" if self._is_vlm else "")
        shares = zip(("sft", "grpo"), self.controller.shares(), (reason, of_grpo), strict=True)
        padded = {half: why for half, has, why in shares if has and why}
        warn_of_padding(in_halves(padded))
        return padded

    def _template_kwargs(self) -> dict[str, Any]:
        """The arguments of the chat template by which GRPOTrainer renders prompts."""
        more = {"tools": self.tools or None, "chat_template": self.chat_template}
        return {**{name: value for name, value in more.items() if value}, **(self.args.chat_template_kwargs or {})}

    def _check_same_stream(self, demonstrations: Any, scorer: Scorer | None) -> None:
        if self._is_vlm or self.environment_factories is not None:  # their prompts are made row by row, of more
            return
        check_same_stream(
            demonstrations,
            self._tokenizer,
            ends=self.eos_token_ids,
            template_kwargs=self._template_kwargs(),
            after=self.args.demonstrations_after,
            sampled=lambda prompts: self._tokenize_prompts(prompts)[0],
            scorer=scorer,
        )

    # ---- the clock: ticks instead of data ----

    def get_train_dataloader(self) -> DataLoader:
        """One tick per micro-step. What a step trains on is drawn when its mix is known."""
        ticks = range(self.args.max_steps * self.args.gradient_accumulation_steps)
        # A generator of its own: the dataloader must not draw from the random state that sampling uses
        return DataLoader(ticks, batch_size=1, collate_fn=_tick, generator=torch.Generator())  # type: ignore[arg-type]

    def _steps_for_epochs(self, epochs: float) -> int:
        prompts_per_window = self.args.generation_batch_size // self.args.num_generations
        windows = math.ceil(epochs * len(self.train_dataset) / prompts_per_window)
        micro_steps = windows * self.args.steps_per_generation * self.args.num_iterations
        return max(1, math.ceil(micro_steps / self.args.gradient_accumulation_steps))

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Called once per optimizer step, before it: the place to decide the mix."""
        ticks, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._begin_step()
        return ticks, None

    def _begin_step(self) -> None:
        if self.controller_state is None:
            self.controller_state = self._start_controller()
        self._ledger = Ledger()
        self.spending.begin()
        if self._statistics is not None:
            self._statistics.begin()
        if self.buffer is not None:
            self.buffer.begin_step()
        self._new_values.mark(self._metrics["train"])
        # Once, on the main process: were it to differ, one process would wait for another's rollouts forever
        self._mix, self._tick = self.ranks.decided(self._decide), 0
        if self.sft and (self._mix.sft > 0.0 or self._mix.measure_sft):
            self.sft.draw(advance=self._mix.sft > 0.0)
        self._ledger.facts["learning_rate"] = self.optimizer.param_groups[0]["lr"]

    def _decide(self) -> Mix:
        assert self.controller_state is not None
        asked = self.buffer.mix() if self.buffer is not None and self._generation_due() else None
        mix = asked or self.controller.decide(self.controller_state)
        check_mix(mix, has_demonstrations=self.sft is not None)
        return mix

    def compare_ranks(self) -> None:
        """Make sure that all processes hold the same state, cursors and agreement.

        Raises:
            TrainingError: On every process, with what differs.
        """
        step = self.state.global_step
        self.ranks.agree(facts_of(self, self._agreement), at=f"after step {step}" if step else "before the first step")

    def _start_controller(self) -> State:
        controller, g_warmup = self.controller, self._g_warmup
        look = getattr(controller, "check_stage", None)
        if look is not None and (self.budget is None or self.budget.kind == "steps"):
            look(self.args.max_steps)
        if self.sft and controller.needs_g_warmup and (g_warmup or getattr(controller, "g_warmup", None)) is None:
            g_warmup = self.sft.measure_warmup_norm(self.model_wrapped)
        return self.start_of(g_warmup)

    def start_of(self, g_warmup: float | None) -> State:
        """The controller's state before the first step."""
        state = self.controller.start(total_steps=self.horizon, seed=self.args.seed, g_warmup=g_warmup)
        return state if self.budget is None else {**state, "clock": 0.0}

    # ---- one step ----

    def training_step(self, model, inputs, num_items_in_batch=None):
        """One micro-step: SFT, GRPO, or the SFT of the whole step aside and then GRPO."""
        tick, self._tick = self._tick, self._tick + 1
        mix = self._mix
        if self.sft and mix.grpo == 0.0:
            return self.sft.backward(model, tick, self._ledger)
        if self.sft and tick == 0 and (mix.sft > 0.0 or mix.measure_sft):
            self._begin_rollouts(model)
            gradients, self._ledger.facts["sft_norm"] = self.sft.backward_aside(model, self._ledger)
            self._sft_gradients = gradients if mix.sft > 0.0 else None
        with self._ledger.clock("grpo"):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self._sft_gradients is not None and self._tick == self.args.gradient_accumulation_steps:
            self._blend()
        return loss

    def _blend(self) -> None:
        """Put `sft * g_sft + grpo * g_grpo` into `.grad`, the first scaled to its share if so asked."""
        mix, sft_norm = self._mix, self._ledger.facts["sft_norm"]
        grpo_norm = total_norm(self.model.parameters())
        weight = matched_sft_scale(mix.sft, sft_norm, grpo_norm) if mix.match_norms else mix.sft
        add_gradients(self.model.parameters(), self._sft_gradients or [], scale=mix.grpo, other_scale=weight)
        self._sft_gradients = None
        self._ledger.facts |= {"grpo_norm": grpo_norm, "sft_weight": weight}

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        norm = whole(norm) if isinstance(norm, torch.Tensor) else norm
        if norm is None:  # DeepSpeed has none where it left a step out
            return None
        value = float(norm)
        facts = self._ledger.facts
        facts["grad_norm"] = value
        if not math.isfinite(value):
            check_step(self.accelerator, value, step=self.state.global_step + 1)
            self._skip_step(model)
        elif self._mix.grpo == 0.0:
            facts["sft_norm"] = value
        elif self._mix.sft == 0.0:
            facts["grpo_norm"] = value
        return norm

    def _skip_step(self, model: nn.Module) -> None:
        """Drop a gradient that is not finite: with no gradients the optimizer changes nothing."""
        self._skips.skip(model)
        losses = {"SFT": self._ledger.mean("sft_loss"), "GRPO": self._ledger.mean("grpo_loss")}
        seen = ", ".join(f"{name} loss {loss:.4g}" for name, loss in losses.items() if loss is not None)
        self._skips.check(self.state.global_step + 1, seen)

    def finish_step(self) -> None:
        """Tell the controller what the step showed, and record it. Called after the optimizer has stepped."""
        ledger = self._ledger
        ledger.reduce(self.accelerator)
        for name, value in self._drift.metrics(self.accelerator).items():
            self._metrics["train"][name].append(value)
        seen = self._new_values.means(self._metrics["train"])
        skipped = self._skips.finish_step()
        norms = (None, None) if skipped else (ledger.facts.get("sft_norm"), ledger.facts.get("grpo_norm"))
        more = {} if self._statistics is None else self._statistics.signals()
        loss = ledger.mean("sft_loss")
        signals = Signals(*norms, kl=ledger.mean("kl"), reward=seen.get("reward"), sft_loss=loss, **more)
        spent = self.spending.finish(ledger)
        assert self.controller_state is not None
        if self.budget is not None:
            self.controller_state = {**self.controller_state, "clock": self.clock}
            self._set_learning_rate()
        self.controller_state = self.controller.observe(self.controller_state, signals)
        record = step_record(self.state.global_step, self._mix, signals, ledger, seen)
        if self.method is not None:
            names = ("demonstration_loss", "demonstration_nll", *self.method.measures)
            losses = {name: ledger.mean(name) for name in names}
            waiting = self.buffer.facts() if self.buffer is not None else {}
            record["method"] = {**ledger.facts.get("method", {"name": self.method.name}), **losses, **waiting}
        if self.args.tokens:
            shown = {"share": "selected_share", "entropy": "selected_entropy", "band_loss": "band_loss"}
            record["selection"] = {key: ledger.mean(name) for key, name in shown.items()}
        if isinstance(self.prompts, Drawn):
            windows = ledger.facts.get("curriculum", [])
            named = {"name": self.prompts.sampler.curriculum.name, "windows": windows}
            record["curriculum"] = {**named, **summed_up(windows)} if windows else None
        record["tokens"]["sft"] = self.sft.tokens if self.sft and self._mix.sft > 0.0 else 0
        self.last_record = record | {
            "prompt_cursor": self.prompts.cursor,
            "demonstration_cursor": self.sft.stream.cursor if self.sft else 0,
            "controller": self.controller_state,
            "rollouts": self._rollouts,
            "skipped": skipped,
            "padded": in_halves(self.padded),
            "spent": spent,
        }
        for name in ("p", "sft_loss", "sft_trained_loss", "grpo_loss", "sft_norm", "grpo_norm"):
            if record[name] is not None:
                self._metrics["train"][f"hybrid/{name}"].append(record[name])
        if signals.kl is not None:
            self._metrics["train"]["hybrid/kl"].append(signals.kl)
        self._failures.say(self.state.global_step)
        self.record(lambda recorder: recorder.step(self.last_record))
        if self.args.compare_ranks_every and self.state.global_step % self.args.compare_ranks_every == 0:
            self.compare_ranks()


class _StepEnd(TrainerCallback):
    """Closes the trainer's books on a step, before anything logs or saves it."""

    def __init__(self, trainer: HybridTrainer):
        self._trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self._trainer._last_loaded_step = -1  # what the engine has may be from before another train()
        self._trainer._drawn_ahead = None
        recorder = self._trainer._recorder
        if isinstance(recorder, FolderRecorder):
            self._trainer.ranks.decided(lambda: recorder.forget_after(state.global_step))
        if self._trainer._start is not None:
            self._trainer._start.take(self._trainer.model)
        if self._trainer.args.compare_ranks_every:
            self._trainer.compare_ranks()

    def on_step_end(self, args, state, control, **kwargs):
        self._trainer.finish_step()
        trainer = self._trainer
        if trainer.budget is not None and trainer.ranks.decided(lambda: trainer.budget_is_over):
            control.should_training_stop = control.should_save = True


def _tick(ticks: list[int]) -> dict[str, int]:
    return {"tick": ticks[0]}
