"""The report of a run: one HTML page that needs no network and no script, from whatever the run has left so far."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from posttrain import files
from posttrain.evaluate import paired_difference
from posttrain.layout import STAGES
from posttrain.progress import duration
from posttrain.report.charts import Series, line_chart, mix_strip
from posttrain.rollouts import records

Lines = list[dict[str, Any]]
STAGE_NAMES = {"start": "Start", "warmup": "Warm-up", "hybrid": "Hybrid", "final": "Final"}
COMPLETIONS_SHOWN = 3


def write_report(run_dir: str | Path) -> Path:
    """Write report.html into a run directory, from the files that are there, and return its path.

    An unfinished run gives a page with what it has. The paired differences come from the completions of the
    evaluations: problems are matched by their row and prompt.

    Raises:
        DataError: a line within steps.jsonl or eval.jsonl is broken.
        CheckpointError: the page could not be written; an older one is whole.
    """
    path = Path(run_dir)
    steps, evals = files.read_lines(path / "steps.jsonl"), files.read_lines(path / "eval.jsonl")
    environment = _json(path / "environment.json")
    offset = max((line["step"] for line in steps if line.get("stage") == "warmup"), default=0)
    table = _before_after(path / "completions", evals)
    page = _jinja().get_template("report.html.j2")
    files.write_text(
        path / "report.html",
        page.render(
            name=path.resolve().name,
            finished="final" in {line.get("stage") for line in evals},
            started=_started(environment),
            table=table,
            headline=_headline(table),
            mix=_mix(steps, offset),
            offset=offset,
            last_step=max((_place(line, offset) for line in steps), default=0),
            summary=_summary(steps),
            charts=_charts(steps, evals, offset),
            slices=_slices(evals),
            completions=_completions(path / "completions", evals),
            recipe=_text(path / "recipe.yaml"),
            environment=environment,
        ),
    )
    return path / "report.html"


def _jinja() -> Environment:
    jinja = Environment(
        loader=PackageLoader("posttrain.report", "."), autoescape=True, undefined=StrictUndefined, finalize=_visible
    )
    jinja.filters["percent"] = lambda share: "\N{EN DASH}" if share is None else f"{100 * share:.1f} %"
    jinja.filters["points"] = lambda change: f"{100 * change:+.1f}".replace("-", "\N{MINUS SIGN}")
    jinja.trim_blocks = jinja.lstrip_blocks = True
    return jinja


# Characters that turn the direction of the text around them, those that nothing shows, and halves of characters
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _visible(value: Any) -> Any:
    """What a model wrote, with characters that could make it look like something else written as their numbers."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _HIDDEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", value)


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


def _started(environment: dict[str, Any]) -> str:
    sessions = environment.get("sessions") or [{}]
    return sessions[0].get("started", "")


# -- before and after --------------------------------------------------------------------------------------------------


def _latest(evals: Lines) -> dict[str, dict[str, Any]]:
    """The last evaluation of each stage, in the order of the stages."""
    last = {line["stage"]: line for line in evals if line.get("stage") in STAGES}
    return {stage: last[stage] for stage in STAGES if stage in last}


def _before_after(folder: Path, evals: Lines) -> Lines:
    """A row a stage: its last evaluation, and what changed since the start and since the warm-up, paired."""
    latest = _latest(evals)
    results = {stage: _results(folder, line) for stage, line in latest.items()}
    rows = []
    for stage, line in latest.items():
        changes = {}
        for base in ("start", "warmup"):
            earlier = STAGES.index(base) < STAGES.index(stage)
            changes[base] = _paired(results[base], results[stage]) if earlier and base in results else None
        row = {"stage": stage, "name": STAGE_NAMES[stage], "changes": changes}
        rows.append(row | {"pass@k": line.get("pass@k") or {}, **{key: line.get(key) for key in _EVAL_KEYS}})
    return rows


_EVAL_KEYS = ("step", "n", "pass@1", "ci95", "mean_length")


