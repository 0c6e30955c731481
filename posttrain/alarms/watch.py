"""When an alarm is raised: once when it begins, again when it got markedly worse, or came back after it was gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.alarms import demonstrations, policy, rollouts
from posttrain.alarms.history import Finding, GRPOStep, History, Settings
from posttrain.errors import ConfigError
from posttrain.storage.files import read_lines

DETECTORS = (
    rollouts.unscored,
    rollouts.dead_groups,
    rollouts.truncation,
    policy.entropy_collapse,
    policy.kl_blow_up,
    policy.parts_drift,
    rollouts.length_correlation,
    rollouts.repetition,
    rollouts.sampler_mismatch,
    demonstrations.method_gate,
    demonstrations.prefix_not_outgrown,
)
"""One a kind, in the order in which they are said."""

KINDS = tuple(detector.__name__ for detector in DETECTORS)

WORSE = 3.0
"""So many times as severe as when it was last said is worth saying again."""

GONE = 10
"""An alarm has ended when it was not found in so many GRPO steps: values near a limit go to and fro."""

FILE = "alarms.jsonl"


@dataclass
class _Said:
    """An alarm that is on: how it was last said, and GRPO steps since it was last found."""

    severity: float
    level: str
    absent: int = 0


class Raised:
    """What is raised of what was found, look by look.

    Args:
        gone: Looks without it after which an alarm has ended.
    """

    def __init__(self, gone: int = GONE):
        self._gone = gone
        self._on: dict[tuple[str, str], _Said] = {}
        self._past: set[tuple[str, str]] = set()

    def lines(self, step: int, findings: Iterable[Finding]) -> list[dict[str, Any]]:
        """The alarms to raise at a step, as lines of `alarms.jsonl`."""
        found = {(each.kind, each.about): each for each in findings}
        raised = [self._line(step, key, finding) for key, finding in found.items()]
        for key in [key for key in self._on if key not in found]:
            self._on[key].absent += 1
            if self._on[key].absent >= self._gone:
                del self._on[key]
        return [line for line in raised if line is not None]

    def _line(self, step: int, key: tuple[str, str], finding: Finding) -> dict[str, Any] | None:
        said = self._on.get(key)
        if said is None:
            change = "came back" if key in self._past else "began"
        elif (finding.level, said.level) == ("problem", "warning") or said.severity < finding.severity / WORSE:
            change = "got worse"
        else:
            said.absent = 0
            return None
        self._past.add(key)
        self._on[key] = _Said(finding.severity, finding.level)
        return {
            "step": step,
            "kind": finding.kind,
            "level": finding.level,
            "change": change,
            "about": finding.about,
            "evidence": finding.evidence,
            "advice": finding.advice,
        }


class Watch:
    """Looks at one step after another.

    Its state follows from the records alone: one that is given those of a run so far goes on where another stopped.

    Args:
        settings: What advice depends on.
    """

    def __init__(self, settings: Settings):
        self._history = History(settings)
        self._raised = Raised()

    def look(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Take the next record of `steps.jsonl`; the alarms to raise, as lines of `alarms.jsonl`."""
        step = GRPOStep.of(record)
        if step is None:
            return []
        self._history.add(step)
        return self._raised.lines(step.step, (each for detect in DETECTORS for each in detect(self._history)))


def in_words(line: Mapping[str, Any]) -> str:
    """An alarm for the log."""
    name = line["kind"].replace("_", " ")
    change = "" if line.get("change", "began") == "began" else f" {line['change']}"
    return f"{line['level']} at step {line['step']}: {name}{change}: {line['evidence']}. To try: {line['advice']}"


def read(run_dir: str | Path) -> list[dict[str, Any]]:
    """The alarms of a run, oldest first; [] if there were none.

    Returns:
        The lines of `alarms.jsonl`: `step`, `kind`, `level` ("warning" or "problem"), `change` ("began", "got worse"
        or "came back"), `about` (which of a kind's troubles), `evidence`, `advice`.

    Raises:
        ConfigError: There is no such folder.
        DataError: The file is damaged.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise ConfigError(f"no folder {folder}", expected="the directory of a run", where="run_dir")
    return read_lines(folder / FILE)


def summary(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each kind of alarm that a run raised, in the order in which they began; [] without any."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        kinds.setdefault(line["kind"], []).append(line)
    told = []
    for kind, some in kinds.items():
        first, last = some[0], some[-1]
        problems = any(line["level"] == "problem" for line in some)
        level = "problem" if problems else "warning"
        when = f"since step {first['step']}" if len(some) == 1 else (
            f"raised {len(some)} times, first at step {first['step']}, last at step {last['step']}"
        )  # fmt: skip
        told.append(f"{level}: {kind.replace('_', ' ')}, {when}: {last['evidence']}. To try: {last['advice']}")
    return told
