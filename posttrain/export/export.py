"""A run's model as a folder to share: weights, tokenizer, model card, recipe, and nothing that belongs to this machine.

The folder is written beside its place and renamed, so that it is there whole or not at all. Weights that trained as a
whole are copied; an adapter is copied as it is, or merged: added to the base's weights in float32, saved, read back,
and compared with the adapter on the same tokens.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain.errors import CheckpointError, ConfigError, PosttrainError
from posttrain.export.model_card import Subject, write_card
from posttrain.export.origin import Origin, origin_of, without_paths, without_places
from posttrain.inputs.four_bit import four_bit_options
from posttrain.recipe.adapter_serving import adapter_config, why_merged
from posttrain.recipe.model_sections import ModelSection
from posttrain.rundir import reading as run_reading
from posttrain.rundir.facts import write_recipe
from posttrain.rundir.layout import BASES, REST, Layout
from posttrain.storage import files
from posttrain.storage.checkpoints import why_torn

ADAPTER_CONFIG = "adapter_config.json"
SHARED = re.compile(
    r"(config|generation_config|adapter_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json"
    r"|.*\.safetensors|.*\.safetensors\.index\.json|tokenizer\.model|merges\.txt|chat_template\.jinja|[a-z]\w*\.py"
)
"""What of a saved model is shared; the rest (optimizer, arguments, manifest) is the run's."""
DTYPES = ("float32", "bfloat16", "float16")


@dataclass
class Exported:
    """What an export wrote.

    Attributes:
        folder: Where.
        what: The model in words, such as "the final model".
        bytes: The size of everything in it.
        notes: What a user should know: what an adapter needs to be loaded, how exact a merge is.
    """

    folder: Path
    what: str
    bytes: int
    notes: list[str] = field(default_factory=list)


def export(
    run: str | Path, to: str | Path, *, stage: str = "final", checkpoint: int | None = None, merge_lora: bool = False,
    dtype: str | None = None, base_model: str | None = None, license: str | None = None, force: bool = False,
    name: str | None = None,
) -> Exported:  # fmt: skip
    """Write a model of a run and its card to a folder.

    Args:
        run: The run's directory.
        to: The folder. It must not be there, or be empty; see `force`.
        stage: "final", "averaged" or "warmup".
        checkpoint: A step of the hybrid stage, whose checkpoint is taken instead.
        merge_lora: Add an adapter to the weights of its base model.
        dtype: What the weights are saved in; `None` keeps them as they trained (a merge: float32).
        base_model: The hub id of the base model, where the recipe has a folder of this machine or a file.
        license: The license's identifier on the hub; `None` takes the base model's, if it is known.
        force: Replace a folder that an earlier export wrote.
        name: What the card calls the model, such as its id on the hub; `None` takes the folder's name.

    Raises:
        ConfigError: There is no such run or model, `merge_lora` without an adapter, an adapter whose base nobody
            could find, or a folder with something else in it.
        CheckpointError: The model is torn, the folder could not be written, or a merge does not do what the adapter
            does.
    """
    layout, to = run_reading.open_run(run), Path(to)
    subject = find_model(layout, stage, checkpoint)
    source = subject.folder
    adapter = (source / ADAPTER_CONFIG).is_file()
    if merge_lora and not adapter:
        raise ConfigError(
            "there is no adapter to merge: this run trained the weights as a whole", where="--merge-lora",
            fix="leave --merge-lora out",
        )  # fmt: skip
    origin = origin_of(layout, base_model=base_model, license=license)
    if adapter and not merge_lora:
        _check_base(origin, rest=(layout.path / REST).is_dir())
    check_free(to, force=force)
    torn = why_torn(source, contents=True)
    if torn:
        raise CheckpointError(
            f"the model is torn: {torn}", where=str(source), fix="bring it back from a copy, or export another stage"
        )
    exported = Exported(to, subject.what, 0)
    with in_place(to, force=force) as folder:
        if merge_lora:
            exported.notes.append(_merged(source, folder, layout))
        _copy(source, folder, merged=merge_lora)
        if dtype:
            from posttrain.models.merging import cast

            cast(folder, dtype)
        _clean(folder, origin, adapter=adapter and not merge_lora)
        if layout.recipe_file.exists():
            write_recipe(folder / "recipe.yaml", without_places(run_reading.recipe(layout)))
        kind = "adapter" if adapter and not merge_lora else "merged" if adapter else "whole"
        write_card(folder, subject, name=name or to.resolve().name, origin=origin, kind=kind)
        exported.bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if adapter and not merge_lora:
        model = run_reading.recipe(layout).get("model") or {} if layout.recipe_file.exists() else {}
        how = " in 4 bits" if model.get("load_in_4bit") else ""
        exported.notes.append(
            f"this is an adapter: to load it one needs PEFT and its base model{how}, {origin.hub_id}; --merge-lora "
            "gives a model that loads by itself"
        )
        if reason := why_merged(adapter_config(exported.folder) or {}, four_bit=bool(how)):
            exported.notes.append(f"vLLM cannot serve this adapter as it is: {reason}")
    return exported


