"""`posttrain rewards list`: what a recipe can name under `rewards`."""

from __future__ import annotations

import inspect
import json
import sys
from importlib.metadata import entry_points
from typing import Any

from posttrain.errors import RewardError
from posttrain.recipe.sections import RewardConfig
from posttrain.scoring.loading import ENTRY_POINT_GROUP, known_rewards, load_reward
from posttrain.scoring.score import Reward
from posttrain.storage.files import plain


def list_rewards(*, as_json: bool = False) -> None:
    """Print every built-in and installed reward; one that cannot be imported is listed with the reason."""
    records = [describe(name) for name in known_rewards()]
    if as_json:
        print(json.dumps(plain(records), indent=2, ensure_ascii=False))
    elif not records:
        print("no rewards: posttrain itself is not installed", file=sys.stderr)
    else:
        print("\n\n".join(_block(record) for record in records))


def describe(name: str) -> dict[str, Any]:
    """One reward as a record.

    Returns:
        `name`, `description` (the first paragraph of its docstring), `columns` (arguments that the data has to fill),
        `options` (the other arguments and their defaults), `style`, `import` and `from` (the package and version that
        register it), `error` (why it cannot be used, or None).
    """
    points = entry_points(group=ENTRY_POINT_GROUP, name=name)
    packages = [f"{point.dist.name} {point.dist.version}" for point in points if point.dist]
    record: dict[str, Any] = {
        "name": name,
        "description": "",
        "columns": [],
        "options": {},
        "style": None,
        "import": ", ".join(sorted({point.value for point in points})),
        "from": ", ".join(sorted(set(packages))),
        "error": None,
    }
    try:
        reward = load_reward(RewardConfig(name=name))
        record |= {"columns": reward.required_columns(), "options": options(reward), "style": reward.style}
    except RewardError as error:
        return record | {"error": error.seen}
    except (Exception, SystemExit) as error:  # a module may do anything while it is imported
        return record | {"error": f"{type(error).__name__}: {error}"}
    documented = inspect.getdoc(reward.function) or ""
    return record | {"description": " ".join(documented.partition("\n\n")[0].split())}


def options(reward: Reward) -> dict[str, Any]:
    """The arguments with a default, which a recipe's `kwargs` or a column of that name may set."""
    return {
        name: parameter.default
        for name, parameter in reward.parameters.items()
        if parameter.default is not parameter.empty and name not in ("completion", "completions")
    }


def _block(record: dict[str, Any]) -> str:
    if record["error"]:
        lines = [f"cannot be used: {record['error']}"]
    else:
        lines = [
            record["description"] or "(no docstring)",
            "columns: " + (", ".join(record["columns"]) or "none"),
            "options: " + (", ".join(f"{name}={value!r}" for name, value in record["options"].items()) or "none"),
        ]
    lines.append(f"from: {record['from'] or 'an unknown package'}, {record['import']}")
    return "\n".join([record["name"], *(f"  {line}" for line in lines)])
