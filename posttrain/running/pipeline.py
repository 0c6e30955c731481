"""A run from recipe to report: start -> warm-up -> hybrid -> final, each stage skipped when it is done already.

A stage begins from files that the stage before left behind, never from what is in memory, so a run that was killed
and resumed goes through the same states as one that was not.

On several processes (`accelerate launch`) all go through the same stages at once: the main one owns the run directory,
writes and says where the run stands, and what one process fails by is raised on all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from posttrain.errors import ConfigError, PosttrainError
from posttrain.inputs.four_bit import check_unsharded
from posttrain.inputs.gathering import Inputs, gather
from posttrain.inputs.inputs import check_model
from posttrain.inputs.leaks import prompt_hashes
from posttrain.inputs.looked_for import in_words as leaks_in_words
from posttrain.inputs.looked_for import look_for_leaks
from posttrain.processes.connection import explained
from posttrain.processes.launched import sharded_by
from posttrain.processes.ranks import Ranks
from posttrain.recipe.arithmetic import for_processes
from posttrain.recipe.contradictions import check
from posttrain.recipe.recipe import Recipe, load_recipe
from posttrain.recipe.sections import RunSection
from posttrain.rollouts.vllm_package import check_installed
from posttrain.rundir.data_changes import Contents, contents
from posttrain.rundir.facts import flatten, named, processes_of, settled_engine
from posttrain.rundir.layout import Layout
from posttrain.rundir.reading import leaks_of
from posttrain.rundir.shared import SharedRunDir
from posttrain.running import out_of_memory
from posttrain.running.stages import Stages, stages_of
from posttrain.scoring.score import Reward
from posttrain.tasks import TaskData
from posttrain.watching.progress import Progress
from posttrain.watching.quiet import quiet_libraries
from posttrain.watching.tracker_packages import check_installed as check_installed_trackers


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
    data: TaskData | None = None,
    inputs: Inputs | None = None,
    stop_after: int | None = None,
    warmup_from: str | Path | None = None,
) -> RunResult:
    """Carry out a recipe, from wherever an earlier start of it got to.

    On several processes each calls this with the same arguments, and gets the same result or error. Their machines need
    a file system in common, with the run directory on it.

    Args:
        recipe: A recipe, or the path of one.
        rewards: Functions that score completions, beside those the recipe names.
        resume: `True` demands a run to go on with, `False` that there is none, `None` takes what is there.
        accept_changes: Go on though the recipe, data or rewards are not those the run began with.
        restart: Move an old run aside and begin anew.
        plain: Plain progress lines instead of bars; `None` decides by the terminal.
        data: Rows to take instead of those that the recipe's task would load.
        inputs: What `gather` gave for this recipe, which needs not be loaded again; with `rewards` and `data` in it.
        stop_after: Training steps, of whichever stage, after which the run stops as it does at SIGTERM.
        warmup_from: The directory of a run of the same recipe up to its hybrid stage, whose warm-up is taken over.

    Raises:
        ConfigError, DataError, RewardError: Before any model loads.
        ResumeError: The run directory holds another run.
        TrainingError, CheckpointError: Training or saving cannot go on, or another process is gone; the last checkpoint
            is whole.
        Interrupted: A stop was asked for; the run is saved and can be resumed.
    """
    ranks, recipe = join(lambda: recipe if isinstance(recipe, Recipe) else load_recipe(recipe))
    path = Path(recipe.run.dir or "runs/run")
    with explained(ranks, Layout(path).last_checkpoint):
        return _run(
            recipe, path, ranks, rewards, resume, accept_changes, restart, plain, data, inputs, stop_after,
            Path(warmup_from) if warmup_from else None,
        )  # fmt: skip


def join(load: Callable[[], Recipe]) -> tuple[Ranks, Recipe]:
    """The processes that a launcher started for this run, and its recipe; joining again changes nothing.

    Args:
        load: Gives the recipe, which says how long processes wait for each other.

    Raises:
        ConfigError: Of `load`, on every process if it fails on one.
    """
    recipe: Recipe | None = None
    failure: PosttrainError | None = None
    try:
        recipe = load()
    except PosttrainError as error:
        failure = error
    section = recipe.run if recipe else RunSection()
    on_cpu = section.device == "cpu" or not torch.cuda.is_available()
    ranks = Ranks.join(on_cpu=on_cpu, time_limit_s=section.process_timeout_s)

    def loaded() -> Recipe:
        if failure is not None:
            raise failure
        assert recipe is not None
        return recipe

    return ranks, ranks.together(loaded)


def _run(
    recipe: Recipe,
    path: Path,
    ranks: Ranks,
    rewards: Sequence[Callable[..., Any]],
    resume: bool | None,
    accept_changes: bool,
    restart: bool,
    plain: bool | None,
    rows: TaskData | None,
    inputs: Inputs | None,
    stop_after: int | None,
    warmup_from: Path | None,
) -> RunResult:
    started_on = ranks.decided(lambda: None if restart else processes_of(path)) or ranks.count

    def prepared() -> tuple[Recipe, Recipe, TaskData, Contents, list[Reward], dict[str, str]]:
        here = for_processes(recipe, started_on, ranks.count)
        check(here, ranks.count)
        check_installed_trackers(recipe.run.report_to, where=recipe.where("run.report_to"))
        check_unsharded(recipe, sharded_by(os.environ))
        settled = _settled(recipe, None if restart else path)
        here = here.model_copy(update={"rollout": settled.rollout})
        given = inputs or gather(recipe, rewards, rows)
        data, loaded = given.data, given.rewards
        described = contents(train=data.train, demonstrations=data.demonstrations, eval=data.eval)
        fingerprints = {"data": described["fingerprint"]}
        for reward in [*given.judges, *loaded]:
            fingerprints[f"reward {reward.name}"] = reward.source_sha256 or ""
        described["trained_prompts"] = prompt_hashes(data.train, data.demonstrations)
        known = None if restart else leaks_of(Layout(path), described["fingerprint"])
        described["leaks"] = known or look_for_leaks(recipe, data)
        quiet_libraries()
        # Before there is a run directory, which a corrected name would not fit any more
        fingerprints |= check_model(recipe, data, [*loaded, *given.judges])
        return settled, here, data, described, loaded, fingerprints

    settled, here, data, described, loaded, fingerprints = ranks.together(prepared)
    facts = {**flatten(settled.resolved()), **named(fingerprints)}
    ranks.agree(facts, at="before the start")
    with (
        SharedRunDir.open(
            ranks,
            path,
            settled.resolved(),
            fingerprints,
            resume=resume,
            accept_changes=accept_changes,
            restart=restart,
            data=described,
        ) as run_dir,
        Progress(stages_of(here), plain=plain, enabled=ranks.is_main) as progress,
    ):
        for change in run_dir.changes:
            progress.message(f"changed since the last start: {change}")
        if described["leaks"]["contaminated"]:
            progress.message(leaks_in_words(described["leaks"]))
        if run_dir.done("final") and run_dir.has_report():
            progress.message(f"{run_dir.path} is finished, nothing to do: see {run_dir.report_file}")
            return RunResult(run_dir.path, run_dir.evaluations())
        if warmup_from and run_dir.take_warmup(warmup_from):
            progress.message(f"warm-up taken over from {warmup_from}")
        if started_on != ranks.count:
            progress.message(
                f"started on {started_on} processes, going on with {ranks.count}: the same rows a step, by "
                "gradient_accumulation_steps "
                + " and ".join(
                    f"{getattr(here, name).gradient_accumulation_steps} ({name})" for name, _ in stages_of(here)
                )
            )
        rank = ranks.number if ranks.count > 1 else None
        with out_of_memory.explained(
            settled, processes=started_on, rank=rank, last_checkpoint=Layout(path).last_checkpoint
        ):
            Stages(
                here, data, loaded, run_dir, progress, ranks, _hashes(facts), stop_after,
                may_change_engine=recipe.rollout.engine == "auto",
            ).carry_out()  # fmt: skip
            return RunResult(run_dir.path, run_dir.evaluations())


def _hashes(facts: dict[str, Any]) -> dict[str, str]:
    """What the processes go on comparing of a recipe and its data: a hash of the one, and those of the other."""
    prints = {key: value for key, value in facts.items() if key.startswith("fingerprint of ")}
    keys = json.dumps({key: value for key, value in facts.items() if key not in prints}, sort_keys=True, default=repr)
    return {"recipe": hashlib.sha256(keys.encode()).hexdigest()[:16], **prints}


def _settled(recipe: Recipe, path: Path | None) -> Recipe:
    """The recipe with `rollout.engine: auto` as what it means here, or what the run at `path` has settled on.

    Raises:
        ConfigError: The machine has not what the recipe asks for.
    """
    if recipe.run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "run.device is cuda, and torch sees no GPU",
            where=recipe.where("run.device"),
            fix="set run.device to auto, which takes the CPU then; `posttrain doctor` says what is amiss",
        )
    section = recipe.rollout
    engine = settled_engine(path) if path and section.engine == "auto" else None
    engine = engine or ("vllm" if section.uses_vllm() else "transformers")
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
