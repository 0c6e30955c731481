"""The recipes that ship, in a checkout and installed alike: `posttrain:base/lora` is recipes/base/lora.yaml."""

from __future__ import annotations

from pathlib import Path

from posttrain.errors import ConfigError
from posttrain.nearest import did_you_mean

PREFIX = "posttrain:"


def shipped_folder() -> Path:
    """Where they lie: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "shipped_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def located(path: str | Path, where: str | None = None) -> Path:
    """The file that a recipe's name stands for: one that ships behind `posttrain:`, else the path itself.

    Args:
        path: What `extends` or the command line names.
        where: What named it, for the error message.

    Raises:
        ConfigError: No recipe of that name ships.
    """
    name = str(path)
    if not name.startswith(PREFIX):
        return Path(path)
    name = name.removeprefix(PREFIX).removesuffix(".yaml")
    folder = shipped_folder()
    names = sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))
    if name not in names:
        raise ConfigError(
            f"no recipe {name!r} ships with posttrain",
            expected="one of " + ", ".join(names),
            where=where or str(path),
            fix=did_you_mean(name, names),
        )
    return folder / f"{name}.yaml"
