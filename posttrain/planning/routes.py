"""Which rewards score which prompts, where a recipe routes them by tasks or sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from posttrain.planning.curriculum import MOST_SOURCES
from posttrain.scoring.score import SOURCE, Reward
from posttrain.tasks import TaskData


def routes_in_words(rewards: Sequence[Reward], data: TaskData | None) -> list[str]:
    """A line of a plan; none where every reward is for every row."""
    if data is None or not any(reward.tasks or reward.sources for reward in rewards):
        return []
    by_source = any(reward.sources for reward in rewards)
    column = SOURCE if by_source else "task"
    kinds = Counter((row.get(SOURCE) if by_source else None, row.get("task")) for row in data.train)
    told: dict[str, Counter[str]] = {}
    for (source, task), count in kinds.items():
        row = {SOURCE: source, **({} if task is None else {"task": task})}
        names = [_named(reward) for reward in rewards if reward.applies_to(row)]
        name = str(source if by_source else task)
        told.setdefault(", ".join(names) or "none", Counter())[name] += count
    lines = []
    for scoring, sources in told.items():
        some = [f"{name} ({count:,})" for name, count in list(sources.items())[:MOST_SOURCES]]
        more = f" and {len(sources) - MOST_SOURCES} more" if len(sources) > MOST_SOURCES else ""
        lines.append(f"rewards of the {column} {', '.join(some)}{more}: {scoring}")
    return lines


def _named(reward: Reward) -> str:
    return reward.name + (f" x {reward.weight:g}" if reward.weight != 1 else "")
