"""A run from recipe to report: start -> warm-up -> hybrid -> final, each stage skipped when it is done already.

A stage begins from files that the stage before left behind, never from what is in memory, so a run that was killed
and resumed goes through the same states as one that was not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, set_seed
from trl import SFTConfig

from posttrain.callbacks import (
    AroundHybrid,
    RewardFailures,
    SettingsOfRecipe,
    ShowWarmup,
    StopRequest,
    StopWhenAsked,
    count_failures,
    how_to_go_on,
)
from posttrain.checkpoints import MANIFEST, latest_checkpoint, staged, step_of
from posttrain.config import Recipe, load_recipe
from posttrain.curriculum import ordered
from posttrain.data import fingerprint, fit_to_model, tokenize_demonstrations
from posttrain.errors import ConfigError, Interrupted, RewardError
from posttrain.examiner import Examiner
from posttrain.files import read_lines
from posttrain.hybrid_config import HybridConfig
from posttrain.inputs import check_model, load_data, load_rewards
from posttrain.plan import check, demonstration_batch_size
from posttrain.policies import Policies, save_whole
from posttrain.progress import Progress
from posttrain.quiet import quiet_libraries
from posttrain.report import write_report
from posttrain.reward import Reward, Scorer, trl_reward_functions
from posttrain.rollouts.vllm_build import check_installed
from posttrain.rundir import RunDir
from posttrain.tasks import TaskData
from posttrain.trainer import HybridTrainer
from posttrain.warmup import Warmup, warm_up


@dataclass(frozen=True)
class RunResult:
    """What a finished run left.

    Attributes:
        path: The run directory.
        evaluations: The lines of eval.jsonl.
    """

    path: Path
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def model(self) -> Path:
        """The folder of the final model."""
        return self.path / "model"

    @property
    def report(self) -> Path:
        """The report, one page."""
        return self.path / "report.html"


def run(
    recipe: Recipe | str | Path,
    *,
    rewards: Sequence[Callable[..., Any]] = (),
    resume: bool | None = None,
    accept_changes: bool = False,
    restart: bool = False,
    plain: bool | None = None,
) -> RunResult:
    """Carry out a recipe, from wherever an earlier start of it got to.

    Args:
        recipe: A recipe, or the path of one.
        rewards: Functions that score completions, beside those the recipe names.
        resume: `True` demands a run to go on with, `False` that there is none, `None` takes what is there.
        accept_changes: Go on though the recipe, data or rewards are not those the run began with.
        restart: Move an old run aside and begin anew.
        plain: Plain progress lines instead of bars; `None` decides by the terminal.

    Raises:
        ConfigError, DataError, RewardError: Before any model loads.
        ResumeError: The run directory holds another run.
        TrainingError, CheckpointError: Training or saving cannot go on; the last checkpoint is whole.
        Interrupted: A stop was asked for; the run is saved and can be resumed.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    check(recipe)
    recipe = _settled(recipe)
    data = load_data(recipe)
    loaded = load_rewards(recipe, data, rewards)
    fingerprints = {"data": fingerprint(data.train, data.demonstrations, data.eval)}
    fingerprints |= {f"reward {reward.name}": reward.source_sha256 or "" for reward in loaded}
    quiet_libraries()
    # Before there is a run directory, which a corrected name would not fit any more
    fingerprints |= check_model(recipe)
    with (
        RunDir.open(
            Path(recipe.run.dir or "runs/run"),
            recipe.resolved(),
            fingerprints,
            resume=resume,
            accept_changes=accept_changes,
            restart=restart,
        ) as run_dir,
        Progress(_stages(recipe), plain=plain) as progress,
    ):
        for change in run_dir.changes:
            progress.message(f"changed since the last start: {change}")
        if run_dir.done("final") and run_dir.report_file.exists():
            progress.message(f"{run_dir.path} is finished, nothing to do: see {run_dir.report_file}")
            return RunResult(run_dir.path, read_lines(run_dir.eval_file))
        return _Run(recipe, data, loaded, run_dir, progress).carry_out()


