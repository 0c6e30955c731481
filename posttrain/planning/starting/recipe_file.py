"""A recipe to begin with, written for the rows of a file: a tiny model, and what to write for a real one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.planning.starting.columns import shown
from posttrain.planning.starting.found import Found, written

POSITIONS = (512, 4096)
"""The longest sequence of the tiny model: at least, and at most, where nine rows in ten fit into that."""
BYTES_PER_TOKEN = 3
"""Of a completion, at the least: what a small vocabulary makes of words that it has seen often."""
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_NOT_TEXT = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


@dataclass(frozen=True)
class Sizes:
    """What the rows' lengths and number ask for.

    Args:
        positions: Of the tiny model.
        completion: Tokens of a completion.
        longest: Characters above which a row is too long for the tiny model; None where none is.
        demonstrations: A warm-up step's.
        completions: A GRPO step's.
    """

    positions: int
    completion: int
    longest: int | None
    demonstrations: int
    completions: int


def sizes_of(found: Found) -> Sizes:
    """Sizes that hold for any tokenizer: a token is a byte at the least."""
    rows = [*found.rows, *found.eval_rows]
    prompts = [len(written(row.prompt).encode()) + 20 * _turns(row.prompt) for row in rows]
    answers = sorted(len(written(one).encode()) for row in rows for one in row.completions)
    usual = answers[(len(answers) - 1) * 9 // 10] if answers else 200
    completion = min(256, max(16, _power_above(usual // BYTES_PER_TOKEN + 2)))
    needed = max([prompt + completion for prompt in prompts] + [usual + max(prompts)])
    most = max(POSITIONS[1], _power_above(sorted(prompts)[(len(prompts) - 1) * 9 // 10] + completion))
    positions = min(most, max(POSITIONS[0], _power_above(needed)))
    # Characters of several bytes count once there: a quarter is safe where a text is all of them
    longest = (positions - completion) // (1 if _ascii(found) else 4) if needed > positions else None
    return Sizes(
        positions,
        completion,
        longest,
        min(32, _power_below(len(found.data.demonstrations))),
        8 * min(8, _power_below(len(found.data.train))),
    )


def recipe_text(found: Found, sizes: Sizes, paths: Mapping[str, str], name: str, file: str) -> str:
    """The recipe.

    Args:
        found: What is in the file.
        sizes: Of `sizes_of`.
        paths: Of the rows (`data`, perhaps `eval`) and of the reward, as the recipe names them.
        name: Of the run's directory.
        file: The recipe, as it is named on a command line.
    """
    sft = bool(found.data.demonstrations)
    lines = [
        f"# Written by `posttrain init` for {shown(found.file.name)}: {found.data.notes[0]}.",
        "#",
        *(f"#   {command}" for command in commands(file, check=sft)),
        "#",
        "# docs/recipes.md has every key, docs/own-data.md the way from here.",
        "extends: posttrain:base/tiny      # a tiny model from scratch, on a CPU: to see that all fits, not to be good",
        "model:",
        f"  init: {{max_position_embeddings: {sizes.positions}}}",
        "# For a real one, a hub id or a folder, put these two lines in the place of those three:",
        "# extends: posttrain:base/lora",
        "# model: Qwen/Qwen2.5-0.5B-Instruct",
        "task:",
        "  name: rows",
        *_task(found, sizes, paths),
        "rewards:",
        f"  - path: {_scalar(paths['reward'])}",
        "warmup:                           # stage 1: SFT on the demonstrations",
        *(
            [
                "  steps: 60                       # some passes over them: `posttrain plan` says how many",
                f"  per_device_train_batch_size: {sizes.demonstrations}",
                f"  max_length: {sizes.positions}",
            ]
            if sft
            else ["  steps: 0                        # the rows have no demonstrations"]
        ),
        "hybrid:                           # stage 2: SFT and GRPO, mixed by a controller",
        "  steps: 20",
        f"  per_device_train_batch_size: {sizes.completions}",
        *([] if sft else ["  controller: {name: grpo_only}"]),
        f"  grpo: {{num_generations: 8, max_completion_length: {sizes.completion}}}",
        "# evaluate: {threshold: 0.5}       # what counts as solved: a held-out row's rewards of 1.0, or of less",
        f"run: {{dir: {_scalar(f'runs/{name}')}}}",
    ]
    return "\n".join(lines) + "\n"


def commands(file: str, *, check: bool) -> list[str]:
    """What to type next."""
    named = file if re.fullmatch(r"[\w./-]+", file) else "'" + file.replace("'", "'\\''") + "'"
    first = f"posttrain rewards check {named}" if check else f"posttrain plan {named}"
    return [first, f"posttrain run {named} --smoke", f"posttrain run {named}"]


def _task(found: Found, sizes: Sizes, paths: Mapping[str, str]) -> list[str]:
    said: list[tuple[str, Any, str]] = [("path", paths["data"], "every column reaches the reward by its name")]
    if "eval" in paths:
        said.append(("eval_path", paths["eval"], "evaluated on; none of its rows is trained on"))
    settings = found.roles.settings
    if "prompt" in settings:
        said.append(("prompt", settings["prompt"], "{column} stands for what the row has there"))
    if "columns" in settings:
        said.append(("columns", settings["columns"], "what the task and the reward call them: name here, name there"))
    if "slice_by" in settings:
        said.append(("slice_by", settings["slice_by"], "evaluations are told apart by it"))
    if sizes.longest:
        said.append(("longest", sizes.longest, "characters; longer rows are left out: more than the tiny model takes"))
    lines = [f"  {key}: {_value(value)}".ljust(33) + f" # {why}" for key, value, why in said]
    if "eval" not in paths:
        lines.append(f"  # eval: {len(found.data.eval)}".ljust(33) + " # rows held out; so many without this line")
    return [
        *lines,
        "  # train: 1000".ljust(33) + " # prompts, and `demonstrations` the same way; else all",
    ]


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_scalar(item)}" for key, item in value.items()) + "}"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """A value as YAML has it; JSON's quoted texts are YAML's."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    return json.dumps(value, ensure_ascii=False)


def relative(file: Path, folder: Path) -> str:
    """A file as a recipe in a folder names it: from there, or whole where that would lead far out of it."""
    path = os.path.relpath(file.resolve(), folder.resolve())
    return str(file.resolve()) if Path(path).parts[:3] == ("..",) * 3 else path


def _turns(prompt: Any) -> int:
    return 0 if isinstance(prompt, str) else len(prompt) + 1


def _ascii(found: Found) -> bool:
    return all(written(row.prompt).isascii() for row in [*found.rows, *found.eval_rows])


def _power_above(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()


def _power_below(number: int) -> int:
    return 1 << max(0, number.bit_length() - 1)
