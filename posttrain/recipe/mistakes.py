"""What pydantic found wrong, as errors that say where it was written and what to write instead."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from posttrain.errors import ConfigError
from posttrain.nearest import did_you_mean, nearest
from posttrain.recipe.library_fields import library_fields
from posttrain.recipe.yamlfile import Key, Layer, dotted

UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
WORDS = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a finite number": "a finite number",
    "a valid boolean": "true or false",
    "a valid string": "text",
    "a valid list": "a list",
    "a valid dictionary": "a mapping of keys to values",
}
PASSED_ON = {"warmup": ["trl.SFTConfig"], "hybrid": ["trl.GRPOConfig"], "lora": ["peft.LoraConfig"]}
"""Library configs that take the `args` of a section."""
SHOWN = 60
KINDS_OF_HYBRID = (("method",), ("controller",), ("curriculum",))


def explain(error: ValidationError, model: type[BaseModel], layer: Layer, data: Any) -> list[ConfigError]:
    """One `ConfigError` per wrong key, in the order of the file's lines.

    Args:
        error: What validation raised.
        model: The model that was validated.
        layer: Where each key was written.
        data: What was validated.
    """
    found: dict[Key, ConfigError] = {}
    for detail in error.errors():
        key, problem = _explain_one(detail, model, layer, data)
        if key in found and found[key].expected and problem.expected:  # the members of a union, each refusing
            both = f"{found[key].expected} or {problem.expected}"
            problem = ConfigError(problem.seen, expected=both, where=problem.where, fix=problem.fix)
        found[key] = problem
    return [found[key] for key in sorted(found, key=lambda key: _line(layer.origin(key)))]


def raise_all(problems: Sequence[ConfigError], what: str) -> None:
    """Raise the one problem, or one error that lists them all; return when there is none."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ConfigError(f"{what} has {len(problems)} problems\n\n" + "\n\n".join(str(one) for one in problems))


def where_in(layer: Layer, key: Key) -> str:
    """`file:line: a.b.c` of a key, or of the section that it would be in."""
    origin = layer.origin(key)
    return dotted(key) if origin == "default" else f"{origin}: {dotted(key)}" if key else origin


def _line(origin: str) -> tuple[str, int]:
    file, _, line = origin.rpartition(":")
    return (file, int(line)) if line.isdigit() else (origin, 0)


