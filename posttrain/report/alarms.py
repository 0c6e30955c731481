"""A run's alarms as the report shows them: by kind, with their places on the run's axis."""

from __future__ import annotations

from typing import Any

from posttrain.report.curves import place

Lines = list[dict[str, Any]]
NAMES = {
    "unscored": "Completions without a score",
    "dead_groups": "Dead groups",
    "truncation": "Truncated completions",
    "entropy_collapse": "Entropy collapse",
    "kl_blow_up": "KL blow-up",
    "parts_drift": "Reward parts drift apart",
    "length_correlation": "Score follows length",
    "repetition": "Repeated completions",
    "sampler_mismatch": "Sampler and trainer disagree",
    "method_gate": "A gate that does not choose",
    "prefix_not_outgrown": "Beginnings are not outgrown",
    "source_fell": "A source falls while the whole rises",
}
MOST_OF_A_KIND = 5
PINS = 12  # over the timeline: on a phone more could not be hit with a finger


def shown(alarms: Lines, offset: int) -> Lines:
    """Each alarm with its `place` on the run's axis and the `name` of its kind, by place."""
    whole = [
        {
            "level": "warning",
            "change": "began",
            "evidence": "",
            "advice": "",
            **line,
            "place": place({**line, "step": int(line["step"])}, offset),
        }
        | {"kind": str(line["kind"]), "name": NAMES.get(line["kind"], str(line["kind"]).replace("_", " ").capitalize())}
        for line in alarms
        if line.get("kind") and line.get("step") is not None
    ]
    return sorted(whole, key=lambda each: each["place"])


def by_kind(alarms: Lines) -> Lines:
    """The kinds in the order of their first alarm: `id`, `name`, `level`, `count`, `first`, `left_out`, `advice`."""
    kinds: dict[str, Lines] = {}
    for each in alarms:
        kinds.setdefault(each["kind"], []).append(each)
    return [
        {
            "id": f"alarm-{number}",
            "kind": kind,
            "name": found[0]["name"],
            "level": "problem" if any(each["level"] == "problem" for each in found) else "warning",
            "count": len(found),
            "first": found[:MOST_OF_A_KIND],
            "left_out": found[MOST_OF_A_KIND:],
            "advice": list(dict.fromkeys(each["advice"] for each in found if each["advice"]))[:MOST_OF_A_KIND],
        }
        for number, (kind, found) in enumerate(kinds.items(), start=1)
    ]


def _step(alarm: dict[str, Any]) -> str:
    step = int(alarm["step"])
    return f"Step {step}" if alarm["place"] == step else f"Hybrid step {step}"


def pins(alarms: Lines, first: int, last: int) -> Lines:
    """Where the timeline points at alarms: `left` in percent of its width, `label` in words, `id` to go to, `count`.

    Alarms too close to tell apart share a pin.
    """
    ids = {kind["kind"]: kind["id"] for kind in by_kind(alarms)}
    groups: list[Lines] = []
    for each in alarms:
        if groups and each["place"] - groups[-1][0]["place"] < (last - first + 1) / PINS:
            groups[-1].append(each)
        else:
            groups.append([each])
    return [
        {
            "left": min(max(100 * (group[0]["place"] - first + 0.5) / (last - first + 1), 0), 100),
            "label": f"{_step(group[0])}: " + ", ".join(dict.fromkeys(each["name"] for each in group)),
            "id": ids[group[0]["kind"]],
            "count": len(group),
        }
        for group in groups
    ]
