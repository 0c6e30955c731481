"""What a run trained, in a line, and the commands to go on with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.controllers import CONTROLLERS
from posttrain.reading.replay_shown import settings_in_words
from posttrain.recipe.recipe import TASKS
from posttrain.rundir.layout import Layout
from posttrain.watching.progress import duration

LONGEST = 80  # characters of a name


def trained(recipe: Mapping[str, Any], environment: Mapping[str, Any], seconds: float) -> str:
    """Model, task, controller, rewards, seed, device and time; what cannot be told is left out.

    Args:
        recipe: The run's, in plain values; may be empty or of another version.
        environment: Of environment.json.
        seconds: In steps and evaluations.
    """
    if not recipe:
        return ""
    run = _section(recipe, "run")
    parts = [
        _model(recipe),
        " + ".join(_cut(str(task.get("label") or task["name"])) for task in _tasks(recipe)),
        _controller(recipe),
        _rewards(recipe),
        f"seed {run['seed']}" if "seed" in run else "",
        _device(run, environment),
        f"{duration(seconds)} in all" if seconds else "",
    ]
    return " · ".join(part for part in parts if part)


def go_on(layout: Layout, environment: Mapping[str, Any], finished: bool, *, has_steps: bool) -> list[tuple[str, str]]:
    """(command, what it shows) for a run; that which goes on with it first where it is not finished."""
    folder = shlex.quote(_shown(layout.path))
    commands = []
    typed = environment.get("command")
    if not finished and isinstance(typed, list) and typed[:2] == ["posttrain", "run"]:
        commands.append((shlex.join(map(str, typed)), "goes on where it stopped"))
    if finished:
        commands.append((f"posttrain view {folder} --eval final", "the answers, right and wrong"))
    if has_steps:
        commands.append((f"posttrain explain {folder} --step 1", "why a step was what it was; steps as on this page"))
    if finished:
        commands.append((f"posttrain compare {folder} OTHER_RUN", "against another run, problem by problem"))
        commands.append((f"posttrain export {folder} --to FOLDER", "the model with a card, for transformers and vLLM"))
    return commands


def _shown(path: Path) -> str:
    """A run's directory as it would be typed where the command was."""
    whole, here = path.resolve(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) and whole != here else path.name or "."


def _section(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = values.get(key)
    return section if isinstance(section, Mapping) else {}


def _model(recipe: Mapping[str, Any]) -> str:
    model, lora = _section(recipe, "model"), _section(recipe, "lora")
    named = model.get("name") or model.get("gguf")
    if named:
        text = _cut(Path(str(named)).name if str(named).startswith("/") else str(named))
    elif size := _section(model, "init"):
        text = f"A model from scratch ({size.get('layers')} layers of {size.get('hidden_size')})"
    else:
        return ""
    return f"{text}, LoRA of rank {lora.get('r')}" if lora else text


def _tasks(recipe: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The task, or those of a mixture."""
    task = _section(recipe, "task")
    several = task.get("tasks")
    parts = several if isinstance(several, list) else [task]
    return [part for part in parts if isinstance(part, Mapping) and part.get("name")]


def _controller(recipe: Mapping[str, Any]) -> str:
    hybrid = _section(recipe, "hybrid")
    settings = dict(_section(hybrid, "controller"))
    if hybrid.get("steps") == 0 or not settings:
        return "warm-up only" if hybrid.get("steps") == 0 else ""
    name = str(settings.pop("name", ""))
    if name not in CONTROLLERS:
        return _cut(name)
    try:
        said = settings_in_words(CONTROLLERS[name](**settings)).removeprefix(name).strip()
    except (TypeError, ValueError):  # of another version
        return name
    if "gamma" in settings and "gamma=" not in said:
        said = f"gamma={settings['gamma']} {said}".strip()
    return f"{name} ({_cut(said)})" if said else name


def _rewards(recipe: Mapping[str, Any]) -> str:
    given = recipe.get("rewards")
    names = [_reward(each) for each in given if isinstance(each, Mapping)] if isinstance(given, list) else []
    if not names:
        kinds = [str(task["name"]) for task in _tasks(recipe)]
        names = [own for kind in kinds if (own := getattr(TASKS.get(kind), "reward", None))]
    return f"reward{'s' if len(names) > 1 else ''} {', '.join(dict.fromkeys(names))}" if names else ""


def _reward(reward: Mapping[str, Any]) -> str:
    named = reward.get("name") or reward.get("import") or Path(str(reward.get("path") or "")).name
    weight = reward.get("weight", 1.0)
    return _cut(str(named)) + (f" x {weight:g}" if isinstance(weight, int | float) and weight != 1 else "")


def _device(run: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    gpus, processes = environment.get("gpus") or [], environment.get("processes") or 1
    if run.get("device") == "cpu" or not gpus:
        cores = environment.get("cpu_count")
        return "" if not environment else f"CPU, {cores} cores" if cores else "CPU"
    return _cut(f"{processes} x {gpus[0]}")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
