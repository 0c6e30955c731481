"""A recipe, and reading one from a YAML file with its parents and the overrides of the command line.

Unknown keys are refused everywhere. All problems of a recipe are reported at once, each with the file and line it was
written at. What only makes sense in view of another section (batch sizes that divide, a KL target with a KL) is
`plan.check`'s. Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, ValidationError

from posttrain.controllers import SASR, GRPOOnly
from posttrain.curricula import EasyToHard
from posttrain.errors import ConfigError
from posttrain.nearest import display, nearest_files
from posttrain.recipe.mistakes import explain, raise_all, where_in
from posttrain.recipe.model_sections import GGUF_SUFFIX, LoraSection, ModelSection
from posttrain.recipe.section import Section
from posttrain.recipe.sections import AnyTask, EvaluateSection, RewardConfig, RolloutSection, RunSection, ScoringSection
from posttrain.recipe.shipped import located
from posttrain.recipe.stage_sections import HybridSection, WarmupSection
from posttrain.recipe.yamlfile import DEFAULT, Key, Layer, load_layers, merge, overrides_layer
from posttrain.tasks.countdown import Countdown
from posttrain.tasks.json_structure import JsonStructure
from posttrain.tasks.knights_knaves import KnightsKnaves
from posttrain.tasks.math import Math
from posttrain.tasks.mixture import Mixture
from posttrain.tasks.rows import Rows
from posttrain.tasks.table_structure import TableStructure

TASKS: dict[str, type] = {
    "knights_knaves": KnightsKnaves,
    "math": Math,
    "json_structure": JsonStructure,
    "table_structure": TableStructure,
    "countdown": Countdown,
    "rows": Rows,
    "mixture": Mixture,
}
"""What a recipe can name under `task.name`."""

KINDS: dict[Key, tuple[str, ...]] = {
    ("model",): ("name", "gguf", "init", "merge"),
    ("task",): ("name",),
    ("hybrid", "controller"): ("name",),
    ("hybrid", "method"): ("name",),
    ("hybrid", "curriculum"): ("name",),
    ("warmup", "curriculum"): ("name",),
}
"""Sections that come in kinds, and the keys that tell which. Another kind replaces its parent's section whole."""


class Recipe(Section):
    """A whole run. Build one with `load_recipe`, or in Python with `Recipe(model=..., task=...)`.

    Args:
        model: What to train.
        task: Where prompts, demonstrations and held-out rows come from.
        rewards: What scores a completion; empty takes the task's own reward.
        scoring: How completions are scored, and what a failing reward may cost.
        lora: An adapter to train instead of all parameters.
        warmup: Stage 1.
        hybrid: Stage 2.
        rollout: What samples completions.
        evaluate: When and how to evaluate.
        run: Where the run lives and what it reports.
    """

    model: ModelSection
    task: AnyTask
    rewards: list[RewardConfig] = []
    scoring: ScoringSection = ScoringSection()
    lora: LoraSection | None = None
    warmup: WarmupSection = WarmupSection()
    hybrid: HybridSection = HybridSection()
    rollout: RolloutSection = RolloutSection()
    evaluate: EvaluateSection = EvaluateSection()
    run: RunSection = RunSection()

    _written: Layer = PrivateAttr(default_factory=Layer)

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, in JSON's types; a file of this content is the same recipe."""
        return self.model_dump(mode="json", by_alias=True)

    def origin(self, key: str) -> str:
        """Where a dotted key's value comes from: `file:line`, `command line` or `default`."""
        return self._written.origin(_parts(key)) if self._written.has(_parts(key)) else DEFAULT

    def provenance(self) -> dict[str, str]:
        """Each resolved key, dotted, and where its value comes from."""
        return {key: self.origin(key) for key in _leaves(self.resolved())}

    def where(self, key: str) -> str:
        """A dotted key and where it was written, for an error message."""
        said = where_in(self._written, _parts(key))
        return said if self._written.has(_parts(key)) else f"{said} (default)"


