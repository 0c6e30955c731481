"""A study's table as rows of text, for the terminal, a page and Markdown alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.drawing.page import p_in_words

HEADS = ("arm", "pass@1", "over seeds", "difference in points (95 %)", "p, Holm", "told apart", "tuned to", "spent")


def rows(judged: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table's rows: arms that are done by their score, then the others."""
    differences = {each["arm"]: each for each in judged["differences"]}
    kind = next(iter(judged["budget"]))
    done = sorted((a for a in judged["arms"] if a["state"] == "done"), key=lambda arm: -arm["pass@1"])
    others = [arm for arm in judged["arms"] if arm["state"] != "done"]
    return [_row(arm, differences.get(arm["name"]), kind, judged) for arm in [*done, *others]]


def _row(arm: Mapping[str, Any], difference: Mapping[str, Any] | None, kind: str, judged: Mapping[str, Any]):
    seeds, finished = len(judged["seeds"]), len(arm["seeds"])
    score = "-" if arm["pass@1"] is None else percent(arm["pass@1"])
    if arm["state"] != "done":
        score = f"{arm['state']}, {finished} of {seeds}" + (f": {score}" if finished else "")
    each = ", ".join(f"{100 * one['pass@1']:.1f}" for one in arm["seeds"]) or "-"
    if difference:
        words = gain(difference), p_in_words(difference["p_holm"]), "yes" if difference["told_apart"] else "no"
    else:
        words = ("reference" if arm["name"] == judged["reference"] else "-"), "", ""
    return arm["name"], score, each, *words, tuned(arm), spent(arm, kind)


def gain(difference: Mapping[str, Any]) -> str:
    """A difference and its interval, in points."""
    value, lo, hi = (100 * difference[name] + 0.0 for name in ("difference", "lo", "hi"))
    return f"{value:+.1f} ({lo:+.1f} to {hi:+.1f})" if lo < hi else f"{value:+.1f} (nothing differs: no interval)"


def percent(share: float) -> str:
    """A share as people write it."""
    return f"{100 * share:.1f} %"


def tuned(arm: Mapping[str, Any]) -> str:
    """What tuning chose; a star where that is at the edge of the grid."""
    point = arm["tuned"]["point"] or {}
    edges = arm["tuned"]["edges"]
    said = [f"{key.rpartition('.')[2]} {_short(value)}{'*' if key in edges else ''}" for key, value in point.items()]
    return ", ".join(said) or "-"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def spent(arm: Mapping[str, Any], kind: str) -> str:
    """What an arm spent, as means over seeds: of the budget's kind, and its steps."""
    of = arm["spent"]
    if of["steps"] is None or not arm["seeds"]:
        return "-"
    parts = {
        "seconds": None if of["seconds"] is None else f"{of['seconds']:.0f} s",
        "tokens": None
        if of["sampled_tokens"] is None
        else f"{_count(of['sampled_tokens'])} sampled, {_count(of['trained_tokens'])} trained",
        "flops": None if of["flops"] is None else f"{of['flops']:.3g} FLOPs",
        "steps": f"{of['steps']:.0f} steps",
    }
    return ", ".join(part for part in parts.values() if part)


def spending(judged: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads and rows of what each arm spent, as means over seeds."""
    heads = ("arm", "seconds", "tokens sampled", "tokens trained on", "FLOPs", "steps")
    names = ("seconds", "sampled_tokens", "trained_tokens", "flops", "steps")
    found = []
    for arm in judged["arms"]:
        if arm["seeds"]:
            of = arm["spent"]
            found.append((arm["name"], *("-" if of[name] is None else _written(name, of[name]) for name in names)))
    return heads, found


def second(judged: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of what was forgotten: arm, pass@1 on the second held-out set at its warm-up, and at its end."""
    return [
        (arm["name"], *("-" if arm["second"][at] is None else percent(arm["second"][at]) for at in ("before", "after")))
        for arm in judged["arms"]
        if arm["second"]
    ]


def _written(name: str, value: float) -> str:
    return f"{value:.3g}" if name == "flops" else f"{value:,.0f}"


def _count(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def verdicts(judged: Mapping[str, Any]) -> list[str]:
    """The judgement in sentences."""
    said = []
    better = [each for each in judged["differences"] if each["told_apart"] and each["difference"] > 0]
    worse = [each for each in judged["differences"] if each["told_apart"] and each["difference"] < 0]
    reference = judged["reference"]
    if judged["differences"]:
        for some, word in ((better, "above"), (worse, "below")):
            if some:
                said.append(f"{word} {reference}: " + ", ".join(f"{each['arm']} {gain(each)}" for each in some))
        open_ = [each["arm"] for each in judged["differences"] if not each["told_apart"]]
        if open_:
            said.append(f"not to be told apart from {reference}: {', '.join(open_)}")
    if two := judged["best_two"]:
        apart = "told apart" if two["told_apart"] else "not to be told apart"
        flipped = {**two, "difference": 0.0 - two["difference"], "lo": 0.0 - two["hi"], "hi": 0.0 - two["lo"]}
        said.append(f"the best two, {two['reference']} and {two['arm']}, are {apart}: {gain(flipped)}")
    return said


def legend(judged: Mapping[str, Any]) -> str:
    """What the table's numbers are."""
    kind, amount = next(iter(judged["budget"].items()))
    seeds: Sequence[int] = judged["seeds"]
    return (
        f"Greedy pass@1 on held-out problems after {amount:g} {kind} of the hybrid stage each, mean of "
        f"{len(seeds)} seed{'s' * (len(seeds) > 1)}; differences from {judged['reference']} with seeds as blocks, "
        "paired over problems; told apart by p (Holm), intervals wider, to hold all at once (Bonferroni). "
        "`*`: at the edge of its grid."
    )


def markdown(judged: Mapping[str, Any]) -> str:
    """A table to paste, and what it says."""
    lines = [f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS)]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows(judged)]
    if forgotten := second(judged):
        lines += ["", "| arm | second held-out set, warm-up | and at the end |", "|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in forgotten]
    lines += ["", legend(judged), ""]
    lines += [f"- {text}" for text in [*verdicts(judged), *judged["notes"]]]
    return "\n".join(lines).rstrip() + "\n"
