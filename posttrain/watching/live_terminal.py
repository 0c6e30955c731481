"""Keeps the frame of a run at the bottom of a terminal, and everything else that is printed above it.

Drawing takes no thread, at most four frames a second and at most a hundredth of the time: where a frame took 5 ms, the
next one comes half a second later at the earliest.
"""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from posttrain.watching.live import LiveState
from posttrain.watching.live_view import frame

FRAMES_PER_SECOND = 4
SHARE_OF_TIME = 0.01


class LiveTerminal:
    """The live view of a run on a terminal.

    While it runs, `sys.stdout` and `sys.stderr` print above it, and so do loggers that were given those before. A frame
    may be drawn wherever anyone prints; so one that fails raises nothing there, and stays empty.

    Args:
        console: The terminal.
        state: What to draw; changed by others between two calls of `refresh`.
        clock: What tells the seconds between frames.

    Attributes:
        failed: The error of the first frame that could not be drawn.
    """

    failed: Exception | None = None

    def __init__(self, console: Console, state: LiveState, clock: Callable[[], float] = time.monotonic):
        self._console, self._state, self._clock = console, state, clock
        self._next = float("-inf")
        self._drawing = self._final = False
        self._held: list[str] = []
        self._handlers: list[tuple[logging.StreamHandler, TextIO]] = []
        self._live = Live(console=console, auto_refresh=False, get_renderable=self._frame, vertical_overflow="crop")

    def start(self) -> None:
        """Draw the first frame, and take over what is printed."""
        before = {id(stream): stream for stream in (sys.stdout, sys.stderr)}
        self._live.start()
        after = dict(zip(before, (sys.stdout, sys.stderr), strict=False))
        for handler in _stream_handlers():
            proxy = after.get(id(handler.stream))
            if proxy is not None and proxy is not handler.stream:
                self._handlers.append((handler, handler.stream))
                handler.setStream(proxy)

    def stop(self) -> None:
        """Leave the last frame where it is, and give back what was taken over."""
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._handlers = []
        self._final = True
        self._live.stop()

    def refresh(self, *, at_once: bool = False) -> None:
        """Draw a frame if it is time for one."""
        if self._drawing or not (at_once or self._clock() >= self._next):
            return
        started = time.perf_counter()
        self._drawing = True
        try:
            self._live.refresh()
        finally:
            self._drawing = False
        took = time.perf_counter() - started
        self._next = self._clock() + max(1 / FRAMES_PER_SECOND, took / SHARE_OF_TIME)
        while self._held:
            self._print(self._held.pop(0))

    def say(self, text: str) -> None:
        """Print a line above the frame; what a signal's handler says in the midst of drawing waits until it is done."""
        if self._drawing:
            self._held.append(text)
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, emoji=False)

    def _frame(self) -> RenderableType:
        return _Guarded(self._drawn, self._note)

    def _note(self, error: Exception) -> None:
        self.failed = self.failed or error

    def _drawn(self) -> RenderableType:
        self._state.catch_up()
        width, height = self._console.width, self._console.height
        if self._final:
            return frame(self._state, width, height, final=True)
        # The cursor waits on a line of its own, where the ^C that a terminal echoes moves nothing
        return Group(frame(self._state, width, height - 1), Text())


class _Guarded:
    """What `make` returns when it is rendered; nothing, and `failed` is told, where either fails."""

    def __init__(self, make: Callable[[], RenderableType], failed: Callable[[Exception], None]):
        self._make, self._failed = make, failed

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        try:
            segments = list(console.render(self._make(), options))
        except Exception as error:
            self._failed(error)
            segments = []
        yield from segments


def _stream_handlers() -> Iterator[logging.StreamHandler]:
    """The handlers of all loggers that write to a stream."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", []):
            if type(handler) is logging.StreamHandler and not isinstance(handler.stream, io.StringIO):
                yield handler
