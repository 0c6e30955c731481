"""Runs against each other, problem by problem: the first is the baseline, and each other one is compared with it.

What is compared are the greedy completions of an evaluation. Problems are matched by their prompts, so that runs with
held-out sets of other sizes share what they share. A difference comes with its paired bootstrap interval and with the
exact McNemar test, which looks at the problems that flipped alone.

A regression or negative flip is a problem that was right before and is wrong now. The negative flip rate is their share
of all problems (Yan et al. 2021, arXiv 2011.09161; for language models MUSCLE, arXiv 2407.09435, whose variant for
multiple choice also counts what went from one wrong answer to another). It is given against
the baseline and, for what a run has done to itself, against the run's own warm-up. Importing this loads no torch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.curricula.base import PROMPT_SOURCE, SOURCES
from posttrain.errors import ConfigError, DataError
from posttrain.evaluation.statistics import holm, mcnemar, paired_difference, share_ci
from posttrain.reading.compare_spending import spent
from posttrain.reading.judged import in_words as judge_in_words
from posttrain.reading.judged import judge_of, meaning
from posttrain.rundir import reading as run_reading
from posttrain.rundir.facts import flatten
from posttrain.rundir.layout import STAGES, Layout

Row = dict[str, Any]
CLEAR = 0.05
"""A change is called clear where its p is below; with few flips an interval excludes 0 too easily."""
Problem = tuple[str, int]
"""A held-out problem: its prompt, and which of the problems with that very prompt it is, from 0."""


@dataclass(frozen=True)
class Examined:
    """A run and the evaluation of it that is looked at.

    Attributes:
        name: What the tables call it.
        layout: Its directory.
        line: The line of eval.jsonl.
        rows: The greedy completions by problem.
        finished: Whether the run has its final evaluation.
    """

    name: str
    layout: Layout
    line: Row
    rows: dict[Problem, Row]
    finished: bool

    @property
    def stage(self) -> str:
        """The evaluation's stage."""
        return str(self.line["stage"])


def compare(paths: Sequence[str | Path], stage: str | None = None) -> dict[str, Any]:
    """Everything but the weights (see `compare_weights`), in plain values.

    Args:
        paths: Directories of at least two runs; the first is the baseline.
        stage: Whose last evaluation is compared: "start", "warmup", "hybrid", "averaged" or "final". `None` takes the
            final one, or the last there is of a run that is not finished.

    Returns:
        runs: a dict a run: name, stage, step, finished, n, pass@1, ci95, pass@k, since_warmup (a difference), spent;
        differences: a dict each run but the first, with its flips; settings: {key: [value a run]} where they differ;
        warnings: what to bear in mind, in sentences.

    Raises:
        ConfigError: Fewer than two runs, the same twice, a directory that is no run, or a run without the evaluation.
        DataError: Two runs share no problem.
    """
    runs = _opened(paths, stage)
    first, others = runs[0], runs[1:]
    differences = [{"run": run.name, **difference(first.rows, run.rows, _columns(first, run))} for run in others]
    for each, run in zip(differences, others, strict=True):
        if not each["n"]:
            raise DataError(
                f"{run.name} and {first.name} share no problem: {len(run.rows)} and {len(first.rows)} prompts, "
                "and none is in both",
                expected="runs that were evaluated on the same problems",
                fix="compare runs of the same task, task.eval and run.seed, by which held-out problems are drawn",
            )
    for each, adjusted in zip(differences, holm([each["p"] for each in differences]), strict=True):
        each["p_holm"] = adjusted
    recipes = [_recipe(run.layout) for run in runs]
    return {
        "baseline": first.name,
        "runs": [_summary(run, recipe) for run, recipe in zip(runs, recipes, strict=True)],
        "differences": differences,
        "settings": settings(recipes),
        "warnings": _warnings(runs, differences, recipes),
    }


def difference(before: dict[Problem, Row], after: dict[Problem, Row], columns: Sequence[str] = ()) -> dict[str, Any]:
    """What changed over the problems that both have.

    Args:
        before: The baseline's greedy completions.
        after: The other ones.
        columns: Problems are also told apart by the values of each, such as a difficulty and a source.

    Returns:
        n, before and after (pass@1 on the shared problems), difference with lo and hi (paired, 95 %; both are the
        difference itself where nothing or everything flipped, which is no interval), wins and
        regressions (numbers of problems), negative_flip_rate (of all shared problems), negative_flip_rate_mc (with
        those that went from a wrong answer to another; None where none is recorded), lost_share (of those that were
        right), p (exact McNemar), by ({column: {value: the same without p}}), flips (a dict a problem that flipped).
        Only n, which is 0, where they share nothing.
    """
    shared = [problem for problem in before if problem in after]
    if not shared:
        return {"n": 0}
    change = _change([(before[problem], after[problem]) for problem in shared])
    by = {column: _by([(before[problem], after[problem]) for problem in shared], column) for column in columns}
    return change | {
        "p": mcnemar(change["wins"], change["regressions"]),
        "by": {column: parts for column, parts in by.items() if parts},
        "flips": [_flip(before[each], after[each]) for each in shared if _passed(before[each]) != _passed(after[each])],
    }