def load_recipe(
    path: str | Path, overrides: Iterable[str] = (), *, over: Iterable[Layer] = (), folder: Path | None = None
) -> Recipe:
    """Read a recipe file over the files it `extends`, with `key.path=value` overrides on top.

    Relative paths of rewards, a GGUF model and the task's files start at the folder of the file that names them (on the
    command line: the working directory) and are absolute in the result. A reward is code: a relative path to one must
    not lead out of that folder. `posttrain:NAME` is a recipe that ships. `run.dir` left out is `runs/` and the recipe's
    name. What another file says on top of it comes as layers `over` it, whose relative paths start at `folder`.

    Raises:
        ConfigError: With file, line, key, what was expected and the nearest legal key, for every problem found.
    """
    path = located(path)
    strays: dict[str, str] = {}
    layer = load_layers(path, prepare=partial(_write_out, strays=strays), kinds=KINDS)
    _name_curriculum(layer)
    for each in over:
        _write_out(each.data, folder or Path(), strays)
        layer = merge(layer, each, KINDS)
    return _recipe(layer, overrides, strays, path)


def recipe_of(data: dict[str, Any], overrides: Iterable[str] = ()) -> Recipe:
    """A recipe of plain values that no file holds, with `key.path=value` overrides on top.

    Raises:
        ConfigError: As of `load_recipe`.
    """
    _write_out(data, Path())
    return _recipe(Layer(data), overrides, {}, Path("eval"))


def _recipe(layer: Layer, overrides: Iterable[str], strays: dict[str, str], path: Path) -> Recipe:
    typed = overrides_layer(overrides)
    _write_out(typed.data, Path(), strays)
    _name_curriculum(layer)
    layer = merge(layer, typed, KINDS)
    _complete(layer, path)
    problems = list(_reward_files(layer, strays))
    try:
        recipe = Recipe.model_validate(layer.data)
    except ValidationError as error:
        problems = explain(error, Recipe, layer, layer.data) + problems
    raise_all(problems, display(path))
    recipe._written = layer
    return recipe


def _write_out(data: dict[str, Any], folder: Path, strays: dict[str, str] | None = None) -> None:
    """Write out shorthands (a name alone for a section of that name) and make paths absolute, in place.

    `strays` takes the rewards' relative paths that lead out of `folder`: absolute -> as written.
    """
    hybrid, warmup = data.get("hybrid"), data.get("warmup")
    if isinstance(data.get("task"), list):
        parts = [{"name": part} if isinstance(part, str) else part for part in data["task"]]
        data["task"] = {"name": Mixture.name, "tasks": parts}
    if isinstance(data.get("model"), str) and data["model"].lower().endswith(GGUF_SUFFIX):
        data["model"] = {"gguf": data["model"]}
    of_hybrid = [(hybrid, key) for key in ("controller", "method", "curriculum")]
    for section, key in ((data, "model"), (data, "task"), *of_hybrid, (warmup, "curriculum")):
        if isinstance(section, dict) and isinstance(section.get(key), str):
            section[key] = {"name": section[key]}
    model = data.get("model")
    if isinstance(model, dict) and isinstance(model.get("gguf"), str):
        model["gguf"] = _absolute(model["gguf"], folder)
    evaluate = data.get("evaluate")
    if isinstance(evaluate, dict):
        judges = evaluate.get("reward")
        by_number = isinstance(judges, dict) and all(isinstance(key, int) for key in judges)
        if isinstance(judges, str | dict) and not by_number:
            evaluate["reward"] = [judges]
    for section, key in ((data, "rewards"), (evaluate, "reward")):
        if isinstance(section, dict):
            _write_out_rewards(section.get(key), folder, strays)
    task = data.get("task")
    tasks = task.get("tasks") if isinstance(task, dict) else None
    for part in [task, *tasks] if isinstance(tasks, list) else [task]:
        if isinstance(part, dict):
            paths = {key: value for key, value in part.items() if key == "path" or key.endswith("_path")}
            part.update({key: _absolute_paths(value, folder) for key, value in paths.items()})


def _write_out_rewards(rewards: Any, folder: Path, strays: dict[str, str] | None) -> None:
    if isinstance(rewards, list):
        rewards[:] = [{"name": one} if isinstance(one, str) else one for one in rewards]
    each = rewards.values() if isinstance(rewards, dict) else rewards if isinstance(rewards, list) else ()
    for reward in each:
        if isinstance(reward, dict) and isinstance(reward.get("path"), str):
            written, reward["path"] = reward["path"], _absolute(reward["path"], folder)
            if strays is not None and _leads_out(written, folder):
                strays[reward["path"]] = written