def find_model(layout: Layout, stage: str, checkpoint: int | None) -> Subject:
    """The model that is exported.

    Raises:
        ConfigError: It is not there (yet); the error names what is.
    """
    if checkpoint is not None:
        folder, what = layout.checkpoints("hybrid") / f"checkpoint-{checkpoint}", f"the checkpoint of step {checkpoint}"
    else:
        folder, what = {
            "final": (layout.model, "the final model"),
            "averaged": (layout.averaged_model, "the average of the last checkpoints"),
            "warmup": (layout.warmup_model, "the model at the end of the warm-up"),
        }[stage]
    if folder.is_dir():
        alone = stage if checkpoint is None else ""
        return Subject(layout, folder, what, checkpoint, warmup=alone == "warmup", averaged=alone == "averaged")
    steps = sorted(int(path.name.rpartition("-")[2]) for path in layout.checkpoints("hybrid").glob("checkpoint-*[0-9]"))
    there = [
        *(["--stage final"] if layout.model.is_dir() else []),
        *(["--stage averaged"] if layout.averaged_model.is_dir() else []),
        *(["--stage warmup"] if layout.warmup_model.is_dir() else []),
        *([f"--checkpoint {' or '.join(map(str, steps))}"] if steps else []),
    ]
    unfinished = checkpoint is None and stage == "final"
    raise ConfigError(
        f"there is no {folder.relative_to(layout.path)}/" + (": the run is not finished" if unfinished else ""),
        expected=what,
        where=str(layout.path),
        fix=("finish the run, or export " if unfinished else "export ") + "; ".join(there) if there else None,
    )


def check_free(to: Path, *, force: bool = False) -> None:
    """Refuse a place that holds something else.

    Raises:
        ConfigError: It is a file, or a folder with files that are not an earlier export's or must not be replaced.
    """
    if to.is_file():
        raise ConfigError("is a file", expected="a new or an empty folder", where=f"--to {to}")
    if not to.is_dir() or not any(to.iterdir()):
        return
    earlier = (to / "README.md").is_file() and (to / "recipe.yaml").is_file() and not (to / "steps.jsonl").exists()
    if not (force and earlier):
        raise ConfigError(
            "the folder is not empty" + ("" if earlier or not force else ", and what is in it is no export"),
            expected="a new or an empty folder",
            where=f"--to {to}",
            fix="name another folder, or add --force to replace this earlier export" if earlier else
            "name another folder",
        )  # fmt: skip