def _by(pairs: list[tuple[Row, Row]], column: str) -> dict[str, dict[str, Any]]:
    """What changed by the values of a column, as tables of completions have it."""
    groups: dict[str, list[tuple[Row, Row]]] = {}
    for before, after in pairs:
        value = before.get(PROMPT_SOURCE if column == SOURCES[0] and PROMPT_SOURCE in before else column)
        if value is not None:
            groups.setdefault(str(value), []).append((before, after))
    return {value: _change(groups[value]) for value in sorted(groups, key=_in_order)}


def _change(pairs: list[tuple[Row, Row]]) -> dict[str, Any]:
    was, now = ([float(_passed(pair[side])) for pair in pairs] for side in (0, 1))
    gain, lo, hi = paired_difference(was, now)
    regressions = sum(b > a for b, a in zip(was, now, strict=True))
    right = int(sum(was))
    return {
        "n": len(pairs),
        "before": right / len(pairs),
        "after": sum(now) / len(pairs),
        "difference": gain,
        "lo": lo,
        "hi": hi,
        "wins": sum(a > b for b, a in zip(was, now, strict=True)),
        "regressions": regressions,
        "negative_flip_rate": regressions / len(pairs),
        "negative_flip_rate_mc": _other_wrong(pairs),
        "lost_share": regressions / right if right else None,
    }


def _other_wrong(pairs: list[tuple[Row, Row]]) -> float | None:
    """MUSCLE's rate for multiple choice: the share that is wrong now and says something else than before.

    Beside the regressions it has what went from one wrong answer to another. By what the reward read; `None` where it
    tells that of no completion.
    """
    if not all(any(pair[side].get("parsed") is not None for pair in pairs) for side in (0, 1)):
        return None
    return sum(not _passed(after) and after.get("parsed") != before.get("parsed") for before, after in pairs) / len(
        pairs
    )


