"""What a run's model began with, as others can find it, and plain data without what belongs to this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from posttrain.models.gguf_files import PACKAGED
from posttrain.recipe.ratios import bai_ratios
from posttrain.rundir import reading as run_reading
from posttrain.rundir.layout import Layout
from posttrain.rundir.masking import without_secrets

ON_THE_HUB = {"smollm2-135m-instruct": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")}
"""Where the models of installed packages come from, and their licenses."""
_ABSOLUTE = re.compile(r"(?:file://|~|[A-Za-z]:)?[/\\].*", re.DOTALL)
_WITHIN = re.compile(r"(?<![\w/.:~-])(?:file://|~)?(?:/[\w.@+-]+){2,}/?")
"""An absolute path within a longer text; an address of the web has a colon before its slashes."""


@dataclass(frozen=True)
class Origin:
    """The model that a run began with, as others can find it.

    Attributes:
        hub_id: Its id on the hub; `None` where there is none.
        license: The license's identifier, if known.
        words: What it is, for people.
        made_here: The weights trained on are not those of `hub_id` but a file's or the run's own.
        named: `hub_id` was given by the user.
    """

    hub_id: str | None
    license: str | None
    words: str
    made_here: bool = False
    named: bool = False


def origin_of(layout: Layout, *, base_model: str | None = None, license: str | None = None) -> Origin:
    """What a run began with, by its recipe.

    Args:
        layout: The run.
        base_model: The hub id to give instead of the recipe's.
        license: The license to give instead of the base model's.
    """
    model = (run_reading.recipe(layout) if layout.recipe_file.exists() else {}).get("model") or {}
    name = model.get("name") or ""
    hub_id, known, words, made_here = None, None, "a model of this machine", True
    if model.get("init"):
        words = (
            f"a Llama-style model built from scratch ({', '.join(f'{k} {v}' for k, v in model['init'].items() if v)})"
        )
    elif merge := model.get("merge"):  # `name` is the first of them
        ratios = merge.get("ratios") or bai_ratios(*merge["bai"])
        shown = [f"`{each}`" if is_hub_id(each) else plain_name(PurePath(each).name) for each in merge["models"]]
        words = "the sum " + " + ".join(f"{ratio:.4g} * {each}" for ratio, each in zip(ratios, shown, strict=True))
    elif name in PACKAGED:
        hub_id, known = ON_THE_HUB.get(name, (None, None))
        words = (
            f"{hub_id or name}, dequantised from {PACKAGED[name].file} of the Python package {PACKAGED[name].package}"
        )
    elif model.get("gguf") or name.lower().endswith(".gguf"):
        words = f"a GGUF file, {plain_name(PurePath(model.get('gguf') or name).name)}, dequantised"
    elif name and is_hub_id(name):
        hub_id, made_here = name, False
        words = f"`{name}`" + (f", revision {model['revision']}" if model.get("revision") else "")
        known = _license_of(layout)
    elif name:
        words, known = f"a local model, {plain_name(PurePath(name).name)}", _license_of(layout)
    if base_model:
        words = f"`{base_model}`" + (f" ({words})" if made_here else "")
    return Origin(base_model or hub_id, license or known, words, made_here, named=base_model is not None)


def is_hub_id(name: str) -> bool:
    """Whether a name can be one of the hub's, and is no file or folder here."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).expanduser().exists()


def _license_of(layout: Layout) -> str | None:
    """The license in the base model's own card, where its folder is at hand."""
    from huggingface_hub import ModelCard

    from posttrain.reading.compare_weights import start_folder  # it loads torch

    folder, _ = start_folder(layout)
    if folder is None or not (folder / "README.md").is_file():
        return None
    try:
        return ModelCard.load(folder / "README.md", ignore_metadata_errors=True).data.license
    except (OSError, ValueError):
        return None


def without_places(value: Any) -> Any:
    """Plain data without secrets and without paths of this machine, of which the last part stays."""
    return without_paths(without_secrets(value))


def without_paths(value: Any) -> Any:
    """Plain data without absolute paths, of which the last part stays."""
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    if _ABSOLUTE.fullmatch(value) and "\n" not in value:
        return PurePath(value.replace("\\", "/")).name or "/"
    return _WITHIN.sub(lambda found: PurePath(found[0]).name, value)


def plain_name(text: str) -> str:
    """A name that is no markup anywhere."""
    return re.sub(r"[^\w./ +-]", "_", text)
