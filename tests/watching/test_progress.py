"""Progress: plain lines, bars, silence, and the arithmetic of the time left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from posttrain.watching.progress import Progress, duration


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def plain(interval: float = 10.0, **options) -> tuple[Progress, io.StringIO, Clock]:
    text, clock = io.StringIO(), Clock()
    console = Console(file=text, width=200)
    stages = [("warmup", 100), ("hybrid", 200)]
    return Progress(stages, console, interval=interval, clock=clock, **options), text, clock


def lines(text: io.StringIO) -> list[str]:
    return [line.split(" ", 1)[1] for line in text.getvalue().splitlines()]


def test_plain_lines_come_now_and_then_and_at_the_end():
    progress, text, clock = plain()
    assert progress.plain, "a string is no terminal"
    with progress:
        for step in range(1, 101):
            clock.now += 1
            progress.update("warmup", step, loss=1 / step)
        progress.finish("warmup")
    said = lines(text)
    assert said[0].startswith("warmup 1/100 (1 %)")
    assert [line.split()[1] for line in said] == [f"{step}/100" for step in range(1, 101, 10)] + ["100/100"]
    assert said[5] == "warmup 51/100 (51 %) · loss 0.02 · 49s left"
    assert said[-1] == "warmup 100/100 (100 %) · loss 0.01 · done"


def test_figures_are_shown_as_people_read_them_and_keep_their_last_value():
    progress, text, _ = plain(interval=0)
    with progress:
        progress.update("hybrid", 1, mix={"sft": 0.3, "grpo": 0.7}, reward=0.5, pass_at_1=0.42, kl=3.2e-4, p=None)
        progress.update("hybrid", 2, mix={"sft": 1.0, "grpo": 0.0}, reward=None)
    assert lines(text)[0].endswith("mix 0.30 sft + 0.70 grpo · reward 0.50 · pass@1 0.42 · kl 3.2e-04")
    assert "mix 1.00 sft · reward 0.50 · pass@1 0.42" in lines(text)[1]


def test_steps_of_an_earlier_session_do_not_count_as_fast():
    progress, text, clock = plain(interval=0)
    with progress:
        progress.finish("warmup")
        progress.update("hybrid", 150)
        clock.now += 10
        progress.update("hybrid", 151)
    assert lines(text)[-1].endswith("8m10s left"), "49 steps of 10 seconds each"


def test_messages_keep_their_brackets():
    progress, text, _ = plain()
    with progress:
        progress.message("saved [bold]runs/[kk]")
        progress.message("could not parse '\x1b[2J'")
    assert lines(text) == ["saved [bold]runs/[kk]", "could not parse '␛[2J'"], "no command to a terminal either"


def test_an_evaluation_is_tracked():
    progress, text, _ = plain(interval=0)
    with progress:
        callback = progress.track("evaluate")
        for done in (50, 100):
            callback(done, 100)
    assert lines(text) == ["evaluate 50/100 (50 %)"]


def test_other_ranks_say_nothing():
    progress, text, _ = plain(interval=0, enabled=False)
    with progress:
        progress.update("warmup", 1, loss=1.0)
        progress.message("hello")
        progress.track("evaluate")(1, 2)
        progress.finish("warmup")
    assert text.getvalue() == ""


def test_bars_on_a_terminal():
    text, clock = io.StringIO(), Clock()
    console = Console(file=text, width=160, force_terminal=True, color_system=None, legacy_windows=False)
    with Progress([("warmup", 10), ("hybrid", 20)], console, plain=False, clock=clock) as progress:
        progress.update("warmup", 1, loss=0.25)
        clock.now += 3
        progress.update("warmup", 4, loss=0.25)
        progress.message("a [word] above")
        callback = progress.track("evaluate [final]")
        clock.now += 3
        callback(5, 10)
        callback(10, 10)
        assert "evaluate [final]" not in [bar.name for bar in progress.state.bars]
        progress.finish("warmup")
        progress.update("hybrid", 5, mix={"sft": 1.0, "grpo": 0.0})
    shown = text.getvalue()
    for piece in ("loss 0.25 · 6s left", "a [word] above", "evaluate [final]", "5/10", "10/10", "mix 1.00 sft"):
        assert piece in shown


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (185, "3m05s"), (7_620, "2h07m")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
