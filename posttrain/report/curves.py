"""The report's curves and the mix over the run's steps, the warm-up's first and then the hybrid stage's."""

from __future__ import annotations

from collections import Counter
from typing import Any

from posttrain.drawing.charts import Drawn, Series, draw
from posttrain.drawing.strip import mix_strip

Lines = list[dict[str, Any]]


def warmup_steps(steps: Lines) -> int:
    """How many steps the warm-up took: where the hybrid stage's count begins on a common axis."""
    return max((line["step"] for line in steps if line.get("stage") == "warmup"), default=0)


def place(line: dict[str, Any], offset: int) -> int:
    """A step counted from the start of the run: those of the hybrid stage follow the warm-up's."""
    return line["step"] + (offset if line.get("stage", "hybrid") in ("hybrid", "averaged", "final") else 0)


MOST_SOURCES = 4
"""Sources in one chart: as many lines as there are colours."""
WITH_AND_WITHOUT = "Reward with and without a beginning"
_SHARE: dict[str, Any] = {"limits": (0, 1), "percent": True}
_CHARTS: list[tuple[str, dict[str, str], dict[str, Any], tuple[str, ...]]] = [
    ("Reward of the rollouts", {"reward": "reward"}, {"unit": "mean reward"}, ("parts_drift", "repetition")),
    ("Chance of an SFT step, p", {"p": "p"}, {"limits": (0, 1), "unit": "probability"}, ()),
    ("Gradient norms", {"SFT": "sft_norm", "GRPO": "grpo_norm"}, {"log": True, "unit": "L2 norm"}, ()),
    ("SFT loss", {"SFT": "sft_loss"}, {"log": True, "unit": "nats a token"}, ()),
    ("GRPO loss", {"GRPO": "grpo_loss"}, {"first": 1, "unit": "as TRL computes it"}, ()),
    ("KL from the warm-up's end", {"KL": "kl"}, {"unit": "nats a token"}, ("kl_blow_up", "sampler_mismatch")),
    ("Entropy", {"entropy": "entropy"}, {"log": True, "unit": "nats a token"}, ("entropy_collapse",)),
    ("Completion length", {"length": "completion_length"}, {"unit": "tokens"}, ("length_correlation",)),
    ("Truncated completions", {"share": "truncated_share"}, {**_SHARE, "unit": "of completions"}, ("truncation",)),
    ("Completions without a score", {"share": "unscored_share"}, {**_SHARE, "unit": "of completions"}, ("unscored",)),
    ("Groups without a spread", {"share": "zero_std_share"}, {**_SHARE, "unit": "of groups"}, ("dead_groups",)),
    ("Prompts that the curriculum drew", {"solve rate": "curriculum.solve_rate",
     "groups with a signal": "curriculum.with_signal"}, {**_SHARE, "unit": "share"}, ("dead_groups",)),
    ("Groups replaced by refilling", {"share": "refill.replaced_share"}, {**_SHARE, "unit": "of those sampled"},
     ("dead_groups",)),
    ("Demonstrations beside rollouts", {"trained on whole": "method.trained_share", "gate open": "method.gate_open"},
     {**_SHARE, "unit": "of groups with one"}, ("method_gate",)),
    ("Loss of demonstrations", {"NLL": "method.demonstration_nll"}, {"log": True, "unit": "nats a token"}, ()),
    ("Beginnings of demonstrations", {"share": "method.begun_share"}, {**_SHARE, "unit": "of a demonstration"}, ()),
    (WITH_AND_WITHOUT, {"with": "method.begun_reward", "without": "method.alone_reward"},
     {"unit": "mean reward"}, ("prefix_not_outgrown",)),
    ("Demonstrations that wait for SFT", {"waiting": "method.waiting"}, {"unit": "demonstrations"}, ()),
]  # fmt: skip
"""Of a chart: title, series and their keys in steps.jsonl, options of `charts.draw`, the alarms that it explains."""

_USUALLY_NOTHING = ("unscored_share", "method.trained_share")
"""Keys whose curve is left out where it is 0 all along."""


def curves(steps: Lines, evals: Lines, alarms: Lines, offset: int) -> list[Drawn]:
    """The charts that have something to show, with the alarms that a chart explains marked in it.

    Args:
        steps: Lines of steps.jsonl.
        evals: Lines of eval.jsonl.
        alarms: The alarms as `alarms.shown` gives them, with "place", "kind" and "name".
        offset: The warm-up's steps.
    """
    boundary = float(offset) if offset else None
    options = {**_SHARE, "dots": True, "unit": "of problems"}
    places = [float(place(line, offset)) for line in [*steps, *evals]]
    common: dict[str, Any] = {"boundary": boundary, "span": (min(places), max(places)) if places else None}
    drawn = [draw("pass@1, held out", [_passes(evals, offset)], **common, **options)]
    for title, keys, options, kinds in _CHARTS:
        series = [Series(name, _points(steps, offset, key)) for name, key in keys.items()]
        if all("." in key for key in keys.values()):
            series = [each for each in series if each.points]  # few methods have both
            if title == WITH_AND_WITHOUT and len(series) < 2:  # which say something beside each other only
                continue
        marks = [(float(each["place"]), each["name"]) for each in alarms if each["kind"] in kinds]
        drawn.append(draw(title, series, marks=marks, **common, **options))
    hybrid = [line for line in steps if line.get("stage") != "warmup"]
    drawn += [_rewards_by_source(hybrid, offset, common), *_by_source(hybrid, offset, common)]
    drawn += _of_demonstrations([line for line in steps if line.get("stage") == "warmup"], common)
    return [each for each in drawn if each is not None]