def _results(folder: Path, line: dict[str, Any]) -> dict[tuple[int, str], bool]:
    """Whether each problem's greedy completion passed, by row and prompt; empty without its completions."""
    file = _eval_file(folder, line)
    if file is None:
        return {}
    rows = records.read_completions(file, ["row", "prompt", "passed", "sample"])
    return {(row["row"], row["prompt"]): row["passed"] for row in rows if row.get("sample") is None}


def _eval_file(folder: Path, line: dict[str, Any]) -> Path | None:
    wanted = (line.get("stage"), line.get("step"))
    named = folder.glob(f"eval-{wanted[0]}-*.parquet")
    return next((file for file in named if records.stage_and_step(file) == wanted), None)


def _paired(before: dict[Any, bool], after: dict[Any, bool]) -> dict[str, Any] | None:
    """The paired difference over the problems that both evaluations hold."""
    common = [key for key in before if key in after]
    if not common:
        return None
    difference, lo, hi = paired_difference([before[key] for key in common], [after[key] for key in common])
    gained = sum(after[key] and not before[key] for key in common)
    lost = sum(before[key] and not after[key] for key in common)
    return {"difference": difference, "lo": lo, "hi": hi, "n": len(common), "gained": gained, "lost": lost}


def _headline(table: Lines) -> dict[str, Any] | None:
    """What the run came to: its last stage against the warm-up, or against the start when there is no warm-up."""
    if len(table) < 2:
        return None
    for base in ("warmup", "start"):
        before = next((row for row in table if row["stage"] == base), None)
        if before and table[-1]["changes"][base]:
            return {"before": before, "after": table[-1], "change": table[-1]["changes"][base]}
    return None


# -- curves ------------------------------------------------------------------------------------------------------------


def _place(line: dict[str, Any], offset: int) -> int:
    """A step counted from the start of the run: those of the hybrid stage follow the warm-up's."""
    return line["step"] + (offset if line["stage"] in ("hybrid", "final") else 0)


def _charts(steps: Lines, evals: Lines, offset: int) -> Lines:
    def curve(name: str, key: str) -> Series:
        return Series(name, _points(steps, offset, lambda line: line.get(key)))

    boundary = float(offset) if offset else None
    drawn = [
        ("pass@1, held out", [_passes(evals, offset)], {"limits": (0, 1), "percent": True, "dots": True}),
        ("Reward of the rollouts", [curve("reward", "reward")], {}),
        ("Gradient norms", [curve("SFT", "sft_norm"), curve("GRPO", "grpo_norm")], {"log": True}),
        ("Losses", [curve("SFT", "sft_loss"), curve("GRPO", "grpo_loss")], {}),
        ("Chance of an SFT step, p", [curve("p", "p")], {"limits": (0, 1)}),
        ("KL from the warm-up's end", [curve("KL", "kl")], {}),
        ("Entropy", [curve("entropy", "entropy")], {}),
        ("Completion length, tokens", [curve("length", "completion_length")], {}),
        ("Groups without a spread", [curve("share", "zero_std_share")], {"limits": (0, 1), "percent": True}),
    ]
    charts = []
    for title, series, options in drawn:
        svg: Markup = line_chart(title, series, boundary=boundary, **options)  # type: ignore[arg-type]
        if svg:
            charts.append({"title": title, "svg": svg, "names": [one.name for one in series]})
    return charts


def _points(lines: Lines, offset: int, value: Callable[[dict[str, Any]], Any]) -> list[tuple[float, float]]:
    found = [(float(_place(line, offset)), value(line)) for line in lines]
    return [(x, float(y)) for x, y in found if y is not None]


def _passes(evals: Lines, offset: int) -> Series:
    """pass@1 over steps, with its interval; the start is step 0."""
    places: dict[int, dict[str, Any]] = {_place(line, offset): line for line in evals if line.get("pass@1") is not None}
    ordered = [(place, places[place]) for place in sorted(places)]
    points = [(float(place), float(line["pass@1"])) for place, line in ordered]
    return Series("pass@1", points, [tuple(line.get("ci95") or (line["pass@1"],) * 2) for _, line in ordered])


