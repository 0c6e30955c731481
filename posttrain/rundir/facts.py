"""What a run was started with: its recipe and fingerprints as facts by name, on file, and how two of them differ."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from posttrain.errors import CheckpointError
from posttrain.storage import files

# Keys that say where a run writes, when it saves and looks, and on what it computes, not what it learns.
HARMLESS = re.compile(
    r"(run\.(?!seed\b)|evaluate\.(every|times|batch_size|at_start)$|(warmup|hybrid)\.(save_steps|max_skipped_steps)$|scoring\."
    r"|hybrid\.kl\.offload$"
    r"|(warmup|hybrid)\.args\.gradient_checkpointing(_kwargs)?$"
    r"|rollout\.(gpu_memory_utilization|server_base_url|weights_folder|weights_transfer|overlap|enable_sleep_mode"
    r"|time_limit_s|probe_every)$)"
)


NAMED = "fingerprint of "
"""Before the name of what a fingerprint is of, among the facts of a run."""


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as dotted keys; lists stay whole, since an element's place is rarely what changed."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            flat.update(flatten(item, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def without(facts: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    """Without some keys, and without sections in which there is nothing: a key in one of them is what differs."""
    return {key: value for key, value in facts.items() if key not in keys and value != {}}


def difference(was: dict[str, Any], now: dict[str, Any], ignore: re.Pattern[str] | None = None) -> list[str]:
    """`key: was -> is` for each dotted key that differs, in order; keys that match `ignore` are left out."""
    absent = object()

    def shown(value: Any) -> str:
        return "(absent)" if value is absent else json.dumps(value, ensure_ascii=False)

    lines = []
    for key in dict.fromkeys([*was, *now]):
        before, after = was.get(key, absent), now.get(key, absent)
        if before != after and not (ignore and ignore.match(key)):
            lines.append(f"{key}: {shown(before)} -> {shown(after)}")
    return lines


def read_recipe(file: Path) -> dict[str, Any]:
    """A run's recipe.yaml as plain Python values."""
    return read_whole(file, YAML(typ="safe", pure=True).load)


def processes_of(path: Path) -> int | None:
    """The number of processes that the run in a directory was started on; None where there is no run."""
    if not (path / "recipe.yaml").exists():
        return None
    return read_environment(path / "environment.json").get("processes", 1)


def settled_engine(path: Path) -> str | None:
    """What `rollout.engine: auto` came to in the run in a directory, if there is one."""
    file = path / "recipe.yaml"
    return read_recipe(file).get("rollout", {}).get("engine") if file.exists() else None


def write_recipe(file: Path, recipe: Mapping[str, Any]) -> None:
    """Write a run's recipe.yaml, whole or not at all."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    text = io.StringIO()
    yaml.dump(recipe, text)
    files.write_text(file, text.getvalue())


def named(fingerprints: Mapping[str, str]) -> dict[str, str]:
    """Fingerprints as facts beside the keys of a recipe."""
    return {f"{NAMED}{name}": value for name, value in fingerprints.items()}


def read_environment(file: Path) -> dict[str, Any]:
    """A run's environment.json; empty where there is none yet."""
    return read_whole(file, json.loads) if file.exists() else {}


def read_whole(file: Path, load: Callable[[str], Any]) -> dict[str, Any]:
    """A file that was written whole, so that what cannot be read was torn by a disk or by hand."""
    try:
        value = load(file.read_text(encoding="utf-8"))
        if isinstance(value, dict):
            return value
        reason = f"it holds a {type(value).__name__}"
    except (OSError, ValueError, YAMLError) as error:
        reason = " ".join(str(error).split())
    raise CheckpointError(
        f"cannot be read: {reason}",
        expected="the file as the run wrote it",
        where=str(file),
        fix="bring it back from a copy; or start over by --restart, which keeps this run aside",
    )