def settings(recipes: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The dotted keys in which the recipes differ, with each one's value; `None` where it has no such key.

    Where a run is written says nothing about it and is left out.
    """
    flat = [flatten(recipe) for recipe in recipes]
    keys = dict.fromkeys(key for one in flat for key in one if key != "run.dir")
    found = {key: [one.get(key) for one in flat] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def in_words(value: Any) -> str:
    """A setting as a recipe has it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def problems(rows: dict[run_reading.Key, Row]) -> dict[Problem, Row]:
    """Greedy completions by problem. The same prompt may come several times: the first is 0, the next 1, and so on."""
    seen: Counter[str] = Counter()
    found = {}
    for (_, prompt), row in sorted(rows.items(), key=lambda item: item[0][0]):
        found[prompt, seen[prompt]] = row
        seen[prompt] += 1
    return found


# -- the runs ----------------------------------------------------------------------------------------------------------


def _opened(paths: Sequence[str | Path], stage: str | None) -> list[Examined]:
    layouts = [run_reading.open_run(path) for path in paths]
    places = [layout.path.resolve() for layout in layouts]
    if len(layouts) < 2:
        raise ConfigError(f"{len(layouts)} run", expected="at least two: the baseline, then those compared with it")
    again = next((place for place, count in Counter(places).items() if count > 1), None)
    if again:
        raise ConfigError(f"{again.name} is named twice", expected="different runs", where="RUN")
    return [_examined(layout, name, stage) for layout, name in zip(layouts, names(places), strict=True)]


def names(places: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    for length in range(1, max(len(place.parts) for place in places) + 1):
        short = ["/".join(place.parts[-length:]) for place in places]
        if len(set(short)) == len(short):
            break
    return short


def _examined(layout: Layout, name: str, stage: str | None) -> Examined:
    latest = run_reading.last_evals(run_reading.evals(layout))
    # The last stage of a run that is not finished: its evaluations on the way are of the stage "hybrid"
    chosen = stage or max(latest, key=STAGES.index, default=None)
    line = latest.get(chosen) if chosen else None
    if line is None:
        raise ConfigError(
            f"the run has no evaluation of the stage {stage}" if stage else "the run has not been evaluated yet",
            expected=f"one of {', '.join(latest)}" if latest else "a line in eval.jsonl",
            where=name,
        )
    rows = run_reading.eval_results(layout, chosen)
    if not rows:
        raise ConfigError(
            f"the completions of its evaluation ({chosen}, step {line['step']}) are not there",
            expected=f"completions/{layout.eval_completions_file(str(chosen), line['step']).name}",
            where=name,
            fix="copy the whole directory of the run",
        )
    return Examined(name, layout, line, problems(rows), "final" in latest)


def _summary(run: Examined, recipe: dict[str, Any]) -> dict[str, Any]:
    passed = [float(_passed(row)) for row in run.rows.values()]
    earlier = run_reading.eval_results(run.layout, "warmup") if run.stage in ("hybrid", "averaged", "final") else {}
    since = difference(problems(earlier), run.rows)
    return {
        "name": run.name,
        "stage": run.stage,
        "step": run.line["step"],
        "finished": run.finished,
        "n": len(passed),
        "pass@1": sum(passed) / len(passed),
        "ci95": list(run.line.get("ci95") or share_ci(passed)),
        "pass@k": run.line.get("pass@k") or {},
        "errors": run.line.get("errors") or 0,
        "since_warmup": {key: since[key] for key in since if key not in ("flips", "by")} or None
        if since["n"]
        else None,
        "spent": spent(run.layout, recipe),
    }


def _recipe(layout: Layout) -> dict[str, Any]:
    return run_reading.recipe(layout) if layout.recipe_file.exists() else {}


def _columns(first: Examined, other: Examined) -> list[str]:
    """The columns that both were sliced by: the difficulty, of a mixture of tasks the task, and the source."""
    here, there = (run.line.get("by") or {} for run in (first, other))
    return [column for column in here if column in there]


def _passed(row: Row) -> bool:
    return bool(row.get("passed"))


def _flip(before: Row, after: Row) -> dict[str, Any]:
    def side(row: Row) -> dict[str, Any]:
        return {key: row.get(key) for key in ("completion", "score")} | {
            "why": row.get("error") or row.get("note") or ""
        }

    return {
        "kind": "win" if _passed(after) else "regression",
        "row": before["row"],
        "prompt": before["prompt"],
        "before": side(before),
        "after": side(after),
    }


def _in_order(value: str) -> tuple[int, float, str]:
    """Numbers by size, then words."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value


# -- what to bear in mind ----------------------------------------------------------------------------------------------


def _warnings(runs: list[Examined], differences: list[Row], recipes: list[Row]) -> list[str]:
    said = [
        f"{run.name} is not finished: its last evaluation is that of the stage {run.stage}, step {run.line['step']}"
        for run in runs
        if not run.finished
    ]
    if len({run.stage for run in runs}) > 1:
        said.append("evaluations of different stages are compared: " + ", ".join(f"{r.name} {r.stage}" for r in runs))
    for run, each in zip(runs[1:], differences, strict=True):
        left = len(runs[0].rows) - each["n"], len(run.rows) - each["n"]
        if any(left):
            most = each["n"] + max(left)
            said.append(
                f"{each['n']} of {most} problems are in both {runs[0].name} and {run.name}; the rest are left out"
            )
    said += _other_scoring(runs, recipes)
    said += [
        f"no reward scored {run.line['unscored']} completions of {run.name}, which count as wrong"
        for run in runs
        if run.line.get("unscored")
    ]
    said += [
        f"the reward failed on {run.line['errors']} completions of {run.name}, which count as wrong"
        for run in runs
        if run.line.get("errors")
    ]
    if len(differences) > 1:
        said.append(
            f"{len(differences)} comparisons with one baseline: each interval is 95 % by itself, and the more there "
            "are, the likelier one of them excludes 0 by luck. Go by the Holm-adjusted p"
        )
    return [*said, "the intervals are over problems: another seed of training may move the runs by more than that"]


def _other_scoring(runs: list[Examined], recipes: list[Row]) -> list[str]:
    """What makes passes of two runs mean different things."""
    said = []
    judges = [judge_of(run.line, recipe) for run, recipe in zip(runs, recipes, strict=True)]
    if any(meaning(judge) != meaning(judges[0]) for judge in judges):
        by = "; ".join(f"{run.name} by {judge_in_words(judge)}" for run, judge in zip(runs, judges, strict=True))
        said.append(f"the evaluations were judged differently, so that a pass does not mean the same: {by}")
    found = [run_reading.environment(run.layout).get("fingerprints") or {} for run in runs]
    for name in dict.fromkeys(name for each in found for name in each if name.startswith("reward ")):
        if len({each[name] for each in found if name in each}) > 1:
            said.append(f"the code of the {name} differs between the runs: a pass may not mean the same")
    lengths = {
        (recipe.get("evaluate") or {}).get("max_completion_length")
        or ((recipe.get("hybrid") or {}).get("grpo") or {}).get("max_completion_length")
        for recipe in recipes
        if recipe
    }
    if len(lengths) > 1:
        said.append(
            "evaluated with different limits on the length of a completion: "
            + ", ".join(str(length) for length in sorted(lengths, key=str))
        )
    return said
