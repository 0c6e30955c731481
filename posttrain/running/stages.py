"""The stages of a run: start -> warm-up -> hybrid -> final, each skipped when it is done already.

A stage begins from files that the stage before left behind, never from what is in memory, so a run that was killed
and resumed goes through the same states as one that was not.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, set_seed

from posttrain import alarms
from posttrain.curricula import Sampler
from posttrain.errors import DataError, RewardError, TrainingError
from posttrain.evaluation.angles import Angles, Passes, measured_angles
from posttrain.evaluation.curriculum import measured
from posttrain.evaluation.examiner import Examiner
from posttrain.inputs.curriculum import Columns, names_of
from posttrain.inputs.data import as_table, fit_to_model, numbered_demonstrations, with_demonstrated
from posttrain.inputs.misfits import HALF_PRECISION_FIX, half_precision
from posttrain.processes.ranks import Ranks
from posttrain.recipe.recipe import Recipe
from posttrain.recipe.stage_sections import AverageSection
from posttrain.report.report import write_report
from posttrain.rollouts.vllm_build import Unserved
from posttrain.rundir.shared import SharedRunDir
from posttrain.running.alarm_callback import AlarmCallback, raise_of_evaluations
from posttrain.running.arguments import hybrid_arguments, warmup_arguments
from posttrain.running.averages import average_checkpoints, check_whole
from posttrain.running.callbacks import (
    AroundHybrid,
    RewardFailures,
    SendToTrackers,
    SettingsOfRecipe,
    ShowWarmup,
    StopRequest,
    StopWhenAsked,
    count_failures,
)
from posttrain.running.outcome import outcome
from posttrain.running.policies import Policies, save_whole, whole_state
from posttrain.running.rank_budgets import rank_budget
from posttrain.scoring.score import Reward
from posttrain.scoring.scorer import Scorer, trl_reward_functions
from posttrain.storage.checkpoints import MANIFEST, staged, step_of
from posttrain.storage.files import read_lines, write_text
from posttrain.tasks import TaskData
from posttrain.training.checkpoints.resume_state import budget_was_over
from posttrain.training.packable import in_halves, padded_in_words
from posttrain.training.skipped import skipped_in_words
from posttrain.training.trainer import HybridTrainer
from posttrain.training.warmup import Warmup, warm_up
from posttrain.watching.progress import Progress
from posttrain.watching.quiet import quiet_about_tied
from posttrain.watching.trackers import RecordsAndSends, trackers_of


class Stages:
    """One session of a run: the stages, and what they share."""

    def __init__(
        self,
        recipe: Recipe,
        data: TaskData,
        rewards: list[Reward],
        run_dir: SharedRunDir,
        progress: Progress,
        ranks: Ranks,
        agreement: dict[str, str],
        stop_after: int | None = None,
        *,
        may_change_engine: bool = False,
    ):
        self.recipe, self.data, self.rewards, self.dir, self.progress = recipe, data, rewards, run_dir, progress
        self.ranks, self.agreement = ranks, agreement
        self.stop = StopRequest(ranks, run_dir.path, stop_after)
        # The recipe says what is computed in, on one process as on several; a launcher's settings would take its place
        os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
        if recipe.run.threads:
            torch.set_num_threads(recipe.run.threads)
        self.policies = Policies(recipe, data, run_dir, progress.message, ranks)
        self.tokenizer, self.on_gpu = self.policies.tokenizer, self.policies.on_gpu
        # What the engine is stays open until rollouts were sampled by it
        open_ended = may_change_engine and run_dir.latest_checkpoint("hybrid") is None
        instead = self._without_vllm if open_ended else None
        self.examiner = Examiner(
            recipe, data, rewards, self.tokenizer, on_gpu=self.on_gpu, ranks=ranks, instead=instead
        )
        self.trackers = trackers_of(recipe, run_dir, progress.message, ranks, send_again=bool(run_dir.changes))
        self.recorder = RecordsAndSends(run_dir, self.trackers)

    def carry_out(self) -> None:
        """Every stage that is not done yet."""
        started = time.monotonic()
        self.progress.message(f"{self._opening()}, sampling with {self.recipe.rollout.engine}")
        for note in self.data.notes:
            self.progress.message(note)
        if said := half_precision(self.recipe, on_gpu=self.on_gpu):
            self.progress.message(f"{said}; {HALF_PRECISION_FIX}")
        with self.stop.listening(self.progress.message), self.examiner, self.trackers:
            try:
                if self.recipe.evaluate.at_start:
                    self._evaluate_once("start", 0, lambda: self.policies.load(self.policies.source))
                    self.stop.check()
                self._warm_up()
                self._hybrid()
            except BaseException:
                with suppress(Exception):  # the page must not hide why the run stopped
                    self._tell_alarms()
                    self._report()
                raise
            self.ranks.decided(self._report)
        failures = self.ranks.decided(lambda: count_failures(self.dir.errors_file))
        if failures:
            self.progress.message(f"rewards failed {failures} times in this run: see {self.dir.errors_file}")
        for note in self.ranks.decided(lambda: skipped_in_words(self.dir.steps_file)):
            self.progress.message(note)
        self.ranks.on_main(self._tell_alarms)
        for line in self.ranks.decided(lambda: outcome(self.dir, time.monotonic() - started)):
            self.progress.message(line)

    def _without_vllm(self, why: Unserved) -> Recipe:
        """The recipe that samples with transformers, which the run directory takes down."""
        self.progress.message(f"{why.seen}; rollout.engine is auto, so transformers samples instead")
        rollout = self.recipe.rollout.model_copy(update={"engine": "transformers"})
        self.recipe = self.recipe.model_copy(update={"rollout": rollout})
        self.dir.settle_engine("transformers")
        return self.recipe

    def _tell_alarms(self) -> None:
        if self.ranks.is_main:
            for line in alarms.summary(alarms.read(self.dir.path)):
                self.progress.message(line)

    def _report(self) -> None:
        if self.ranks.is_main and self.dir.recipe_file.exists():  # else the directory was removed under the run
            write_report(self.dir.path)

    def _opening(self) -> str:
        if not self.dir.resumed:
            return f"starting {self.dir.path}"
        for stage, steps in stages_of(self.recipe):
            if self.dir.done(stage) is None:
                checkpoint = self.dir.latest_checkpoint(stage)
                at = f"after step {step_of(checkpoint)} of {steps}" if checkpoint else "from its beginning"
                return f"resuming {self.dir.path}: {stage} {at}"
        return f"resuming {self.dir.path}: only the final evaluation is left"

    # ---- stages ----

    def _warm_up(self) -> None:
        section = self.recipe.warmup
        if section.steps == 0:
            return
        if self.dir.done("warmup") is None:
            checkpoint = self._last_checkpoint("warmup")
            set_seed(self.recipe.run.seed)
            model = self.policies.fresh()
            quiet_about_tied(model)
            args = warmup_arguments(self.recipe, self.dir.checkpoints("warmup"), on_gpu=self.on_gpu)
            result = warm_up(
                model,
                self.tokenizer,
                self._demonstrations,
                args,
                norm_window=section.window(),
                recorder=self.recorder,
                callbacks=[*self._callbacks(), *rank_budget(self.recipe, section.steps), ShowWarmup(self.progress)],
                checkpoint=checkpoint,
                on_end=self._save_warmup,
                max_skipped_steps=section.max_skipped_steps,
                packed=section.packed,
                on_start=lambda trainer: self._tell_padding("warm-up", trainer.padded),
                migu=section.migu,
                sft_weight=section.sft_weight,
                sft_tries=section.sft_tries,
                curriculum=self._sampler_of_demonstrations(),
                old=self.policies.old(),
            )
            self.dir.mark_done("warmup", vars(result))
        self.progress.finish("warmup")
        steps = (self.dir.done("warmup") or {})["steps"]
        self._evaluate_once("warmup", steps, lambda: self.policies.load(self.dir.warmup_model))
        self.stop.check()

    def _save_warmup(self, trainer: Any) -> None:
        if trainer.state.global_step < self.recipe.warmup.steps:  # else nothing is left to go on with: keep it
            self.stop.check()
            raise ended_early("warmup", trainer.state.global_step, self.recipe.warmup.steps)
        policy = trainer.accelerator.unwrap_model(trainer.model)
        save_whole(self.dir.warmup_model, policy, self.tokenizer, ranks=self.ranks, state_dict=whole_state(trainer))

    def _hybrid(self) -> None:
        if self.dir.done("hybrid") is None:
            steps = self._train_hybrid() if self.recipe.hybrid.steps else self._hand_on_warmup()
            self.dir.mark_done("hybrid", {"steps": steps})
            self.stop.check()
        steps = (self.dir.done("hybrid") or {})["steps"]
        if steps and self.recipe.hybrid.budget:
            spent = " and ".join(f"{amount:g} {kind}" for kind, amount in self.recipe.hybrid.budget.given().items())
            self.progress.message(f"hybrid ended after step {steps}: its budget of {spent} is spent")
        elif steps < self.recipe.hybrid.steps:
            why = ": hybrid.time_limit_s is spent" if self.recipe.hybrid.time_limit_s is not None else ""
            self.progress.message(f"hybrid ended after step {steps} of {self.recipe.hybrid.steps}{why}")
        elif steps:
            self.progress.finish("hybrid")
        if steps and self.recipe.hybrid.average:
            self._average(self.recipe.hybrid.average, steps)
        self._evaluate_once("final", steps, lambda: self.policies.load(self.dir.model))
        self.dir.mark_done("final")

    def _average(self, section: AverageSection, steps: int) -> None:
        """Write the average of the last checkpoints, and evaluate it beside the final model."""
        if self.dir.done("averaged") is None:
            self.stop.check()
            of = self.ranks.decided(lambda: average_checkpoints(self.recipe, self.dir, self.progress.message))
            self.dir.mark_done("averaged", {"checkpoints": of, "ratios": section.ratios(len(of))})
        self._evaluate_once("averaged", steps, lambda: self.policies.load(self.dir.averaged_model))

    def _train_hybrid(self) -> int:
        checkpoint, warmed = self._last_checkpoint("hybrid"), self.dir.done("warmup")
        set_seed(self.recipe.run.seed)
        model = self.policies.load(self.dir.warmup_model) if warmed else self.policies.fresh()
        quiet_about_tied(model)
        trainer, failures = self._trainer(model, checkpoint, Warmup(**_only(Warmup, warmed)) if warmed else None)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except RewardError:
            failures.write(trainer.state.global_step + 1)
            raise
        if trainer.state.global_step < trainer.state.max_steps:
            self.stop.check()
        ended = trainer.budget_is_over or self._time_is_up(self.dir.seconds_of("hybrid"))
        if (trainer.budget is not None or trainer.state.global_step < trainer.horizon) and not ended:
            raise ended_early("hybrid", trainer.state.global_step, self.recipe.hybrid.steps)
        policy = trainer.accelerator.unwrap_model(trainer.model)
        save_whole(self.dir.model, policy, self.tokenizer, ranks=self.ranks, state_dict=whole_state(trainer))
        return trainer.state.global_step

    def _hand_on_warmup(self) -> int:
        """Without a hybrid stage the warmed-up model is the final one."""

        def copy() -> None:
            name = self.dir.model.name
            with staged(self.dir.path, name) as staging:
                shutil.copytree(self.dir.warmup_model, staging / name, ignore=shutil.ignore_patterns(MANIFEST))

        self.ranks.decided(copy)
        return 0

    def _trainer(
        self, model: Any, checkpoint: Path | None, warmed: Warmup | None
    ) -> tuple[HybridTrainer, RewardFailures]:
        recipe, section = self.recipe, self.recipe.hybrid
        last_step = step_of(checkpoint) if checkpoint else 0
        spent_s = self.dir.seconds_of("hybrid")
        scorer = Scorer(
            self.rewards,
            max_error_rate=recipe.scoring.max_error_rate,
            pool=self.examiner.pool,
            ranks=self.ranks,
        )
        args = hybrid_arguments(recipe, self.dir.checkpoints("hybrid"), scorer.weights, on_gpu=self.on_gpu)
        if checkpoint and self._time_is_up(spent_s):
            args.max_steps = last_step  # stopped or killed at its end: load the checkpoint, and no step more
        if checkpoint and budget_was_over(args.budget, checkpoint):
            args.max_steps, args.budget = last_step, None
        engine = self.examiner.engine(model)
        adapters = getattr(engine, "adapters", None)
        if adapters is not None and (said := adapters.in_words(model)):
            self.progress.message(said)
        rows = self._prompts()
        prompts = as_table(fit_to_model(rows, self.tokenizer))
        trainer = HybridTrainer(
            model,
            trl_reward_functions(scorer),
            args,
            prompts,
            processing_class=self.tokenizer,
            demonstrations=self._demonstrations_of_hybrid(),
            controller=section.controller,
            method=section.method,
            curriculum=self._sampler(rows, prompts),
            g_warmup=warmed.g_warmup if warmed else None,
            recorder=self.recorder,
            engine=engine,
            agreement=self.agreement,
            callbacks=self._callbacks(),
        )
        check_whole(recipe, trainer)
        self.policies.check_average(model)
        self._tell_padding("hybrid", in_halves(trainer.padded))
        if trainer.sft and warmed:
            trainer.sft.stream.cursor = warmed.demonstration_cursor
        for callback in rank_budget(recipe, None if warmed else trainer.horizon, trainer):
            trainer.add_callback(callback)
        trainer.remove_callback(PrinterCallback)
        if trainer.method:
            self.progress.message(f"method {trainer.method.name}: {trainer.pairs.in_words()}")
        failures = RewardFailures(
            scorer, self.dir.errors_file, last_step=last_step, say=self.progress.message, ranks=self.ranks
        )
        trainer.add_callback(failures)
        trainer.add_callback(AlarmCallback(trainer, self.dir.path, say=self.progress.alarm, recipe=True))
        policy = trainer.accelerator.unwrap_model(trainer.model)
        trainer.add_callback(
            AroundHybrid(
                trainer,
                self.progress,
                lambda step: self._evaluate_once("hybrid", step, lambda: policy),
                every=recipe.evaluate.every,
                times=recipe.evaluate.times,
                time_limit_s=section.time_limit_s,
                spent_s=spent_s,
                ranks=self.ranks,
                run=self.dir,
            )
        )
        return trainer, failures

    # ---- parts of stages ----

    def _callbacks(self) -> list[TrainerCallback]:
        """Those of both stages."""
        return [SettingsOfRecipe(), StopWhenAsked(self.stop), SendToTrackers(self.trackers)]

    def _tell_padding(self, stage: str, why: str | None) -> None:
        if why:
            self.progress.message(f"{stage}: {padded_in_words(why)}")

    def _time_is_up(self, spent_s: float) -> bool:
        """Whether the hybrid stage has taken its time limit."""
        limit = self.recipe.hybrid.time_limit_s
        return limit is not None and spent_s >= limit

    def _evaluate_once(self, stage: str, step: int, model: Callable[[], Any]) -> None:
        if not self.dir.evaluated(stage, step):
            self._evaluate(stage, step, model())

    def _demonstrations_of_hybrid(self) -> Any:
        """Tokenised as in the warm-up; as they are for a method, which joins them to prompts."""
        section = self.recipe.hybrid
        if section.method:
            return fit_to_model(self.data.demonstrations, self.tokenizer)
        return self._demonstrations if section.controller.shares()[0] else None

    def _prompts(self) -> list[Any]:
        """What the rollouts are drawn from."""
        if self.recipe.hybrid.method:
            return with_demonstrated(self.data)
        # A controller that never samples may come without prompts, GRPOTrainer may not
        return self.data.train or self.data.demonstrations

    def _sampler(self, rows: list[Any], prompts: Dataset) -> Sampler | None:
        """The curriculum over the prompts, which it leaves in the run's directory for whoever replays its draws."""
        curriculum = self.recipe.hybrid.curriculum
        if curriculum is None:
            return None
        rates = self._pass_rates(curriculum, rows) if curriculum.completions else None
        states, took = self._angles(curriculum, rows) if curriculum.prefills else (None, None)
        try:
            sampler = Sampler(curriculum, curriculum.table(prompts, prompts.column_names, rates, states))
        except DataError as error:
            error.shared = self.ranks.count > 1  # all processes have the same rows
            raise
        if rates is not None:
            solved, orders = sum(rate > 0 for rate in rates), {"easy_to_hard": "easiest first", "rif": "shuffled"}
            order = orders.get(curriculum.name, f"solved by some; {curriculum.name} draws from all")
            self.progress.message(f"curriculum: {solved} of {len(rows)} prompts, {order}")
        if took is not None:
            self.progress.message(f"curriculum: {took.in_words()}, for the angles of their hidden states")
        record = sampler.table.record() | ({"passes": took._asdict()} if took else {})
        self.ranks.decided(lambda: write_text(self.dir.curriculum_file, json.dumps(record)))
        return sampler

    def _sampler_of_demonstrations(self) -> Sampler | None:
        """The warm-up's curriculum over the demonstrations that have labels, left for whoever replays its draws."""
        curriculum = self.recipe.warmup.curriculum
        if curriculum is None:
            return None
        _, numbers = self._numbered_demonstrations
        rows = [self.data.demonstrations[number] for number in numbers]
        try:
            sampler = Sampler(curriculum, curriculum.table(Columns(rows), names_of(rows), of="demonstrations"))
        except DataError as error:
            error.shared = self.ranks.count > 1  # all processes have the same rows
            raise
        self.ranks.decided(lambda: write_text(self.dir.warmup_curriculum_file, json.dumps(sampler.table.record())))
        return sampler

    def _pass_rates(self, curriculum: Any, rows: list[Any]) -> list[float]:
        """How often the curriculum's model solves each prompt, measured once."""

        def measure() -> list[float]:
            model = self._measured_model(curriculum)
            return self.examiner.pass_rates(model, rows, curriculum.samples, self._tracked("pass rates"))

        return measured(rows, self.dir.pass_rates_file, measure, self.ranks)

    def _angles(self, curriculum: Any, rows: list[Any]) -> tuple[list[list[float]], Passes]:
        """The angles of each prompt's hidden states in the curriculum's model, measured once, and what that took."""

        def measure() -> list[Angles]:
            return self.examiner.angles(self._measured_model(curriculum), rows, self._tracked("angles"))

        return measured_angles(rows, self.dir.angles_file, measure, self.ranks)

    def _measured_model(self, curriculum: Any) -> Any:
        """What a curriculum looks at before the stage."""
        warmed = curriculum.model == "warmup" and self.dir.done("warmup")
        return self.policies.load(self.dir.warmup_model if warmed else self.policies.source)

    def _evaluate(self, stage: str, step: int, model: Any) -> None:
        result = self.examiner.evaluate(model, self.data.eval, self._tracked(f"eval {stage}"))
        self.dir.evaluation(result.record(stage, step), result.rows)
        self.trackers.evaluation(result.record(stage, step))
        low, high = result.ci95
        self.progress.message(
            f"{stage}, step {step}: pass@1 {result.pass_at_1:.1%} (95 % interval {low:.1%} to {high:.1%}, "
            f"n = {len(result.passed)}{_left(result)})"
        )
        self.ranks.on_main(lambda: raise_of_evaluations(self.dir, self.progress.alarm))

    def _tracked(self, label: str) -> Callable[[int, int], None]:
        """Shows an evaluation, and gives it up between two of its batches when a stop is asked for."""
        show = self.progress.track(label)

        def report(done: int, total: int) -> None:
            show(done, total)
            if done < total:
                self.stop.check()

        return report

    @property
    def _demonstrations(self) -> Dataset:
        return self._numbered_demonstrations[0]

    @cached_property  # both stages train on them
    def _numbered_demonstrations(self) -> tuple[Dataset, list[int]]:
        rows = fit_to_model(self.data.demonstrations, self.tokenizer)
        return numbered_demonstrations(
            rows,
            self.tokenizer,
            max_length=self.recipe.warmup.max_length,
            template_kwargs=self.recipe.hybrid.template_kwargs,
            after=self.recipe.hybrid.demonstrations_after,
        )

    def _last_checkpoint(self, stage: str) -> Path | None:
        """What a stage goes on from; what was written of it after that is forgotten."""
        checkpoint = self.dir.latest_checkpoint(stage)
        self.dir.truncate_steps(stage, step_of(checkpoint) if checkpoint else 0)
        if self.progress.is_live:
            self.progress.start_over(read_lines(self.dir.steps_file))
        return checkpoint


def ended_early(stage: str, step: int, steps: int) -> TrainingError:
    """The error of a stage that its trainer ended although nobody asked for it."""
    error = TrainingError(
        f"the {stage} stage ended after step {step}, and it was not asked to",
        expected=f"{steps} steps",
        where=f"{stage}.steps",
        fix=f"look for what ends the training (a setting in {stage}.args?), then go on by --resume",
    )
    error.shared = True
    return error


def stages_of(recipe: Recipe) -> list[tuple[str, int]]:
    """Name and steps of each stage that the recipe has."""
    stages = (("warmup", recipe.warmup.steps), ("hybrid", recipe.hybrid.steps))
    return [(name, steps) for name, steps in stages if steps]


def _left(result: Any) -> str:
    """What of an evaluation counts as not passed though nobody judged it."""
    parts = {"no reward scored": result.unscored, "the reward failed on": result.errors}
    return "".join(f"; {what} {count} of them" for what, count in parts.items() if count)


def _only(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    return {each.name: values[each.name] for each in fields(kind)}
