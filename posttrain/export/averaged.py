"""Several models as one folder: the weighted sum of their weights, with what it was made of written beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from posttrain.errors import ConfigError
from posttrain.export.export import check_free, in_place
from posttrain.inputs.inputs import check_folder, loading
from posttrain.models.averaging import average
from posttrain.models.merging import cast
from posttrain.rundir.layout import Layout
from posttrain.storage import files

MADE_OF = "merged.json"


@dataclass(frozen=True)
class Merged:
    """What was written.

    Attributes:
        models: What was added up: folders and hub ids.
        ratios: One each.
        bytes: The size of everything in the folder.
    """

    models: list[str]
    ratios: list[float]
    bytes: int


def merge_models(
    models: Sequence[str], ratios: Sequence[float] | None, to: str | Path, *, dtype: str = "float32",
    trust_remote_code: bool = False,
) -> Merged:  # fmt: skip
    """Write the weighted sum of models to a folder that transformers and vLLM load.

    Args:
        models: Hub ids, folders, adapters' folders, GGUF files, or runs, which stand for their final models.
        ratios: One each, with the sum 1; None: all alike.
        to: A folder that is not there, or empty.
        dtype: What the weights are saved in; they are added up in float32.
        trust_remote_code: Of the models.

    Raises:
        ConfigError: Models that cannot be loaded or added to one another, ratios that are not theirs, or a folder with
            something in it.
        CheckpointError: The folder could not be written.
    """
    to = Path(to)
    check_free(to)
    if len(models) < 2:
        raise ConfigError(f"{len(models)} model", expected="two or more", where="posttrain merge")
    sources = [_model_of(model) for model in models]
    for source in sources:
        check_folder(source, "posttrain merge")
    shares = [1.0 / len(sources)] * len(sources) if ratios is None else list(ratios)
    with in_place(to, force=False) as folder:
        told = partial(loading, where="posttrain merge")
        average(sources, shares, folder, trust_remote_code=trust_remote_code, loading=told)
        if dtype != "float32":
            cast(folder, dtype)
        named = [model if source == model else Path(model).name for model, source in zip(models, sources, strict=True)]
        named = [Path(name).name if Path(name).exists() else name for name in named]
        files.write_json(folder / MADE_OF, {"models": named, "ratios": shares})
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Merged(sources, shares, size)


def _model_of(name: str) -> str:
    """The folder of a run's final model; else the name."""
    layout = Layout(Path(name).expanduser())
    if not (layout.recipe_file.exists() and layout.steps_file.exists()):
        return name
    if not layout.model.is_dir():
        raise ConfigError("the run has no final model yet", expected="a finished run", where=name,
                          fix="finish it, or name one of its checkpoints")  # fmt: skip
    return str(layout.model)