def _mix(steps: Lines, offset: int) -> Markup:
    shares = [(float(_place(line, offset)), line.get("mix") or {}) for line in steps]
    strip = [(place, float(mix.get("sft") or 0), float(mix.get("grpo") or 0)) for place, mix in shares]
    return mix_strip("The mix by step", strip, boundary=float(offset) if offset else None)


def _summary(steps: Lines) -> list[tuple[str, str]]:
    """What the steps added up to, as pairs of a name and a text."""
    if not steps:
        return []
    hybrid = [line for line in steps if line.get("stage") == "hybrid"]
    kinds = Counter(_kind(line.get("mix") or {}) for line in hybrid)
    seconds: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for line in steps:
        seconds.update({key: value for key, value in (line.get("seconds") or {}).items() if value})
        tokens.update({key: value for key, value in (line.get("tokens") or {}).items() if value})
    phases = [f"{key} {duration(value)}" for key, value in seconds.most_common() if key != "total" and value >= 1]
    pairs: Iterable[tuple[str, str]] = [
        ("Warm-up", f"{len(steps) - len(hybrid)} steps"),
        ("Hybrid", f"{len(hybrid)} steps: {', '.join(f'{count} {kind}' for kind, count in kinds.most_common())}"),
        ("Rollouts", f"{hybrid[-1].get('rollouts') or 0:,} completions" if hybrid else ""),
        ("Tokens", ", ".join(f"{value:,.0f} {key}" for key, value in tokens.items())),
        ("Time in steps", duration(seconds["total"]) + (f" ({', '.join(phases)})" if phases else "")),
        ("Skipped steps", str(sum(bool(line.get("skipped")) for line in steps) or "")),
    ]
    return [(name, text) for name, text in pairs if text]


def _kind(mix: dict[str, Any]) -> str:
    sft, grpo = bool(mix.get("sft")), bool(mix.get("grpo"))
    return "both" if sft and grpo else "SFT" if sft else "GRPO" if grpo else "neither"


# -- slices and completions --------------------------------------------------------------------------------------------


def _slices(evals: Lines) -> Lines:
    """Per slice column: the stages, and a row a value with n and each stage's pass@1."""
    latest = _latest(evals)
    columns = dict.fromkeys(column for line in latest.values() for column in line.get("by") or {})
    tables = []
    for column in columns:
        cells = {stage: (line.get("by") or {}).get(column, {}) for stage, line in latest.items()}
        values = list(dict.fromkeys(value for cell in cells.values() for value in cell))
        rows = [
            {
                "value": value,
                "n": next(cell[value]["n"] for cell in cells.values() if value in cell),
                "passes": [cell.get(value, {}).get("pass@1") for cell in cells.values()],
            }
            for value in values
        ]
        tables.append({"column": column, "stages": [STAGE_NAMES[stage] for stage in cells], "rows": rows})
    return tables


def _completions(folder: Path, evals: Lines) -> dict[str, Any] | None:
    """A few greedy answers of the last evaluation whose completions are there: the first right and wrong ones."""
    for line in reversed(evals):
        file = _eval_file(folder, line)
        if file is None:
            continue
        greedy = [row for row in records.read_completions(file) if row.get("sample") is None]
        right = [row for row in greedy if row.get("passed")][:COMPLETIONS_SHOWN]
        wrong = [row for row in greedy if not row.get("passed")][:COMPLETIONS_SHOWN]
        shown = [
            {"right": bool(row.get("passed")), **{key: row.get(key) for key in ("prompt", "completion", "score")}}
            | {"why": row.get("error") or row.get("note") or "", "row": row.get("row")}
            for row in [*right, *wrong]
        ]
        return {"stage": STAGE_NAMES.get(line["stage"], line["stage"]), "step": line["step"], "shown": shown}
    return None
