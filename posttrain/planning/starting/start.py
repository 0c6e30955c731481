"""A folder to begin in: a recipe and a reward for a file of rows, or the example that ships."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from posttrain.errors import ConfigError
from posttrain.nearest import nearest_files
from posttrain.planning.starting.found import Found, in_words, look
from posttrain.planning.starting.recipe_file import commands, recipe_text, relative, sizes_of
from posttrain.planning.starting.reward_file import reward_for
from posttrain.recipe.recipe import load_recipe
from posttrain.recipe.sections import RewardConfig
from posttrain.recipe.shipped import PREFIX, located
from posttrain.scoring.loading import load_reward
from posttrain.storage import files

RECIPE, REWARD = "recipe.yaml", "reward.py"


@dataclass(frozen=True)
class Started:
    """What was written.

    Args:
        lines: What was found, in words.
        written: The files.
        next: The commands to go on with.
    """

    lines: list[str]
    written: list[Path]
    next: list[str]


def start(
    data: str | Path,
    *,
    eval_file: str | Path | None = None,
    reward: str | None = None,
    out: str | Path | None = None,
    force: bool = False,
) -> Started:
    """Look at a file of rows and write a recipe for it, and a reward.

    Args:
        data: The file.
        eval_file: Rows to evaluate on; without it some of the file's are held out.
        reward: A reward that is there already, as FILE or FILE:FUNCTION; none is written then.
        out: The folder to write into; None takes one of the file's name in the working directory.
        force: Write over a recipe and a reward that are there.

    Raises:
        DataError: A file cannot be read or used.
        RewardError: `reward` cannot be loaded.
        ConfigError: There is a recipe or a reward in the folder already.
        CheckpointError: The folder cannot be written.
    """
    data = Path(data)
    folder = Path(out) if out is not None else Path(_run_name(data.stem))
    name = _run_name(folder.resolve().name)
    _refuse(folder, [RECIPE, *([] if reward else [REWARD])], force)
    path = _reward_path(reward, folder) if reward else f"{REWARD}:score"
    found = look(data, eval_file)
    sizes = sizes_of(found)
    if sizes.longest:
        found = look(data, eval_file, sizes.longest)
    paths = {"data": relative(data, folder), "reward": path}
    if eval_file is not None:
        paths["eval"] = relative(Path(eval_file), folder)
    recipe, lines, written = folder / RECIPE, list(in_words(found)), []
    if not reward:
        made = reward_for(found)
        lines.append(made.said)
        written.append(folder / REWARD)
        files.write_text(written[-1], made.text)
    written.insert(0, recipe)
    files.write_text(recipe, recipe_text(found, sizes, paths, name, str(recipe)))
    load_recipe(recipe)  # as everything else will: what is wrong with it is said now
    return Started(lines, written, commands(str(recipe), check=_has_gold(found)))


def start_example(out: str | Path | None = None, *, force: bool = False) -> Started:
    """Copy the recipe with a reward and rows of its own, `custom_reward`, so that it works where it lands.

    Args:
        out: The folder; None is `example`.
        force: Write over files that are there.

    Raises:
        ConfigError: Files of these names are there already.
        CheckpointError: The folder cannot be written.
    """
    source, folder = located(f"{PREFIX}custom_reward/recipe").parent, Path(out or "example")
    texts = {file.name: file.read_text(encoding="utf-8") for file in sorted(source.iterdir()) if file.is_file()}
    _refuse(folder, list(texts), force)
    recipe = folder / RECIPE
    named = str(recipe)
    texts[RECIPE] = re.sub(r"(?m)^extends: \.\./(.+)\.yaml$", rf"extends: {PREFIX}\1", texts[RECIPE])
    texts[RECIPE] = texts[RECIPE].replace("recipes/custom_reward/recipe.yaml", named)
    texts[RECIPE] = texts[RECIPE].replace("copy this folder and change all three files", "change all three files")
    for name, text in texts.items():
        files.write_text(folder / name, text)
    load_recipe(recipe)
    return Started([], [folder / name for name in texts], commands(named, check=True))


def _refuse(folder: Path, names: Sequence[str], force: bool) -> None:
    """Refuse to write over what is there."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError("is a file", expected="a folder to write into", where=str(folder), fix="name one by --out")
    there = [name for name in names if (folder / name).exists()]
    if there and not force:
        raise ConfigError(
            f"{' and '.join(there)} {'are' if len(there) > 1 else 'is'} there already",
            expected="a folder without",
            where=str(folder),
            fix="name another one by --out DIR, or write over by --force",
        )


def _reward_path(reward: str, folder: Path) -> str:
    """A reward as the recipe in a folder names it: from there where it lies within, else whole."""
    file, _, function = reward.partition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigError(
            "no such file", expected="FILE.py or FILE.py:FUNCTION", where=f"--reward {file}", fix=nearest_files(path)
        )
    load_reward(RewardConfig(path=reward), ".")
    within = path.resolve().is_relative_to(folder.resolve())
    return f"{relative(path, folder) if within else path.resolve()}:{function or 'score'}"


def _run_name(stem: str) -> str:
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "rows"


def _has_gold(found: Found) -> bool:
    return bool(found.data.demonstrations)
