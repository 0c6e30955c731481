"""A study as it is carried out: its arms, what is tried for each, and the runs that it takes.

A run of a study is one of `posttrain run`, of a recipe that is written out, in a directory of its own. What is done and
what is not is read off these directories alone, so that a study which was killed goes on from where it was.

    DIR/runs/ARM-seed0/      the runs that are judged
    DIR/tuning/ARM-1/        those of each arm's grid, on the tuning seed
    DIR/warmups/seed0/       a warm-up that several begin from; seed0-3f9a1c: of arms that change it
    DIR/recipes/, DIR/logs/  the recipe of each run, and what it said
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from posttrain.errors import ConfigError, ResumeError
from posttrain.nearest import display, nearest_files
from posttrain.recipe.contradictions import check
from posttrain.recipe.mistakes import where_in
from posttrain.recipe.recipe import Recipe, load_recipe
from posttrain.recipe.stage_sections import GRPOSection, HybridSection
from posttrain.recipe.yamlfile import Layer
from posttrain.rundir.facts import flatten
from posttrain.rundir.layout import Layout
from posttrain.rundir.looking import differences
from posttrain.rundir.reading import done_stages
from posttrain.rundir.warmed import warmup_facts
from posttrain.study.file import REFERENCE, read_study, recipe_path
from posttrain.study.second import SecondEvaluation

Point = dict[str, Any]
"""One combination of a grid: dotted keys and values."""


@dataclass(frozen=True)
class Job:
    """One run of a study.

    Attributes:
        kind: `warmup`, `tuning`, `final`, or `forgetting`: an evaluation of one of these on the second held-out set.
        name: Its directory, below the study's; of `forgetting` its file, without `.json`.
        arm: Whose it is; of a warm-up that of the first arm that begins from it.
        seed: `run.seed`.
        recipe: What it runs.
        point: Of a tuning run, what it tries; of a final one, what tuning chose.
        begins_from: The name of the warm-up that it begins from; `None`: it warms up by itself, or not at all.
        of: Of `forgetting`, the name of the run whose model is evaluated.
    """

    kind: str
    name: str
    arm: str
    seed: int
    recipe: Recipe = field(compare=False)
    point: Point = field(default_factory=dict, compare=False)
    begins_from: str | None = None
    of: str = ""


class Study:
    """A study's file, its arms as recipes, and its jobs.

    Args:
        path: STUDY.yaml.
        folder: Where it works; `None` is `runs/study-` and the file's name.

    Attributes:
        file: What it holds.
        folder: Where it works.
        reference: The arm that the others are compared with.
        warmup_names: Facts of a warm-up, as JSON, to its name.

    Raises:
        ConfigError: The file, an arm's recipe, or two arms that are the same.
    """

    def __init__(self, path: str | Path, folder: str | Path | None = None):
        self.path = Path(path)
        self.file, self._layer = read_study(self.path)
        self.name = self.path.stem
        self._recipes: dict[str, Recipe] = {}
        self._changes: dict[tuple[str, str, int], list[str]] = {}
        self.folder = Path(folder) if folder else Path("runs") / f"study-{self.name}"
        named = recipe_path(self.file.recipe, self.path.parent)
        if isinstance(named, Path) and not named.is_file():
            raise ConfigError(
                f"{display(named)} does not exist",
                expected="the recipe that all arms start from",
                where=where_in(self._layer, ("recipe",)),
                fix=nearest_files(named),
            )
        self.reference = self.file.reference or (REFERENCE if REFERENCE in self.file.arms else next(iter(self.arms)))
        self._check_arms()
        if self.file.forgetting:
            check(self.second)
        self._check_grids()

    # ---- recipes ----

    @property
    def arms(self) -> dict[str, dict[str, Any]]:
        """Each arm and the keys in which it differs."""
        return self.file.arms

    @property
    def budget(self) -> tuple[str, float]:
        """The kind of the budget, and its amount."""
        ((kind, amount),) = self.file.budget.given().items()
        return kind, amount

    def recipe(self, arm: str, seed: int, point: Mapping[str, Any] | None = None, *, tuning: bool = False) -> Recipe:
        """The recipe of an arm's run, without a directory.

        Raises:
            ConfigError: It cannot be; with the line of the study where its key stands.
        """
        key = json.dumps([arm, seed, point or {}, tuning], sort_keys=True)
        if key not in self._recipes:
            self._recipes[key] = self._recipe(arm, seed, point, tuning=tuning)
        return self._recipes[key]

    def _recipe(self, arm: str, seed: int, point: Mapping[str, Any] | None, *, tuning: bool) -> Recipe:
        layers = [self._part(("arms", arm), self.arms[arm])]
        tune = self.file.tune
        if point:
            layers.append(self._point(arm, point))
        if tuning and tune and tune.overrides:
            layers.append(self._part(("tune", "overrides"), tune.overrides))
        own: dict[str, Any] = {"run": {"seed": seed}}
        if self.file.evaluations:
            own["evaluate"] = {"times": self.file.evaluations, "every": 0}
        layers.append(Layer(own))
        named = recipe_path(self.file.recipe, self.path.parent)
        found = load_recipe(named, over=layers, folder=self.path.parent)
        if not found.hybrid.steps:
            return found
        budget = Layer({"hybrid": {"budget": self.file.budget.given(), "time_limit_s": None}})
        return load_recipe(named, over=[*layers, budget], folder=self.path.parent)

    def _part(self, at: tuple[str, ...], overrides: Mapping[str, Any]) -> Layer:
        """Dotted keys that stand at a place in the study's file, as a layer of a recipe."""
        layer = Layer()
        for key, value in overrides.items():
            parts = tuple(key.split("."))
            section = layer.data
            for part in parts[:-1]:
                section = section.setdefault(part, {})
                if not isinstance(section, dict):
                    raise ConfigError(
                        f"{key} goes into a key that has a value by itself",
                        where=where_in(self._layer, (*at, key)),
                        fix="write both as one value",
                    )
            section[parts[-1]] = copy.deepcopy(value)
            for known, where in self._layer.origins.items():
                if known[: len(at) + 1] == (*at, key):
                    layer.origins[(*parts, *known[len(at) + 1 :])] = where
        return layer

    def _point(self, arm: str, point: Mapping[str, Any]) -> Layer:
        merged = Layer()
        for key, value in point.items():
            tune = self.file.tune
            own = bool(tune and key in tune.arms.get(arm, {}))
            at = ("tune", "arms", arm) if own else ("tune", "grid")
            layer = self._part(at, {key: value})
            # Values of a grid stand in a list, so that what is in them has other places
            layer.origins = {tuple(key.split(".")): self._layer.origin((*at, key))}
            section, target = layer.data, merged.data
            for part in key.split(".")[:-1]:
                section, target = section[part], target.setdefault(part, {})
            target |= section
            merged.origins |= layer.origins
        return merged

    def points(self, arm: str) -> list[Point]:
        """What is tried for an arm: all combinations of its grid; none of an arm that is not tuned."""
        tune = self.file.tune
        if tune is None or not self.recipe(arm, self.file.seeds[0]).hybrid.steps:
            return []
        grid = {**tune.grid, **tune.arms.get(arm, {})}
        return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())] if grid else []

    # ---- checks ----

    def _check_arms(self) -> None:
        seed = self.file.seeds[0]
        seen: dict[str, str] = {}
        for arm in self.arms:
            recipe = self.recipe(arm, seed)
            check(recipe)
            facts = json.dumps(recipe.resolved(), sort_keys=True)
            if facts in seen:
                raise ConfigError(
                    f"the arm {arm} is the same as {seen[facts]}",
                    expected="arms that differ",
                    where=where_in(self._layer, ("arms", arm)),
                    fix="leave one out",
                )
            seen[facts] = arm

    def _check_grids(self) -> None:
        for arm in self.arms:
            for point in self.points(arm):
                check(self.recipe(arm, self.tuning_seed, point, tuning=True))

    @property
    def tuning_seed(self) -> int:
        """Of the tuning runs."""
        assert self.file.tune is not None
        return self.file.tune.seed

    # ---- jobs ----

    def grid_of(self, arm: str) -> list[Job]:
        """The tuning runs of an arm's grid."""
        return [self.tried(arm, number, point) for number, point in enumerate(self.points(arm), 1)]

    def tried(self, arm: str, number: int, point: Point) -> Job:
        """An arm's run on the tuning seed of a point: the grid's, or one beyond it (`tune.further`).

        Raises:
            ConfigError: No recipe takes it.
        """
        recipe = self.recipe(arm, self.tuning_seed, point, tuning=True)
        return self._begun(Job("tuning", f"tuning/{arm}-{number}", arm, self.tuning_seed, recipe, point))

    def further(self, arm: str) -> dict[str, int]:
        """Keys of an arm's grid that go on beyond it where their best value is at an edge, and by how many at most."""
        tune = self.file.tune
        points = self.points(arm) if tune else []
        return {key: count for key, count in tune.further.items() if key in points[0]} if tune and points else {}

    def final(self, arm: str, seed: int, point: Point) -> Job:
        """An arm's run that is judged."""
        return self._begun(Job("final", f"runs/{arm}-seed{seed}", arm, seed, self.recipe(arm, seed, point), point))

    @cached_property
    def _warmups(self) -> dict[str, Job]:
        """Warm-ups by their facts, as they come up."""
        return {}

    def _begun(self, job: Job) -> Job:
        """A job with the warm-up that it begins from."""
        recipe = job.recipe
        if not recipe.warmup.steps:
            return job
        facts = _facts(recipe)
        if facts not in self._warmups:
            name = f"warmups/seed{job.seed}"
            # By what it is of and not by when it came up, which depends on the arms that are run
            if facts != self._usual(job.seed, tuning=job.kind == "tuning"):
                name += f"-{hashlib.sha256(facts.encode()).hexdigest()[:6]}"
            self._warmups[facts] = Job("warmup", name, job.arm, job.seed, _warmup_alone(recipe))
        return Job(job.kind, job.name, job.arm, job.seed, recipe, job.point, self._warmups[facts].name)

    def _usual(self, seed: int, *, tuning: bool) -> str | None:
        """The facts of the first arm's warm-up; `None` where no arm has one."""
        recipes = (self.recipe(arm, seed, tuning=tuning) for arm in self.arms)
        return next((_facts(recipe) for recipe in recipes if recipe.warmup.steps), None)

    def forgetting(self, job: Job) -> Job:
        """The evaluation of a run's model on the second held-out set."""
        name = f"forgetting/{job.name.replace('/', '-')}"
        return Job("forgetting", name, job.arm, job.seed, self.second, of=job.name)

    @cached_property
    def second(self) -> Recipe:
        """Whose held-out problems tell what was forgotten.

        Raises:
            ConfigError: As of `load_recipe`.
        """
        assert self.file.forgetting is not None
        return load_recipe(recipe_path(self.file.forgetting.recipe, self.path.parent))

    def is_done(self, job: Job) -> bool:
        """Whether a job has come to its end."""
        if job.kind == "forgetting":
            return self.evaluation(job).is_done()
        layout = self.layout(job)
        return layout.report_file.exists() and "final" in done_stages(layout)

    def evaluation(self, job: Job) -> SecondEvaluation:
        """That on the second held-out set of a job of `forgetting`."""
        return SecondEvaluation(self.folder / f"{job.name}.json", Layout(self.folder / job.of), job.recipe)

    def warmup_of(self, job: Job) -> Job | None:
        """The warm-up that a job begins from."""
        return next((each for each in self._warmups.values() if each.name == job.begins_from), None)

    def layout(self, job: Job) -> Layout:
        """Where a job's run is."""
        return Layout(self.folder / job.name)

    def changes(self, job: Job) -> list[str]:
        """`key: was -> is` for all by which the run in a job's directory is of another recipe; none where none is."""
        file = self.layout(job).recipe_file
        if not file.exists():
            return []
        key = (job.name, json.dumps(job.point, sort_keys=True), file.stat().st_mtime_ns)
        if key not in self._changes:
            self._changes[key] = differences(self.layout(job), job.recipe)
        return self._changes[key]

    def check_unchanged(self, jobs: Iterable[Job]) -> None:
        """Refuse jobs whose directories hold runs of other recipes.

        Raises:
            ResumeError: With the keys that differ.
        """
        for job in jobs:
            layout = self.layout(job)
            if lines := self.changes(job):
                raise ResumeError(
                    f"the arm {job.arm} has changed since its run in {job.name} began (was -> is):"
                    + "".join(f"\n    {line}" for line in lines),
                    expected="the recipe that it began with",
                    where=display(self.path),
                    fix=f"undo the change; move {display(layout.path)} away, to run it anew; or take another --dir",
                )

    def settings(self) -> dict[str, list[Any]]:
        """The dotted keys in which the arms' recipes differ, with each arm's value."""
        flat = [flatten(self.recipe(arm, self.file.seeds[0]).resolved()) for arm in self.arms]
        keys = dict.fromkeys(key for one in flat for key in one)
        found = {key: [one.get(key) for one in flat] for key in keys}
        return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def _facts(recipe: Recipe) -> str:
    """What a recipe's warm-up depends on, as one text."""
    return json.dumps(warmup_facts(recipe.resolved()), sort_keys=True)


def _warmup_alone(recipe: Recipe) -> Recipe:
    """A recipe up to its hybrid stage, whichever arm it is of."""
    hybrid = recipe.hybrid
    args = {key: value for key, value in hybrid.args.items() if key in ("chat_template_kwargs", "bf16", "fp16")}
    grpo = GRPOSection(max_completion_length=hybrid.grpo.max_completion_length)
    alone = HybridSection(steps=0, args=args, demonstrations_after=hybrid.demonstrations_after, grpo=grpo)
    return recipe.model_copy(update={"hybrid": alone})
