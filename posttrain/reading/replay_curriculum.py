"""The prompts or demonstrations that a run drew, drawn again from its record; or what other settings would have drawn.

`curriculum.json` has what the curriculum knew of each prompt, steps.jsonl what each window took and what came of it:
all that a draw depends on. So it is with the demonstrations of a warm-up, `warmup_curriculum.json` and what was
measured for its curriculum. Under the run's own settings every draw is the run's. Under others the state follows the
outcomes that the run had, window by window, and each window is drawn anew: what the other rows would have given is not
known.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.curricula import CURRICULA, Curriculum, Sampler, Table
from posttrain.curricula.base import outcomes_of
from posttrain.curricula.beside import refused_on_demonstrations
from posttrain.errors import ConfigError
from posttrain.reading.replay import overrides_of, settings
from posttrain.rundir import reading as run_reading
from posttrain.rundir.layout import Layout


@dataclass(frozen=True)
class Draws:
    """A window's draws.

    Attributes:
        step: Of the window.
        run: The prompts that the run drew.
        own: Those that its settings give.
        other: Those that the others give.
    """

    step: int
    run: list[int]
    own: list[int]
    other: list[int]


@dataclass(frozen=True)
class CurriculumResult:
    """A replay of a run's curriculum.

    Attributes:
        run: The run's name.
        own: The run's curriculum.
        curriculum: The one that was replayed.
        table: What both know of the prompts.
        draws: By window.
        of: What was drawn: "prompts" or "demonstrations".
    """

    run: str
    own: Curriculum
    curriculum: Curriculum
    table: Table
    draws: Sequence[Draws]
    of: str = "prompts"

    @property
    def other_than_run(self) -> list[int]:
        """Steps whose draws are not what the run's own settings give: the run changed its settings or its prompts on
        the way, or its files are not of one piece. Empty as it should be."""
        return sorted({each.step for each in self.draws if each.own != each.run})

    def summary(self) -> dict[str, Any]:
        """`steps`, `prompts` or `demonstrations`, `other_than_run`, `same` (rows that both drew in a window) and, where
        there are sources, `sources`: of each the rows of `run` and `replay`."""
        same = sum(sum((Counter(each.run) & Counter(each.other)).values()) for each in self.draws)
        found: dict[str, Any] = {
            "steps": len({each.step for each in self.draws}),
            self.of: sum(len(each.run) for each in self.draws),
            "same": same,
            "other_than_run": self.other_than_run,
        }
        column = self.curriculum.source_of(list(self.table.columns)) or self.own.source_of(list(self.table.columns))
        if column is not None and column in self.table.columns:
            values = self.table.columns[column]
            sides = [Counter(str(values[row]) for each in self.draws for row in rows(each)) for rows in (_run, _other)]
            found["sources"] = {
                name: dict(zip(("run", "replay"), (side[name] for side in sides), strict=True))
                for name in sorted(sides[0] | sides[1])
            }
        return found


def _run(draws: Draws) -> list[int]:
    return draws.run


def _other(draws: Draws) -> list[int]:
    return draws.other


def has_curriculum(path: str | Path, stage: str = "hybrid") -> bool:
    """Whether a stage recorded draws of a curriculum, so that there is something to replay."""
    layout = run_reading.open_run(path)
    if not layout.recipe_file.exists() or not _file(layout, stage).exists():
        return False
    return any(line.get("curriculum") for line in run_reading.steps(layout, stage))


def replay_curriculum(path: str | Path, overrides: Iterable[str] = (), stage: str = "hybrid") -> CurriculumResult:
    """Replay a stage's draws under `curriculum.key=value` settings, or `warmup.curriculum.key=value` of the warm-up.

    Raises:
        ConfigError: The folder is no run, its stage had no curriculum or recorded no draw, or the settings are wrong.
        DataError: The prompts lack what other settings need.
    """
    layout = run_reading.open_run(path)
    recipe = run_reading.recipe(layout)
    if not (recipe.get(stage) or {}).get("curriculum") or not has_curriculum(path, stage):
        raise ConfigError(
            "no draw of a curriculum is recorded",
            expected=f"a run with {stage}.curriculum: {', '.join(CURRICULA)}, and a step that "
            + ("sampled" if stage == "hybrid" else "trained"),
            where=str(path),
            fix="controller.key=value replays its controller",
        )
    of_stage, of = {"hybrid": recipe.get(stage)}, "prompts" if stage == "hybrid" else "demonstrations"
    own, other = (
        with_overrides(of_stage, (text.removeprefix(f"{stage}.") for text in typed)) for typed in ((), overrides)
    )
    unknown = other.asks not in (None, own.asks)
    unfit = f"{other.name} goes by {other.asks}, which the run did not measure" if unknown else None
    if seen := (refused_on_demonstrations(other) if stage == "warmup" else None) or unfit:
        raise ConfigError(
            seen,
            expected="a curriculum that goes by what was recorded",
            where="command line",
            fix="replay another; only `posttrain run` can try it",
        )
    read = json.loads(_file(layout, stage).read_text(encoding="utf-8"))
    table, fresh = Table.of_record(read), Table.of_record(read)
    missing = other.missing(list(table.columns))
    if missing:
        raise other.lack(missing[0], list(table.columns), of)
    other.check(fresh)
    seed = (recipe.get("run") or {}).get("seed", 0)
    samplers = [Sampler(own, table), Sampler(other, fresh)]
    states = [sampler.start(seed) for sampler in samplers]
    draws = []
    for line in run_reading.steps(layout, stage):
        for window in (line.get("curriculum") or {}).get("windows", ()):
            states = [_told(each, state, window) for each, state in zip(samplers, states, strict=True)]
            drawn = [each.draw(state, len(window["rows"])) for each, state in zip(samplers, states, strict=True)]
            draws.append(Draws(line["step"], list(window["rows"]), *drawn))
            outcomes = outcomes_of(window)
            states = [each.observe(state, outcomes) for each, state in zip(samplers, states, strict=True)]
    return CurriculumResult(layout.path.resolve().name, own, other, table, draws, of)


def _told(sampler: Sampler, state: Any, window: Mapping[str, Any]) -> Any:
    """The state once what the run measured before a draw is taken in, as far as it would have been asked for."""
    for measured in window.get("measured", ()):
        asked = sampler.ask(state)
        if asked is not None and asked.kind == measured["kind"] and set(asked.rows) <= set(measured["values"]):
            state = sampler.take(state, {name: measured["values"][name] for name in asked.rows})
    return state


def _file(layout: Layout, stage: str) -> Path:
    return layout.curriculum_file if stage == "hybrid" else layout.warmup_curriculum_file


def with_overrides(recipe: Mapping[str, Any], overrides: Iterable[str]) -> Curriculum:
    """The recipe's curriculum under `curriculum.key=value` settings; another name takes that one's defaults.

    Raises:
        ConfigError: A value is wrong.
    """
    from posttrain.recipe.section import Section
    from posttrain.recipe.stage_sections import AnyCurriculum

    class Holder(Section):
        curriculum: AnyCurriculum

    found: Curriculum = settings(recipe, overrides_of(overrides), "curriculum", Holder, CURRICULA)
    return found


def sentences(result: CurriculumResult) -> list[str]:
    """What the replay shows and what it cannot, one thought each."""
    told = result.summary()
    count, drawn, of = told["steps"], told[result.of], result.of
    if result.other_than_run:
        at = result.other_than_run
        found = [
            f"Under the settings of recipe.yaml the curriculum does NOT draw as recorded at {len(at)} of {count} "
            f"steps, first at step {at[0]}: the run went on under changed settings (--accept-changes), or its files "
            "are not of one piece."
        ]
    else:
        found = [f"Under the run's own settings all {drawn:,} {of} of {count} steps are drawn as in the run."]
    if result.curriculum == result.own:
        return found
    found.append(f"Of them {told['same']:,} would have been in the same window.")
    for name, sides in told.get("sources", {}).items():
        found.append(f"Source {name}: {sides['run']:,} {of} in the run, {sides['replay']:,} in the replay.")
    return [
        *found,
        "Each window is drawn after the outcomes that the run had. What the others would have given, and how "
        "the model would have moved, is not known: it is the curriculum's answer to this run's record, no other run.",
    ]