def _rewards_by_source(steps: Lines, offset: int, common: dict[str, Any]) -> Drawn | None:
    """The mean reward of each source's completions, where there are several sources."""
    seen = [(float(place(line, offset)), line.get("by_source") or {}) for line in steps]
    counts: Counter[str] = Counter()
    for _, sources in seen:
        counts.update({name: of["completions"] for name, of in sources.items()})
    if len(counts) < 2:
        return None
    series = []
    for name in sorted(name for name, _ in counts.most_common(MOST_SOURCES)):
        points = [(at, of[name]["reward"]) for at, of in seen if name in of]
        series.append(Series(name, [(at, reward) for at, reward in points if reward is not None]))
    more = f", the {MOST_SOURCES} most frequent of {len(counts)}" if len(counts) > MOST_SOURCES else ""
    return draw("Reward of each source" + more, series, unit="mean reward", **common)


def _by_source(steps: Lines, offset: int, common: dict[str, Any]) -> list[Drawn | None]:
    """Of a curriculum whose prompts have sources: the share of each in the draws, and its solve rate."""
    seen = [(float(place(line, offset)), (line.get("curriculum") or {}).get("sources")) for line in steps]
    counts: Counter[str] = Counter()
    for _, sources in seen:
        counts.update({name: of["prompts"] for name, of in (sources or {}).items()})
    names = sorted(name for name, _ in counts.most_common(MOST_SOURCES))
    more = f", the {MOST_SOURCES} most frequent of {len(counts)}" if len(counts) > MOST_SOURCES else ""
    shares, rates = [], []
    for name in names:
        drawn = [
            (at, of.get(name, {}).get("prompts", 0) / sum(o["prompts"] for o in of.values())) for at, of in seen if of
        ]
        shares.append(Series(name, drawn))
        solved = [(at, of[name]["solve_rate"]) for at, of in seen if of and name in of]
        rates.append(Series(name, [(at, rate) for at, rate in solved if rate is not None]))
    named = (
        ("Share of each source" + more, shares, "of prompts"),
        ("Solve rate of each source" + more, rates, "share"),
    )
    return [draw(title, series, unit=unit, **common, **_SHARE) for title, series, unit in named if series]


def _of_demonstrations(steps: Lines, common: dict[str, Any]) -> list[Drawn | None]:
    """Of a warm-up's curriculum: the share of each source in the demonstrations, and what was measured of it."""
    shares: dict[str, list[tuple[float, float]]] = {}
    losses: dict[str, list[tuple[float, float]]] = {}
    cosines: dict[str, list[tuple[float, float]]] = {}
    of_kind = {"losses": losses, "gradients": cosines}
    lines = [(float(line["step"]), line["curriculum"]) for line in steps if line.get("curriculum")]
    counts = Counter(name for _, seen in lines for name in seen.get("sources", {}))
    names = sorted(name for name, _ in counts.most_common(MOST_SOURCES))
    for at, seen in lines:
        of = {name: each["demonstrations"] for name, each in seen.get("sources", {}).items()}
        for name in names if of else ():
            shares.setdefault(name, []).append((at, of.get(name, 0) / sum(of.values())))
        for measured in (each for window in seen["windows"] for each in window.get("measured", ())):
            for name in (name for name in names if name in measured["values"]):
                of_kind.get(measured["kind"], {}).setdefault(name, []).append((at, measured["values"][name]))
    more = f", {MOST_SOURCES} of {len(counts)}" if len(counts) > MOST_SOURCES else ""
    named: tuple[tuple[str, dict[str, list[tuple[float, float]]], dict[str, Any]], ...] = (
        ("Share of each source in the warm-up" + more, shares, {**_SHARE, "unit": "of demonstrations"}),
        ("Validation loss of each source" + more, losses, {"log": True, "unit": "nats a token"}),
        ("Gradient of each source against the target's" + more, cosines, {"unit": "cosine"}),
    )
    return [
        draw(title, [Series(name, points) for name, points in seen.items()], **common, **options)
        for title, seen, options in named
        if seen
    ]


def mix(steps: Lines, offset: int) -> Drawn | None:
    """The share of SFT and GRPO in each step."""
    shares = [(float(place(line, offset)), line.get("mix") or {}) for line in steps]
    strip = [(at, float(mix.get("sft") or 0), float(mix.get("grpo") or 0)) for at, mix in shares]
    return mix_strip("The mix by step", strip, boundary=float(offset) if offset else None)


def _points(lines: Lines, offset: int, key: str) -> list[tuple[float, float]]:
    found = [(line, _value(line, key)) for line in lines]
    points = [(float(place(line, offset)), float(value)) for line, value in found if value is not None]
    return [] if key in _USUALLY_NOTHING and not any(value for _, value in points) else points


def _value(line: dict[str, Any], key: str) -> Any:
    """A number of a line, or of its `method` or `refill`: nothing where a step sampled nothing anew."""
    section, _, name = key.rpartition(".")
    if not section:
        return line.get(key)
    seen = line.get(section) or {}
    if name == "trained_share":
        return seen["demonstrations"] / seen["paired"] if seen.get("paired") else None
    if name == "replaced_share":
        return seen["replaced"] / seen["prompts"] if seen else None
    return seen.get(name)


def _passes(evals: Lines, offset: int) -> Series:
    """pass@1 over steps, with its interval; the start is step 0."""
    places: dict[int, dict[str, Any]] = {place(line, offset): line for line in evals if line.get("pass@1") is not None}
    ordered = [(at, places[at]) for at in sorted(places)]
    points = [(float(at), float(line["pass@1"])) for at, line in ordered]
    return Series("pass@1", points, [tuple(line.get("ci95") or (line["pass@1"],) * 2) for _, line in ordered])
