"""What a person sees while a run trains: bars on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

SHOWN_AS = {"pass_at_1": "pass@1"}


class Progress:
    """Progress of a run's stages, for use in `with`.

    On a terminal each stage has a bar with its latest figures and the time left, and what else is printed appears
    above. Elsewhere there are plain lines with a clock time: one every `interval` seconds and one at a stage's end.

    Args:
        stages: Name and number of steps of each stage, in order.
        console: Where to write; stderr by default, so that stdout stays for results.
        plain: True forces lines, False bars; None looks at the console.
        enabled: False says nothing at all: for all but the main process.
        interval: Seconds between plain lines.
        clock: What tells the seconds.
    """

    def __init__(
        self,
        stages: list[tuple[str, int]],
        console: Console | None = None,
        plain: bool | None = None,
        *,
        enabled: bool = True,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.console = console or Console(stderr=True)
        self.plain = not self.console.is_terminal or self.console.is_dumb_terminal if plain is None else plain
        self.enabled, self.interval = enabled, interval
        self._clock = clock
        self._stages = {name: _Stage(name, total) for name, total in stages}
        self._said = float("-inf")
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Progress:
        if self.enabled and not self.plain:
            self._bars = Bars(
                TextColumn("[bold]{task.description:<8}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:>5.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[detail]}"),
                console=self.console,
            )
            for name, stage in self._stages.items():
                self._tasks[name] = self._bars.add_task(name, total=stage.total, detail="")
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def update(self, stage: str, step: int, **fields: Any) -> None:
        """Say that `step` steps of a stage are done, the ones of earlier sessions included.

        `fields` are the figures to show, in this order: numbers, text, or the mix as {"sft": .., "grpo": ..}. One
        that is None or not given keeps its last value; `pass_at_1` is shown as pass@1.
        """
        shown = self._stages[stage]
        shown.update(step, fields, self._clock())
        self._show(shown, final=False)

    def finish(self, stage: str) -> None:
        """Say that a stage is done, or was done by an earlier session."""
        shown = self._stages[stage]
        shown.update(shown.total, {}, self._clock())
        self._show(shown, final=True)

    def message(self, text: str) -> None:
        """Say one thing, at once; markup in it is shown as it is."""
        if not self.enabled:
            return
        if self.plain:
            self._line(text)
        else:
            self.console.print(text, markup=False, highlight=False)

    def track(self, label: str) -> Callable[[int, int], None]:
        """A callback (done, total) that shows work within a stage, such as an evaluation, until it is complete."""
        work = _Stage(label, 0)

        def report(done: int, total: int) -> None:
            work.total = total
            work.update(done, {}, self._clock())
            if self._bars is None:
                if done < total:
                    self._show(work, final=False)
                return
            if label not in self._tasks:
                self._tasks[label] = self._bars.add_task(escape(label), total=total, detail="")
            self._show(work, final=False)
            if done >= total:
                self._bars.remove_task(self._tasks.pop(label))

        return report

    def _show(self, stage: _Stage, final: bool) -> None:
        if not self.enabled:
            return
        details = [*stage.figures(), "done" if final else stage.time_left()]
        detail = " · ".join(part for part in details if part)
        if self._bars is not None:
            # The total may have been unknown when the bar was made (an evaluation's).
            self._bars.update(self._tasks[stage.name], completed=stage.step, total=stage.total, detail=escape(detail))
        elif self.plain and (final or self._clock() - self._said >= self.interval):
            self._said = self._clock()
            share = 100 * stage.step // stage.total if stage.total else 100
            self._line(f"{stage.name} {stage.step}/{stage.total} ({share} %) · {detail}".removesuffix(" · "))

    def _line(self, text: str) -> None:
        self.console.print(
            f"{time.strftime('%H:%M:%S')} {text}", markup=False, highlight=False, soft_wrap=True, emoji=False
        )


class _Stage:
    """Where one stage stands, and how fast this session moves it."""

    def __init__(self, name: str, total: int):
        self.name, self.total, self.step = name, total, 0
        self.fields: dict[str, Any] = {}
        self._first: tuple[int, float] | None = None
        self._now = 0.0

    def update(self, step: int, fields: Mapping[str, Any], now: float) -> None:
        self.step, self._now = step, now
        self.fields.update({key: value for key, value in fields.items() if value is not None})
        if self._first is None:
            self._first = (step, now)

    def figures(self) -> list[str]:
        return [f"{SHOWN_AS.get(key, key)} {_figure(value)}" for key, value in self.fields.items()]

    def time_left(self) -> str:
        """From the pace of this session, so that the steps of an earlier one do not count as fast."""
        if self._first is None or self.step <= self._first[0] or self.step >= self.total:
            return ""
        pace = (self._now - self._first[1]) / (self.step - self._first[0])
        return f"{duration(pace * (self.total - self.step))} left"


def duration(seconds: float) -> str:
    """Seconds as people say them: 45s, 3m05s, 2h07m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _figure(value: Any) -> str:
    if isinstance(value, Mapping):
        return " + ".join(f"{share:.2f} {name}" for name, share in value.items() if share) or "none"
    if isinstance(value, float):
        return f"{value:.2f}" if 0.01 <= abs(value) < 1000 or value == 0 else f"{value:.1e}"
    return str(value)
