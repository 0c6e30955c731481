"""The last lines of a run: what came of it, how long it took, and what to do next."""

from __future__ import annotations

import shlex

from posttrain.recipe.adapter_serving import adapter_config, fix_for, flags_for, why_merged
from posttrain.report.tables import before_after, headline
from posttrain.rundir.facts import read_recipe
from posttrain.rundir.layout import Layout
from posttrain.storage.files import read_lines
from posttrain.watching.progress import duration


def outcome(layout: Layout, seconds: float) -> list[str]:
    """Lines to end a run with.

    Args:
        layout: The run's directory.
        seconds: That this start of it took.
    """
    where = shlex.quote(str(layout.path))
    return [
        *_scores(layout),
        f"done: model in {layout.model}, report in {layout.report_file}, after {duration(seconds)}",
        *_serving(layout, where),
        f"go on: posttrain explain {where} | posttrain view {where} --worst | posttrain export {where} --to FOLDER",
    ]


def _serving(layout: Layout, where: str) -> list[str]:
    """Of an adapter, whether vLLM serves it as it is."""
    config = adapter_config(layout.model)
    if config is None:
        return []
    merge = f"posttrain export {where} --to FOLDER --merge-lora"
    recipe = read_recipe(layout.recipe_file) if layout.recipe_file.exists() else {}
    if reason := why_merged(config, four_bit=bool((recipe.get("model") or {}).get("load_in_4bit"))):
        return [f"the model is an adapter that vLLM cannot serve as it is ({reason}); {fix_for(config, merge)}"]
    model = shlex.quote(str(layout.model))
    serve = f"vllm serve BASE {flags_for(config)} --lora-modules NAME={model}"
    return [f"the model is an adapter: {serve}, or merge it: {merge}"]


def _scores(layout: Layout) -> list[str]:
    """pass@1 of each stage, and by how much the last one is better than what it began from."""
    table = before_after(layout, read_lines(layout.eval_file))
    found = headline(table)
    if found is None:
        return []
    way = " -> ".join(f"{row['pass@1']:.1%} {row['name'].lower()}" for row in table if row["stage"] != "hybrid")
    change = found["change"]
    return [
        f"pass@1: {way}; {100 * change['difference']:+.1f} points since the {found['before']['name'].lower()} "
        f"(95 % interval {100 * change['lo']:+.1f} to {100 * change['hi']:+.1f}, the same {change['n']} problems)"
    ]