def _check_base(origin: Origin, *, rest: bool) -> None:
    if origin.hub_id and (origin.named or not (origin.made_here or rest)):
        return
    words = f"what the adapter left of {origin.words} when it began with a part of it" if rest else origin.words
    raise ConfigError(
        "the adapter stands on a model of this machine alone: " + words,
        expected="a base model that others can load",
        where="--to",
        fix="add --merge-lora for a model that loads by itself, or --base-model ORG/NAME if those very weights are "
        "there",
    )


def _merged(source: Path, folder: Path, layout: Layout) -> str:
    """Merge an adapter into `folder`; the base model is looked for in the run, which may have been moved."""
    from posttrain.models.merging import merge

    recipe = run_reading.recipe(layout) if layout.recipe_file.exists() else {}
    section = ModelSection.model_validate(recipe.get("model") or {"name": "unknown"})
    how: dict[str, Any] = {
        "trust_remote_code": section.trust_remote_code, "four_bit": four_bit_options(section, on_gpu=False),
    }  # fmt: skip
    config = json.loads((source / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    here = next((layout.path / name for name in (REST, *BASES) if (layout.path / name).is_dir()), None)
    if here is None or Path(config["base_model_name_or_path"]).is_dir():
        return merge(source, folder, **how)
    moved = folder / "adapter"
    moved.mkdir()
    try:
        shutil.copyfile(source / "adapter_model.safetensors", moved / "adapter_model.safetensors")
        files.write_json(moved / ADAPTER_CONFIG, config | {"base_model_name_or_path": str(here.resolve())})
        return merge(moved, folder, **how)
    finally:
        shutil.rmtree(moved)


@contextmanager
def in_place(to: Path, *, force: bool) -> Iterator[Path]:
    """A folder that becomes `to` when the block ends well, and vanishes when it does not."""
    to = to.absolute()
    staging, old = (to.with_name(f".{to.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        yield staging
        check_free(to, force=force)  # that took a while
        if to.is_dir():
            to.rename(old)
        staging.rename(to)
        files.sync_folder(to.parent)
    except PosttrainError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"the export could not be written: {error}",
            where=str(to),
            fix=files.FREE_SPACE if error.errno in files.FULL else "name a folder that this user can write to",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if to.exists():
            shutil.rmtree(old, ignore_errors=True)


def _copy(source: Path, folder: Path, *, merged: bool) -> None:
    """Copy what is shared; of a merged adapter what the merge has not written: the tokenizer."""
    for path in sorted(source.iterdir()):
        weights = path.suffix == ".safetensors" or path.name in (
            ADAPTER_CONFIG,
            "config.json",
            "generation_config.json",
        )
        if path.is_file() and SHARED.fullmatch(path.name) and not (merged and weights):
            shutil.copyfile(path, folder / path.name)
    templates = source / "additional_chat_templates"
    if templates.is_dir():
        shutil.copytree(templates, folder / templates.name)


def _clean(folder: Path, origin: Origin, *, adapter: bool) -> None:
    """Take out of the JSON files what belongs to this machine or to training."""
    for name in ("config.json", "generation_config.json", ADAPTER_CONFIG, "tokenizer_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        value.pop("_name_or_path", None)
        value.pop("name_or_path", None)
        if path.name == "config.json" and value.get("use_cache") is False:
            value["use_cache"] = True  # training needed none; sampling without it takes forever
        if path.name == ADAPTER_CONFIG and adapter:
            value["base_model_name_or_path"] = origin.hub_id
            value["revision"] = None if origin.named else value.get("revision")
        if path.name == "tokenizer_config.json":  # tokens and templates may look like a path and must stay
            value = {key: without_paths(item) if _is_here(item) else item for key, item in value.items()}
        else:
            value = without_paths(value)
        files.write_json(path, value)


def _is_here(value: Any) -> bool:
    """Whether it is the path of a file or folder of this machine."""
    if not isinstance(value, str) or len(value) > 1000 or "\0" in value:
        return False
    path = Path(value).expanduser()
    return path.is_absolute() and len(path.parts) > 2 and path.exists()