def _settled(recipe: Recipe) -> Recipe:
    """The recipe with `rollout.engine: auto` as what it means here, so that a run is not resumed on another engine.

    Raises:
        ConfigError: The machine has not what the recipe asks for, or several processes were started.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise ConfigError(
            f"{processes} processes",
            expected="one: recipes do not run on several yet, HybridTrainer in a script of your own does (DDP)",
            where="WORLD_SIZE",
            fix="start it without accelerate launch or torchrun",
        )
    section, engine = recipe.rollout, "vllm" if recipe.rollout.uses_vllm() else "transformers"
    if engine == "vllm" and section.mode == "colocate":
        if recipe.run.device == "cpu" and torch.cuda.is_available():
            if section.engine == "vllm":
                raise ConfigError(
                    "run.device is cpu, and vLLM would sample on the GPU",
                    where=recipe.where("rollout.engine"),
                    fix="set CUDA_VISIBLE_DEVICES to nothing, or rollout.engine to transformers",
                )
            engine = "transformers"
        else:
            check_installed()
    return recipe.model_copy(update={"rollout": section.model_copy(update={"engine": engine})})


class _Run:
    """One session of a run: the stages, and what they share."""

    def __init__(self, recipe: Recipe, data: TaskData, rewards: list[Reward], run_dir: RunDir, progress: Progress):
        self.recipe, self.data, self.rewards, self.dir, self.progress = recipe, data, rewards, run_dir, progress
        self.stop = StopRequest()
        if recipe.run.threads:
            torch.set_num_threads(recipe.run.threads)
        self.policies = Policies(recipe, data, run_dir, progress.message)
        self.tokenizer, self.on_gpu = self.policies.tokenizer, self.policies.on_gpu
        self.examiner = Examiner(recipe, data, rewards, self.tokenizer, on_gpu=self.on_gpu)
        self.errors_file = run_dir.path / "errors.jsonl"

    def carry_out(self) -> RunResult:
        """Every stage that is not done yet."""
        self.progress.message(f"{self._opening()}, sampling with {self.recipe.rollout.engine}")
        for note in self.data.notes:
            self.progress.message(note)
        with self.stop.listening(self.progress.message), self.examiner:
            try:
                if self.recipe.evaluate.at_start:
                    self._evaluate_once("start", 0, lambda: self.policies.load(self.policies.source))
                    self._stop_if_asked()
                self._warm_up()
                self._hybrid()
            except BaseException:
                with suppress(Exception):  # the page must not hide why the run stopped
                    write_report(self.dir.path)
                raise
            write_report(self.dir.path)
        failures = count_failures(self.errors_file)
        if failures:
            self.progress.message(f"rewards failed {failures} times in this run: see {self.errors_file}")
        self.progress.message(f"done: model in {self.dir.model}, report in {self.dir.report_file}")
        return RunResult(self.dir.path, read_lines(self.dir.eval_file))

    def _opening(self) -> str:
        if not self.dir.resumed:
            return f"starting {self.dir.path}"
        for stage, steps in _stages(self.recipe):
            if self.dir.done(stage) is None:
                checkpoint = latest_checkpoint(self.dir.checkpoints(stage))
                at = f"after step {step_of(checkpoint)} of {steps}" if checkpoint else "from its beginning"
                return f"resuming {self.dir.path}: {stage} {at}"
        return f"resuming {self.dir.path}: only the final evaluation is left"

    # ---- stages ----

    def _warm_up(self) -> None:
        section = self.recipe.warmup
        if section.steps == 0:
            return
        if self.dir.done("warmup") is None:
            folder = self.dir.checkpoints("warmup")
            self._forget_after("warmup", folder)
            set_seed(self.recipe.run.seed)
            model = self.policies.with_adapter(self.policies.load(self.policies.source))
            args = SFTConfig(**self._common(folder), **{**self._defaults(), **section.trl_kwargs()})
            result = warm_up(
                model,
                self.tokenizer,
                self._demonstrations,
                args,
                norm_window=section.window(),
                recorder=self.dir,
                callbacks=[SettingsOfRecipe(), StopWhenAsked(self.stop), ShowWarmup(self.progress)],
            )
            if result.steps < section.steps:  # else nothing is left to go on with: keep what was trained
                self._stop_if_asked()
            save_whole(self.dir.warmup_model, model, self.tokenizer)
            self.dir.mark_done("warmup", vars(result))
        self.progress.finish("warmup")
        steps = (self.dir.done("warmup") or {})["steps"]
        self._evaluate_once("warmup", steps, lambda: self.policies.load(self.dir.warmup_model))
        self._stop_if_asked()

    def _hybrid(self) -> None:
        if self.dir.done("hybrid") is None:
            steps = self._train_hybrid() if self.recipe.hybrid.steps else self._hand_on_warmup()
            self.dir.mark_done("hybrid", {"steps": steps})
            self._stop_if_asked()
        steps = (self.dir.done("hybrid") or {})["steps"]
        if steps < self.recipe.hybrid.steps:
            self.progress.message(
                f"hybrid ended after step {steps} of {self.recipe.hybrid.steps}: hybrid.time_limit_s is spent"
            )
        elif steps:
            self.progress.finish("hybrid")
        self._evaluate_once("final", steps, lambda: self.policies.load(self.dir.model))
        self.dir.mark_done("final")

    def _train_hybrid(self) -> int:
        folder, warmed = self.dir.checkpoints("hybrid"), self.dir.done("warmup")
        self._forget_after("hybrid", folder)
        set_seed(self.recipe.run.seed)
        policy = self.policies.load(self.dir.warmup_model if warmed else self.policies.source)
        model = policy if warmed else self.policies.with_adapter(policy)
        trainer, failures = self._trainer(model, folder, Warmup(**_only(Warmup, warmed)) if warmed else None)
        try:
            trainer.train(resume_from_checkpoint=latest_checkpoint(folder) is not None)
        except RewardError:
            failures.write(trainer.state.global_step + 1)
            raise
        if trainer.state.global_step < trainer.state.max_steps:
            self._stop_if_asked()
        save_whole(self.dir.model, trainer.accelerator.unwrap_model(trainer.model), self.tokenizer)
        return trainer.state.global_step

    def _hand_on_warmup(self) -> int:
        """Without a hybrid stage the warmed-up model is the final one."""
        with staged(self.dir.path, self.dir.model.name) as staging:
            shutil.copytree(
                self.dir.warmup_model, staging / self.dir.model.name, ignore=shutil.ignore_patterns(MANIFEST)
            )
        return 0

    def _trainer(self, model: Any, folder: Path, warmed: Warmup | None) -> tuple[HybridTrainer, RewardFailures]:
        recipe, section = self.recipe, self.recipe.hybrid
        checkpoint = latest_checkpoint(folder)
        last_step = step_of(checkpoint) if checkpoint else 0
        done = [line for line in read_lines(self.dir.steps_file) if line["stage"] == "hybrid"]
        spent_s = sum(line["seconds"]["total"] for line in done)
        scorer = Scorer(self.rewards, max_error_rate=recipe.scoring.max_error_rate, pool=self.examiner.pool)
        args = HybridConfig(
            **self._common(folder),
            **{**self._defaults(), "logging_steps": recipe.run.log_every, **section.trl_kwargs()},
            **recipe.rollout.trl_kwargs(),
            reward_weights=scorer.weights,
            demonstration_batch_size=demonstration_batch_size(recipe),
            kl_sample=section.kl.sample,
            completions_every=recipe.run.save_completions_every,
        )
        if section.time_limit_s and checkpoint and spent_s >= section.time_limit_s:
            args.max_steps = last_step  # stopped or killed at its end: load the checkpoint, and no step more
        trainer = HybridTrainer(
            model,
            trl_reward_functions(scorer),
            args,
            Dataset.from_list(fit_to_model(self._prompts(), self.tokenizer)),
            processing_class=self.tokenizer,
            demonstrations=self._demonstrations if section.controller.shares()[0] else None,
            controller=section.controller,
            g_warmup=warmed.g_warmup if warmed else None,
            recorder=self.dir,
            engine=self.examiner.engine(model),
            callbacks=[SettingsOfRecipe(), StopWhenAsked(self.stop)],
        )
        if trainer.sft and warmed:
            trainer.sft.stream.cursor = warmed.demonstration_cursor
        trainer.remove_callback(PrinterCallback)
        failures = RewardFailures(scorer, self.errors_file, last_step=last_step, say=self.progress.message)
        trainer.add_callback(failures)
        policy = trainer.accelerator.unwrap_model(trainer.model)
        trainer.add_callback(
            AroundHybrid(
                trainer,
                self.progress,
                lambda step: self._evaluate_once("hybrid", step, lambda: policy),
                every=recipe.evaluate.every,
                time_limit_s=section.time_limit_s,
                spent_s=spent_s,
            )
        )
        return trainer, failures

    # ---- parts of stages ----

    def _evaluate_once(self, stage: str, step: int, model: Callable[[], Any]) -> None:
        lines = read_lines(self.dir.eval_file)
        if not any((line["stage"], line["step"]) == (stage, step) for line in lines):
            self._evaluate(stage, step, model())

    def _prompts(self) -> list[Any]:
        """What the rollouts are drawn from: the task's prompts, or those of a curriculum in its order."""
        # A controller that never samples may come without prompts, GRPOTrainer may not
        rows, curriculum = self.data.train or self.data.demonstrations, self.recipe.hybrid.curriculum
        if curriculum is None:
            return rows
        warmed = curriculum.model == "warmup" and self.dir.done("warmup")

        def measure() -> list[float]:
            model = self.policies.load(self.dir.warmup_model if warmed else self.policies.source)
            return self.examiner.pass_rates(model, rows, curriculum.samples, self.progress.track("pass rates"))

        kept = ordered(rows, self.dir.pass_rates_file, measure)
        self.progress.message(f"curriculum: {len(kept)} of {len(rows)} prompts, easiest first")
        return kept

    def _evaluate(self, stage: str, step: int, model: Any) -> None:
        result = self.examiner.evaluate(model, self.data.eval, self.progress.track(f"eval {stage}"))
        self.dir.evaluation(result.record(stage, step), result.rows)
        low, high = result.ci95
        self.progress.message(
            f"{stage}, step {step}: pass@1 {result.pass_at_1:.1%} (95 % interval {low:.1%} to {high:.1%}, "
            f"n = {len(result.passed)})"
        )

    @cached_property  # both stages train on them
    def _demonstrations(self) -> Dataset:
        rows = fit_to_model(self.data.demonstrations, self.tokenizer)
        return tokenize_demonstrations(
            rows,
            self.tokenizer,
            max_length=self.recipe.warmup.max_length,
            template_kwargs=self.recipe.hybrid.template_kwargs,
        )

    def _common(self, folder: Path) -> dict[str, Any]:
        run_section = self.recipe.run
        return {
            "output_dir": str(folder),
            "seed": run_section.seed,
            "report_to": run_section.report_to,
            "disable_tqdm": True,
            "use_cpu": not self.on_gpu,
        }

    def _defaults(self) -> dict[str, Any]:
        """Where TRL's defaults suit a GPU only; a recipe's `args` override them."""
        return {} if self.on_gpu else {"bf16": False, "gradient_checkpointing": False}

    def _forget_after(self, stage: str, folder: Path) -> None:
        checkpoint = latest_checkpoint(folder)
        self.dir.truncate_steps(stage, step_of(checkpoint) if checkpoint else 0)

    def _stop_if_asked(self) -> None:
        if self.stop.asked:
            raise Interrupted(f"stopped as asked, and saved. To go on: {how_to_go_on()}", where=str(self.dir.path))


def _stages(recipe: Recipe) -> list[tuple[str, int]]:
    """Name and steps of each stage that the recipe has."""
    stages = (("warmup", recipe.warmup.steps), ("hybrid", recipe.hybrid.steps))
    return [(name, steps) for name, steps in stages if steps]


def _only(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    return {each.name: values[each.name] for each in fields(kind)}
