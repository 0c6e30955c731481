"""The report's tables: before and after with intervals, pass@1 by kind of problem, a run's sums."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from posttrain.drawing.charts import whisker
from posttrain.evaluation.statistics import mcnemar, paired_difference, pass_at_k, share_ci
from posttrain.reading.compare import CLEAR
from posttrain.reading.compare_spending import hybrid_tokens
from posttrain.reading.judged import telling_slices
from posttrain.rundir import completions as records
from posttrain.rundir.layout import STAGES, Layout
from posttrain.rundir.reading import eval_file, eval_results, last_evals
from posttrain.watching.progress import duration

Lines = list[dict[str, Any]]
STAGE_NAMES = {"start": "Start", "warmup": "Warm-up", "hybrid": "Hybrid", "averaged": "Averaged", "final": "Final"}
BASES = ("warmup", "start")  # what the last stage is compared with: the first of them that was evaluated
LONGEST_REASON = 300
"""Characters of why rows were padded."""
MOST_VALUES = 20  # of a column that pass@1 is given by

_EVAL_KEYS = ("step", "n", "pass@1", "ci95", "mean_length", "truncated_share", "errors", "unscored")


# -- before and after --------------------------------------------------------------------------------------------------


def before_after(layout: Layout, evals: Lines) -> Lines:
    """A row a stage: its last evaluation, and what changed since the start and since the warm-up, paired."""
    latest = last_evals(evals)
    results = {stage: eval_results(layout, stage, ["passed"]) for stage in latest}
    passed = {stage: {key: bool(row["passed"]) for key, row in rows.items()} for stage, rows in results.items()}
    table = []
    for stage, line in latest.items():
        row = {"stage": stage, "name": STAGE_NAMES[stage], **{key: line.get(key) for key in _EVAL_KEYS}}
        row["changes"] = {base: _since(base, stage, passed) for base in ("start", "warmup")}
        row["sampled"] = _sampled(layout, line)
        share, interval = line.get("pass@1"), line.get("ci95")
        row["whisker"] = whisker(share, *interval) if share is not None and interval else ""
        table.append(row)
    return table


def _since(base: str, stage: str, passed: dict[str, dict[Any, bool]]) -> dict[str, Any] | None:
    """The paired difference over the problems that both evaluations hold."""
    if base not in passed or STAGES.index(base) >= STAGES.index(stage):
        return None
    before, after = passed[base], passed[stage]
    common = [key for key in before if key in after]
    if not common:
        return None
    difference, lo, hi = paired_difference([before[key] for key in common], [after[key] for key in common])
    gained = sum(after[key] and not before[key] for key in common)
    lost = sum(before[key] and not after[key] for key in common)
    p, counts = mcnemar(gained, lost), {"n": len(common), "gained": gained, "lost": lost}
    return {"difference": difference, "lo": lo, "hi": hi, "p": p, "is_clear": p < CLEAR, **counts}


def _sampled(layout: Layout, line: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """pass@k by k as evaluated, with intervals over problems where the samples are there."""
    values = line.get("pass@k") or {}
    file = eval_file(layout, line) if values else None
    counts: defaultdict[Any, list[bool]] = defaultdict(list)
    if file is not None:
        for row in records.read_completions(file, ["row", "sample", "passed"]):
            if row.get("sample") is not None:
                counts[row["row"]].append(bool(row["passed"]))
    return {k: {"value": value, "interval": _interval(k, list(counts.values()))} for k, value in values.items()}


def _interval(k: str, samples: list[list[bool]]) -> tuple[float, float] | None:
    if not samples or not k.isdecimal() or not 1 <= int(k) <= min(map(len, samples)):
        return None
    return share_ci([pass_at_k(len(tries), sum(tries), int(k)) for tries in samples])


def headline(table: Lines) -> dict[str, Any] | None:
    """What the run came to: its last stage against the warm-up, or against the start when there is no warm-up."""
    for base in BASES:
        before = next((row for row in table if row["stage"] == base), None)
        if before and table[-1]["changes"][base]:
            return {"before": before, "after": table[-1], "change": table[-1]["changes"][base]}
    return None


# -- slices ------------------------------------------------------------------------------------------------------------


def slices(evals: Lines) -> Lines:
    """Per slice column: the stages, a row a value with n, each stage's pass@1 and its interval where there is one, and
    how many values are left out."""
    telling = {stage: telling_slices(line) for stage, line in last_evals(evals).items()}
    tables = []
    for column in dict.fromkeys(column for slices in telling.values() for column in slices):
        cells = {stage: slices.get(column, {}) for stage, slices in telling.items()}
        values = list(dict.fromkeys(value for cell in cells.values() for value in cell))
        rows = [
            {
                "value": value,
                "n": next(cell[value]["n"] for cell in cells.values() if value in cell),
                "passes": [cell.get(value, {}).get("pass@1") for cell in cells.values()],
                "intervals": [cell.get(value, {}).get("ci95") for cell in cells.values()],
            }
            for value in values[:MOST_VALUES]
        ]
        names = [STAGE_NAMES[stage] for stage in cells]
        tables.append({"column": column, "stages": names, "rows": rows, "left_out": len(values) - len(rows)})
    return tables


# -- sums --------------------------------------------------------------------------------------------------------------


def padded(steps: Lines) -> list[str]:
    """For each stage whose rows were padded instead of packed, that they were, and why."""
    names = {"warmup": "Warm-up", "hybrid": "Hybrid"}
    seen = [(names.get(str(line.get("stage"))), line.get("padded")) for line in steps]
    told = dict.fromkeys((name, str(why)[:LONGEST_REASON]) for name, why in seen if name and why)
    return [f"{name}: rows were padded, not packed: {why}" for name, why in list(told)[:MOST_VALUES]]


def seconds_of(steps: Lines) -> Counter[str]:
    """Seconds in steps by phase, and as "total"."""
    seconds: Counter[str] = Counter()
    for line in steps:
        seconds.update({key: value for key, value in (line.get("seconds") or {}).items() if value})
    return seconds


def sums(steps: Lines) -> list[tuple[str, str]]:
    """What the steps added up to, as pairs of a name and a text."""
    if not steps:
        return []
    hybrid = [line for line in steps if line.get("stage") == "hybrid"]
    kinds = Counter(_kind(line.get("mix") or {}) for line in hybrid)
    seconds = seconds_of(steps)
    phases = [
        f"{key.replace('_', ' ')} {duration(value)}"
        for key, value in seconds.most_common()
        if key != "total" and value >= 1
    ]
    warmup = len(steps) - len(hybrid)
    pairs: Iterable[tuple[str, str]] = [
        ("Warm-up", f"{warmup} steps" if warmup else "none"),
        ("Hybrid", f"{len(hybrid)} steps: {', '.join(f'{count} {kind}' for kind, count in kinds.most_common())}"
         if hybrid else "none so far"),
        ("Rollouts", f"{hybrid[-1].get('rollouts') or 0:,} completions" if hybrid else ""),
        ("Tokens", _tokens_in_words(hybrid)),
        ("Time in steps", duration(seconds["total"]) + (f" ({', '.join(phases)})" if phases else "")),
        ("Skipped steps", str(sum(bool(line.get("skipped")) for line in steps) or "")),
    ]  # fmt: skip
    return [(name, text) for name, text in pairs if text]


def _tokens_in_words(hybrid: Lines) -> str:
    counted = hybrid_tokens(hybrid)
    said = [(counted["sampled"], "sampled for GRPO"), (counted["trained_sft"], "of SFT demonstrations")]
    return ", ".join(f"{count:,} {what}" for count, what in said if count)


def _kind(mix: dict[str, Any]) -> str:
    sft, grpo = bool(mix.get("sft")), bool(mix.get("grpo"))
    return "both" if sft and grpo else "SFT" if sft else "GRPO" if grpo else "neither"
