"""What `posttrain eval` is asked for: a model, and the recipe that says how to evaluate it. Loads no torch.

Of a run it is the run's own recipe, so that its evaluation is repeated to the digit; what was trained on is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.errors import ConfigError, DataError, PosttrainError
from posttrain.inputs.judged import rows_of
from posttrain.inputs.leaks import among, prompt_hashes
from posttrain.nearest import did_you_mean
from posttrain.recipe.model_sections import GGUF_SUFFIX
from posttrain.recipe.recipe import TASKS, Recipe, load_recipe, recipe_of
from posttrain.rundir.facts import difference, flatten, read_recipe
from posttrain.rundir.layout import Layout
from posttrain.rundir.reading import evals, last_evals
from posttrain.tasks import held_out_alone, own_rewards

RECIPES = (".yaml", ".yml")
HELD = ("dtype", "load_in_4bit", "bnb_4bit_quant_type", "use_bnb_nested_quant")
"""Keys of `model` that say in what its weights are held."""


@dataclass(frozen=True)
class Asked:
    """A model and how to evaluate it.

    Attributes:
        model: Hub id, folder or GGUF file.
        recipe: Whose settings hold.
        layout: The run that the model is of.
        own: Whether the recipe is the run's.
        changed: `key: was -> is` of each of the run's settings that were changed.
        recorded: The run's line of eval.jsonl for this model, if there is one.
        kept: What was taken over from the recipe beside a model that is asked another task, in words.
    """

    model: str
    recipe: Recipe
    layout: Layout | None = None
    own: bool = False
    changed: Sequence[str] = ()
    recorded: dict[str, Any] | None = None
    kept: Sequence[str] = ()


def asked(what: str, task: str | None, overrides: Sequence[str], model: str | None = None) -> Asked:
    """What is to be evaluated, and how.

    Args:
        what: The directory of a run, a folder within one, a recipe's file, or a model.
        task: The task of a model, instead of that of its run.
        overrides: `key=value`, of the recipe.
        model: Another model than that of a recipe.

    Raises:
        ConfigError: There is no model, no recipe, or a setting is wrong.
    """
    path = Path(what)
    if path.suffix.lower() in RECIPES:
        recipe = load_recipe(path, overrides)
        chosen = model or (None if recipe.model.merge else recipe.model.name or recipe.model.gguf)
        if not chosen:
            folder = Path(recipe.run.dir or "")
            raise ConfigError(
                "the recipe's model is made by its run",
                expected="the directory of a run, or a recipe with a model",
                where=what,
                fix=f"evaluate the run: posttrain eval {folder}" if folder.is_dir() else "name one by --model MODEL",
            )
        return Asked(chosen, recipe, run_of(Path(chosen)))
    layout = run_of(path)
    chosen = _model_of(layout) if layout and layout.path.resolve() == path.resolve() else what
    if layout and task is None and layout.recipe_file.is_file():
        return _of_run(layout, model or chosen, overrides)
    if task is None:
        raise ConfigError(
            f"no task is named, and {what} is not of a run",
            expected="a model with --task NAME, the directory of a run, or a recipe's file",
            where=what,
            fix="add --task " + " or ".join(TASKS) + "; or correct the path",
        )
    if task not in TASKS:
        raise ConfigError(
            f"no task named {task!r}",
            expected="one of " + ", ".join(TASKS),
            where="--task",
            fix=did_you_mean(task, TASKS),
        )
    named = [each if each.split(".")[0] in Recipe.model_fields else f"task.{each}" for each in overrides]
    section = {"gguf": chosen} if chosen.lower().endswith(GGUF_SUFFIX) else {"name": chosen}
    data: dict[str, Any] = {"model": section, "task": {"name": task}, "rollout": {"engine": "transformers"}}
    own = _of_the_model(layout.path if layout else path, Path(chosen))
    held = own.pop("model", {})
    recipe = recipe_of(data | own | {"model": section | held}, named)
    template = recipe.hybrid.template_kwargs
    kept = [f"chat_template_kwargs {json.dumps(template)}"] if "hybrid" in own else []
    kept += [f"{key} {value}" for key, value in held.items() if value not in (True, "auto")]
    kept += ["4 bits"] if held.get("load_in_4bit") else []
    return Asked(chosen, recipe, layout, kept=kept)


def held_out(asked: Asked) -> list[dict[str, Any]]:
    """The rows to evaluate on; no demonstrations are asked for.

    Raises:
        DataError: There are none, or not as many as asked for.
    """
    recipe = asked.recipe
    as_trained = asked.own and not any(line.startswith(("task", "run.seed")) for line in asked.changed)
    rows = rows_of(recipe, task=None if as_trained else held_out_alone(recipe.task)).eval
    if not rows:
        raise DataError("the task has no evaluation rows", expected="at least one", where="task.eval")
    return rows


def trained_on(asked: Asked, rows: Sequence[dict[str, Any]], *, allowed: bool = False) -> str:
    """How many of the rows the model's run was trained on, in words; nothing where there are none.

    Raises:
        DataError: There are some, and that is not allowed.
    """
    if asked.layout is None:
        return ""
    try:
        hashes = _trained_hashes(asked.layout)
    except PosttrainError as error:
        return f"what the run was trained on cannot be told: {error.seen}"
    seen = among(rows, hashes)
    if not seen:
        return ""
    said = f"{len(seen)} of the {len(rows)} problems are among those that {asked.layout.path} was trained on"
    if not allowed:
        raise DataError(
            f"{said}, the first: {seen[0]['prompt']!r}",
            expected="problems that the model has not seen",
            where="task",
            fix="leave the run's task and seed as they are, take other data, or go on by --allow-overlap",
        )
    return said


def run_of(path: Path) -> Layout | None:
    """The run that a folder is, or lies in."""
    for folder in (path, *path.absolute().parents[:3]):
        if (folder / "recipe.yaml").is_file() and any(
            (folder / name).exists() for name in ("environment.json", "state.json")
        ):
            return Layout(folder)
    return None


def _of_the_model(folder: Path, chosen: Path) -> dict[str, Any]:
    """What of the recipe in a folder, a run's or an export's, is the model's whatever it is asked; never code to run.

    That is how prompts are rendered, and how weights are held: of an adapter the base's too, which merged is no more.
    """
    file = folder / "recipe.yaml"
    if not file.is_file():
        return {}
    recipe = read_recipe(file)
    adapter = (chosen / "adapter_config.json").is_file()
    model: Any = recipe.get("model")
    model = model if isinstance(model, Mapping) else {}
    own: dict[str, Any] = {
        "model": {key: model[key] for key in (HELD if adapter else HELD[:1]) if model.get(key)},
        **({"lora": recipe["lora"]} if adapter and recipe.get("lora") else {}),
    }
    template = ((recipe.get("hybrid") or {}).get("args") or {}).get("chat_template_kwargs")
    return own | ({"hybrid": {"args": {"chat_template_kwargs": template}}} if template else {})


def _of_run(layout: Layout, model: str, overrides: Sequence[str]) -> Asked:
    base = load_recipe(layout.recipe_file)
    kept = {layout.model: "final", layout.averaged_model: "averaged", layout.warmup_model: "warmup"}
    stage = {folder.resolve(): name for folder, name in kept.items()}.get(Path(model).resolve())
    recorded = last_evals(evals(layout)).get(stage or "")
    judge = (recorded or {}).get("judge")
    if recorded and not judge and not base.evaluate.reward and base.rewards:
        # Of before what judges was the recipe's to say: the task's own reward did
        own = [{"name": name} for name in own_rewards(base.task).values() if name]
        base = load_recipe(layout.recipe_file, [f"evaluate.reward={json.dumps(own)}"])
        overrides = [f"evaluate.reward={json.dumps(own)}", *overrides]
    recipe = load_recipe(layout.recipe_file, overrides)
    changed = difference(flatten(base.resolved()), flatten(recipe.resolved()))
    return Asked(model, recipe, layout, True, changed, recorded)


def _model_of(layout: Layout) -> str:
    folder = next((each for each in (layout.model, layout.warmup_model) if each.is_dir()), None)
    if folder is None:
        raise ConfigError(
            "the run has no model yet",
            expected="its model/ or warmup/",
            where=str(layout.path),
            fix=f"go on with it: posttrain run {layout.recipe_file}",
        )
    return str(folder)


def _trained_hashes(layout: Layout) -> str:
    kept = json.loads(layout.data_file.read_text(encoding="utf-8")) if layout.data_file.is_file() else {}
    if "trained_prompts" in kept:
        return str(kept["trained_prompts"])
    recipe = load_recipe(layout.recipe_file)  # of before they were kept: the rows are drawn again
    data = rows_of(recipe)
    return prompt_hashes(data.train, data.demonstrations)
