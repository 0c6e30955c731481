"""What a person sees while a run trains: a live view on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from rich.console import Console

from posttrain.watching.live import Bar, LiveState, figure, safe
from posttrain.watching.live_terminal import LiveTerminal

SHOWN_AS = {"pass_at_1": "pass@1"}


class Progress:
    """Progress of a run's stages, for use in `with`.

    On a terminal there is a live view (see `live_view`): a bar for each stage with the time left, and where lines of
    `steps.jsonl` and completions are handed in, their curves and texts. What else is printed appears above. Elsewhere
    there are plain lines with a clock time: one every `interval` seconds and one at a stage's end.

    Args:
        stages: Name and number of steps of each stage, in order.
        console: Where to write; stderr by default, so that stdout stays for results.
        plain: True forces lines, False the live view; None looks at the console.
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
        self.state = LiveState()
        self._live: LiveTerminal | None = None

    def __enter__(self) -> Progress:
        if self.enabled and not self.plain:
            self.state.bars = [stage.bar() for stage in self._stages.values()]
            self._live = LiveTerminal(self.console, self.state, self._clock)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._draw(LiveTerminal.stop)
            self._live = None

    @property
    def is_live(self) -> bool:
        """Whether there is a view that `record` and `completions` are drawn in."""
        return self._live is not None

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

    def record(self, record: Mapping[str, Any]) -> None:
        """Take a line of `steps.jsonl` into the curves; the next `update` shows it."""
        self._draw(lambda live: self.state.add_record(record))

    def start_over(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Draw the curves anew, through the lines that a run goes on from."""
        self.state.forget_steps()
        for record in records:
            self.record(record)

    def completions(self, step: int, rows: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        """Show some of a step's rollouts; `rows` gives them as `ledger.rollout_rows` does, when a frame is drawn."""
        if self._live is not None:
            self.state.add_completions(step, rows)

    def message(self, text: str) -> None:
        """Say one thing, at once; markup in it is shown as it is."""
        if not self.enabled:
            return
        text = safe(text)  # it may quote a completion
        if self._live is not None:
            self._draw(lambda live: live.say(text))
        elif self.plain:
            self._line(text)
        else:
            self.console.print(text, markup=False, highlight=False, emoji=False)

    def alarm(self, text: str) -> None:
        """Say what may have gone wrong; the live view keeps it in sight."""
        self.message(text)
        self.state.add_alarm(text)

    def track(self, label: str) -> Callable[[int, int], None]:
        """A callback (done, total) that shows work within a stage, such as an evaluation, until it is complete."""
        work = _Stage(label, 0)

        def report(done: int, total: int) -> None:
            work.total = total
            work.update(done, {}, self._clock())
            if done < total:
                self._show(work, final=False)
            elif self._live is not None:
                self.state.bars = [bar for bar in self.state.bars if bar.name != work.bar().name]
                self._draw(lambda live: live.refresh(at_once=True))

        return report

    def _show(self, stage: _Stage, final: bool) -> None:
        if not self.enabled:
            return
        if self._live is not None:
            bars, bar = self.state.bars, stage.bar(final)
            place = next((place for place, each in enumerate(bars) if each.name == bar.name), len(bars))
            bars[place : place + 1] = [bar]
            self._draw(lambda live: live.refresh(at_once=final))
        elif self.plain and (final or self._clock() - self._said >= self.interval):
            self._said = self._clock()
            share = 100 * stage.step // stage.total if stage.total else 100
            detail = " · ".join(part for part in (*stage.figures(), stage.left(final)) if part)
            self._line(f"{stage.name} {stage.step}/{stage.total} ({share} %) · {detail}".removesuffix(" · "))

    def _draw(self, work: Callable[[LiveTerminal], object]) -> None:
        """Do something with the live view. Where it fails there are plain lines from then on: training goes on."""
        live = self._live
        if live is None:
            return
        error: Exception | None = None
        try:
            work(live)
        except Exception as raised:
            error = raised
        error = error or live.failed
        if error is None or self._live is None:  # or a handler of a signal was here before
            return
        self._live, self.plain = None, True
        try:
            with suppress(Exception):
                live.stop()
            self._line(safe(f"plain lines from here on, for the live view failed: {type(error).__name__}: {error}"))
        except OSError:  # there is no terminal any more
            self.enabled = False

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
        return [f"{SHOWN_AS.get(key, key)} {figure(value)}" for key, value in self.fields.items()]

    def left(self, final: bool) -> str:
        return "done" if final else self.time_left()

    def bar(self, final: bool = False) -> Bar:
        return Bar(safe(self.name, lines=False), self.step, self.total, " · ".join(self.figures()), self.left(final))

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