def _absolute_paths(value: Any, folder: Path) -> Any:
    paths = value if isinstance(value, list) else [value]
    absolute: list[Any] = []
    for path in paths:
        if isinstance(path, dict) and isinstance(path.get("file"), str):  # with a weight
            absolute.append({**path, "file": _absolute(path["file"], folder)})
        else:
            absolute.append(_absolute(path, folder) if isinstance(path, str) else path)
    return absolute if value is not None else None


def _absolute(path: str, folder: Path) -> str:
    return str((folder / Path(path).expanduser()).absolute().resolve())


def _leads_out(path: str, folder: Path) -> bool:
    """Whether a relative path of a reward ends outside a folder, by `..` or by a link."""
    file = _reward_file(path).expanduser()
    return not file.is_absolute() and not (folder / file).resolve().is_relative_to(folder.resolve())


def _reward_file(path: str) -> Path:
    head, _, function = path.rpartition(":")
    return Path(head if head and function.isidentifier() else path)


def _complete(layer: Layer, path: Path) -> None:
    """Defaults that depend on more than their own section: the controller's kind and the run's directory."""
    hybrid, run = (layer.data.setdefault(section, {}) for section in ("hybrid", "run"))
    if isinstance(hybrid, dict) and isinstance(hybrid.get("controller"), dict) and "name" not in hybrid["controller"]:
        hybrid["controller"]["name"] = SASR.name
        layer.origins[("hybrid", "controller", "name")] = DEFAULT
    _name_curriculum(layer)
    if isinstance(hybrid, dict) and hybrid.get("method") and "controller" not in hybrid:
        hybrid["controller"] = {"name": GRPOOnly.name}  # a method is of GRPO steps
        layer.origins[("hybrid", "controller")] = layer.origins[("hybrid", "controller", "name")] = DEFAULT
    if isinstance(run, dict) and run.get("dir") is None:
        run["dir"] = f"runs/{path.stem}"
        layer.origins[("run", "dir")] = DEFAULT


def _name_curriculum(layer: Layer) -> None:
    """A curriculum without a name is the one that there was before others, so that another is told from it."""
    for stage in ("hybrid", "warmup"):
        section = layer.data.get(stage)
        curriculum = section.get("curriculum") if isinstance(section, dict) else None
        if isinstance(curriculum, dict) and "name" not in curriculum:
            curriculum["name"] = EasyToHard.name
            layer.origins[(stage, "curriculum", "name")] = DEFAULT


def _reward_files(layer: Layer, strays: Mapping[str, str]) -> Iterable[ConfigError]:
    """What is wrong with the files of the rewards, those that train and those that judge."""
    evaluate = layer.data.get("evaluate")
    lists: dict[tuple[str | int, ...], Any] = {("rewards",): layer.data.get("rewards")}
    lists["evaluate", "reward"] = evaluate.get("reward") if isinstance(evaluate, dict) else None
    named = [
        ((*key, index, "path"), reward["path"])
        for key, rewards in lists.items()
        for index, reward in enumerate(rewards if isinstance(rewards, list) else [])
        if isinstance(reward, dict) and isinstance(reward.get("path"), str)
    ]
    for key, path in named:
        file, where = _reward_file(path), where_in(layer, key)
        if path in strays:
            yield ConfigError(
                f"{strays[path]!r} leads out of the folder of the recipe, to {file.resolve()}",
                expected="a file in that folder, or an absolute path: a reward is code that runs",
                where=where,
                fix=f"write {file.resolve()}{path.removeprefix(str(file))}, if that is the file you mean",
            )
        elif not file.is_file():
            yield ConfigError(f"{display(file)} does not exist", where=where, fix=nearest_files(file))


def _parts(key: str) -> Key:
    return tuple(int(part) if part.isdigit() else part for part in key.split("."))


def _leaves(value: Any, at: str = "") -> list[str]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    return [leaf for key, item in items for leaf in _leaves(item, f"{at}.{key}" if at else str(key))] or [at]