def _explain_one(detail: Any, model: type, layer: Layer, data: Any) -> tuple[Key, ConfigError]:
    kind, value = detail["type"], detail["input"]
    key, annotation = _clean(detail["loc"], model, data, keep_last=kind in UNKNOWN_KEY)
    if kind in UNKNOWN_KEY:
        return key, _unknown_key(key, annotation, model, layer, data)
    if kind == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in detail["ctx"]["expected_tags"].split(",")]
        seen, key = repr(detail["ctx"]["tag"]), (*key, "name")
        fix = did_you_mean(detail["ctx"]["tag"], tags)
        return key, ConfigError(seen, expected=_one_of(tags), where=where_in(layer, key), fix=fix)
    if kind == "union_tag_not_found":
        tags = [name for one in _classes(annotation) if (name := _default_name(one))]
        return key, ConfigError("name is missing", expected=_one_of(tags), where=where_in(layer, key))
    if kind.startswith("missing"):
        return key, ConfigError(f"{key[-1]!r} is missing", where=where_in(layer, key[:-1]), fix=f"add {dotted(key)}")
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        parts = (cause.where or "").split(".")
        if all(part.isidentifier() for part in parts) and cause.where != (key or ("",))[-1]:
            key = (*key, *parts)
        where = where_in(layer, key)
        return key, ConfigError(cause.seen, expected=cause.expected, where=where, fix=cause.fix)
    expected = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    for said, meant in WORDS.items():
        expected = meant if expected.startswith(said) else expected
    fix = _convert(value, kind)
    if kind == "literal_error" and isinstance(value, str):
        fix = did_you_mean(value, detail["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", "))
    return key, ConfigError(_shown(value), expected=expected, where=where_in(layer, key), fix=fix)


def _unknown_key(key: Key, section: Any, model: type, layer: Layer, data: Any) -> ConfigError:
    name, legal = str(key[-1]), list(children(section, _at(data, key[:-1])))
    where = where_in(layer, key)
    kinds = [_default_name(one) for one in _classes(section) if name in children(one)]
    fix = f"of its kinds only {' and '.join(map(str, kinds))} has it" if kinds else _meant(key, legal, model)
    return ConfigError(f"unknown key {name!r}", expected=_one_of(legal), where=where, fix=fix)


ELSEWHERE = {
    "output_dir": "run.dir",
    "max_steps": "warmup.steps or hybrid.steps",
    "num_train_epochs": "warmup.steps and hybrid.steps, in optimizer steps",
    "max_prompt_length": "task.longest, in characters, of the task rows",
    "model_name_or_path": "model",
    "base_model": "model",
    "dataset_name": "task.dataset",
    "datasets": "task.path or task.dataset",
    "reward_funcs": "rewards",
    "reward_weights": "the weight of each of the rewards",
    "run_name": "run.tracking.name",
    "wandb_project": "run.tracking.project",
    "wandb": "run.tracking",
    "use_vllm": "rollout.engine: vllm",
    "vllm_mode": "rollout.mode",
    "use_peft": "lora",
    "adapter": "lora",
    "peft_config": "lora",
    "eval_steps": "evaluate.every",
    "logging_steps": "run.log_every",
}
"""Names that other trainers have for what a recipe calls otherwise."""


def _meant(key: Key, legal: list[str], model: type) -> str | None:
    """What an unknown key was most likely meant as: the same key elsewhere, one that is near, a library's field."""
    name, everywhere = str(key[-1]), _all_keys(model)
    # What one of many methods, controllers or curricula calls so is not what a key of another section was meant as
    near_by = (path for path in everywhere if path[0] == key[0] or path[1:2] not in KINDS_OF_HYBRID)
    if same := [dotted(path) for path in near_by if path[-1] == name]:
        return "it belongs at " + " or ".join(same)
    if any(name in library_fields(config) for config in PASSED_ON.get(str(key[0]), ())):
        return f"pass it on as {dotted((key[0], 'args', name))}"
    if name in ELSEWHERE:
        return f"that is {ELSEWHERE[name]} here"
    if near := did_you_mean(name, legal):
        return near
    names = nearest(name, dict.fromkeys(str(path[-1]) for path in everywhere))
    paths = [path for path in everywhere if names and path[-1] == names[0]]
    paths = [path for path in paths if path[0] == key[0]] or paths
    return f"did you mean {' or '.join(dotted(path) for path in paths)}?" if paths else None


def _convert(value: Any, kind: str) -> str | None:
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if kind in ("int_type", "float_type") and isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return None
        return f"write {value} without quotes"
    if kind == "bool_type" and str(value).lower() in ("yes", "on", "1", "no", "off", "0"):
        return "write true" if str(value).lower() in ("yes", "on", "1") else "write false"
    return None


def children(annotation: Any, value: Any = None) -> dict[str, Any]:
    """The keys of a section and their types; of a union of sections, those of the one that `value` names."""
    classes = _classes(annotation)
    if len(classes) > 1 and isinstance(value, Mapping):
        classes = [one for one in classes if _default_name(one) == value.get("name")] or classes
    keys: dict[str, Any] = {}
    for one in classes:
        if isinstance(one, type) and issubclass(one, BaseModel):
            # Annotated keeps what the field's own metadata says, a discriminator for one
            keys |= {field.alias or name: field.annotation for name, field in one.model_fields.items()}
        else:
            hints = typing.get_type_hints(one)
            keys |= {field.name: hints[field.name] for field in dataclasses.fields(one)}
    return keys


def _classes(annotation: Any) -> list[Any]:
    """The model and dataclass members of an annotation, out of their unions and `Annotated`."""
    if get_origin(annotation) is Annotated:
        return _classes(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return [one for part in get_args(annotation) for one in _classes(part)]
    is_section = isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)
    )
    return [annotation] if is_section else []


def _default_name(section: Any) -> str | None:
    return getattr(section, "name", None)


def _clean(loc: Sequence[str | int], model: Any, data: Any, *, keep_last: bool) -> tuple[Key, Any]:
    """A pydantic location without the names of union members in it, and the type of the section it ends in.

    The section is that of the last kept key's parent for an unknown key, else the type at the key itself.
    """
    key: list[str | int] = []
    annotation, value = model, data
    for index, part in enumerate(loc):
        legal = children(annotation, value)
        last = index == len(loc) - 1
        if isinstance(part, int):
            arguments = get_args(annotation)
            key.append(part)
            annotation = arguments[0] if arguments else None
        elif part in legal:
            key.append(part)
            annotation = legal[part]
        elif last and keep_last:
            key.append(part)
            break
        else:
            continue
        value = _at(data, tuple(key))
    return tuple(key), annotation


def _at(data: Any, key: Key) -> Any:
    for part in key:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _all_keys(model: Any, at: Key = ()) -> list[Key]:
    keys: list[Key] = []
    for name, annotation in children(model).items():
        keys += [(*at, name), *_all_keys(annotation, (*at, name))]
    return keys


def _one_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else "one of " + ", ".join(names)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
