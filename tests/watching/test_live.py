"""The live view: sparklines, what is kept of a run, frames at several sizes, and a terminal that others print to."""

from __future__ import annotations

import io
import logging
import math
import sys
from itertools import pairwise

import pytest
from rich.cells import cell_len
from rich.console import Console

from posttrain.watching.live import Bar, Curve, LiveState, safe
from posttrain.watching.live_terminal import LiveTerminal
from posttrain.watching.live_view import frame
from posttrain.watching.progress import Progress
from posttrain.watching.sparkline import BLOCKS, sparkline

HOSTILE = (
    "[bold]x[/] \x1b[2J\x1b]0;title\x07 \x9b31m \r\n\u202egnp.exe\u2028 "
    + "e"
    + "\u0301" * 50
    + " 漢字" * 40
    + "\n" * 60
)


def record(step: int, stage: str = "hybrid", **more):
    return {
        "stage": stage, "step": step, "mix": {"sft": 0.0, "grpo": 1.0}, "reason": "u=0.9 >= p=0.5: GRPO",
        "reward": step / 100, "p": 0.5, "sft_norm": None, "grpo_norm": 0.1, "kl": 3e-4, "entropy": 1.25, **more,
    }  # fmt: skip


def rows(*completions: str, scores=(0.25, 1.0, 0.0)):
    return [
        {"prompt": f"question {n}", "completion": text, "reward/right": scores[n], "reward/n/a": math.nan,
         "note": f"note {n}", "truncated": n == 2, "advantage": 0.0}
        for n, text in enumerate(completions)
    ]  # fmt: skip


def state(*completions: str, stage: str = "hybrid") -> LiveState:
    made = LiveState([Bar("warmup", 10, 10, "loss 0.25", "done"), Bar("hybrid", 40, 90, "reward 0.40", "2m left")])
    for step in range(1, 41):
        made.add_record(record(step, stage))
    if completions:
        made.add_completions(40, lambda: rows(*completions))
        made.catch_up()
    return made


def drawn(shown: LiveState, width: int = 120, height: int = 40, **options) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(frame(shown, width, height, **options))
    return capture.get().split("\n")[:-1]


# ---- sparklines ----


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, BLOCKS),
        ([0, 1, 2, 3, 4, 5, 6, 7], 20, BLOCKS),
        ([0, 0, 7, 7], 2, "▁█"),
        ([1, None, math.nan, math.inf, 2], 9, "▁   █"),
        ([1, None, 3, None], 2, "▁█"),
        ([5, 5, 5], 3, "▄▄▄"),
        ([0, 0.0, None, 0], 4, "▁▁ ▁"),
        ([None, None], 5, "  "),
        ([], 5, ""),
        ([1, 2], 0, ""),
        ([-1e308, 1e308], 2, "▁█"),
    ],
)
def test_sparklines(values, width, line):
    assert sparkline(values, width) == line


def test_a_sparkline_of_a_long_series_has_its_width_and_its_course():
    line = sparkline([math.sin(step / 100) for step in range(628)], 40)
    assert len(line) == 40
    assert line[10] == "█"
    assert line[30] == "▁"
    assert sparkline([0.25], 1, low=0, high=1) == "▃", "on a scale that is given"


def test_a_curve_is_bounded_and_keeps_its_course():
    curve = Curve(kept=8)
    for step in range(1000):
        curve.add(float(step))
    curve.add(None)
    assert len(curve.points) < 16
    assert curve.points == sorted(curve.points)
    assert curve.points[0] < 100 < 850 < curve.points[-1]
    assert curve.latest == 999.0


# ---- text of a model ----


def test_a_terminal_takes_no_command_from_a_models_text():
    shown = safe(HOSTILE)
    assert not any(ord(char) < 0x20 and char != "\n" for char in shown)
    assert not any(0x7F <= ord(char) < 0xA0 for char in shown)
    assert "\u202e" not in shown
    assert "\u2028" not in shown
    assert "␛[2J␛]0;title␇" in shown, "what was there can be seen"
    assert shown.count("\u0301") == 3
    assert safe("a\tb\nc", lines=False) == "a b c"
    assert len(safe("x" * 10**6)) < 10_000


@pytest.mark.parametrize(
    "size", [(200, 60), (120, 40), (96, 24), (80, 24), (80, 40), (60, 14), (48, 30), (40, 10), (20, 5)]
)
def test_a_frame_fits_whatever_a_model_says(size):
    width, height = size
    shown = state(HOSTILE, HOSTILE, HOSTILE)
    shown.add_alarm(HOSTILE)
    lines = drawn(shown, width, height)
    assert len(lines) < height
    assert max(map(cell_len, lines)) <= width
    assert "\x1b" not in "".join(lines)


# ---- what a frame shows ----


def test_both_stages_the_curves_and_the_completions_with_score_and_reason():
    text = "\n".join(drawn(state("so so", "all right", "wrong")))
    for piece in (
        "warmup",
        "10/10 loss 0.25 · done",
        "40/90 2m left",
        "reward",
        "SFT norm",
        "GRPO norm",
        "KL",
        "entropy",
    ):
        assert piece in text
    assert "▁▁" in text
    assert "0.40" in text, "the latest reward"
    assert "3.0e-04" in text, "the latest KL"
    assert "step 40: mix 1.00 grpo, u=0.9 >= p=0.5: GRPO" in text
    assert "completions of step 40" in text
    for piece in ("right 1.00", "note 1", "question 1", "all right", "right 0.00", "wrong [cut off]"):
        assert piece in text, "the best and the worst"
    assert "n/a" not in text, "a reward that does not apply"
    assert text.index("right 1.00") < text.index("right 0.00")


def test_markup_of_a_model_is_text():
    assert "[bold]x[/bold] [link=http://a]b" in "\n".join(drawn(state("c", "[bold]x[/bold] [link=http://a]b", "d")))


def test_a_long_text_shows_that_there_is_more():
    lines = drawn(state("\n".join(f"line {n}" for n in range(40)), "b", "c"), 60, 40)
    assert any("line" in line and "…" in line for line in lines)
    assert not any("line 30" in line for line in lines)


def test_the_rewards_of_several_sources_stand_beside_the_mix():
    shown = state("one")
    shown.add_record(record(4, by_source={"sums": {"reward": 0.75}, "words\x1b[2J": {"reward": 0.125}}))
    shown.add_record(record(5, by_source=None))
    (line,) = [line for line in drawn(shown) if "reward: " in line]
    assert line.strip() == "reward: sums 0.75, words␛[2J 0.12"
    shown.by_source = {"sums": 0.5}
    assert not [line for line in drawn(shown) if "reward: " in line]


def test_a_warm_up_step_says_why_there_are_no_completions():
    assert "no completions: the warm-up trains on demonstrations" in drawn(state(stage="warmup"))
    assert "no completions yet" in drawn(state())


def test_an_sft_step_says_whose_completions_are_shown():
    shown = state("a", "b", "c")
    shown.add_record(record(41, mix={"sft": 1.0, "grpo": 0.0}))
    assert "completions of step 40; an SFT step samples none" in drawn(shown)


def test_less_room_less_shown():
    shown = state("a", "b", "c")
    wide, low, narrow, tiny = (drawn(shown, *size) for size in ((120, 40), (120, 9), (60, 40), (40, 40)))
    assert sum("╭" in line for line in wide) == 1
    assert [line.count("╭") for line in wide if "╭" in line] == [2], "side by side"
    assert sum("╭" in line for line in narrow) == 3, "below each other"
    assert "completions of step 40" in low
    assert not any("╭" in line for line in low)
    assert len(tiny) == 2, "bars only"
    assert "reward 0.40" in tiny[1], "with the figures that the curves would show"


def test_before_the_first_step_there_are_bars():
    bars = [Bar("warmup", 0, 10), Bar("hybrid", 0, 90), Bar("eval start", 5, 10)]
    assert len(drawn(LiveState(bars))) == 3
    assert drawn(LiveState()) == [""]


def test_the_last_frame_has_no_completions():
    shown = drawn(state("a", "b", "c"), final=True)
    assert "completions" not in "\n".join(shown)
    assert "left" not in "\n".join(shown), "nothing goes on"
    assert "done" in shown[0]


def test_alarms_stay_in_sight():
    shown = state()
    for number in range(9):
        shown.add_alarm(f"step {number}: entropy fell")
    said = [line for line in drawn(shown) if "entropy fell" in line]
    assert said == [f"! step {number}: entropy fell" for number in (6, 7, 8)]


# ---- a terminal ----


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def terminal(text: io.StringIO) -> Console:
    return Console(file=text, width=100, height=30, force_terminal=True, color_system=None, legacy_windows=False)


def test_at_most_four_frames_a_second_and_a_hundredth_of_the_time(monkeypatch):
    text, clock, drawn_at = io.StringIO(), Clock(), []
    view = LiveTerminal(terminal(text), state(), clock)
    monkeypatch.setattr(view._live, "refresh", lambda: drawn_at.append(clock.now))
    for tick in range(1000):
        clock.now = tick / 100
        view.refresh()
    assert 2 < len(drawn_at) <= 41
    assert min(b - a for a, b in pairwise(drawn_at)) >= 0.25

    slow = iter(range(10**6))
    monkeypatch.setattr(
        "posttrain.watching.live_terminal.time.perf_counter", lambda: next(slow) * 0.02
    )  # 20 ms a frame
    drawn_at.clear()
    for tick in range(1000):
        clock.now = 10 + tick / 100
        view.refresh()
    assert 4 <= len(drawn_at) <= 6, "one in two seconds"


def test_what_others_print_stands_above_the_frame():
    text, log = io.StringIO(), logging.getLogger("a library")
    log.propagate, handler = False, logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    before = handler.stream
    try:
        with Progress([("warmup", 10)], terminal(text)) as progress:
            progress.update("warmup", 1, loss=1.0)
            print("a print")
            log.warning("a warning [bold]of a logger")
            progress.message("a [message]")
            sys.stderr.write("\r 50%|bar\r100%|bar\n")
            progress.finish("warmup")
        assert handler.stream is before
    finally:
        log.removeHandler(handler)
    said = text.getvalue()
    for piece in ("a print\n", "a warning [bold]of a logger\n", "a [message]\n", "100%|bar\n"):
        assert piece in said
        assert "warmup" in said[said.index(piece) :], "the frame is drawn again below it"
    assert "10/10 loss 1.00 · done" in said.splitlines()[-1] + said.splitlines()[-2], "the last frame stays"


def test_what_a_signals_handler_says_does_not_fall_into_a_frame(monkeypatch):
    text = io.StringIO()
    with Progress([("hybrid", 10)], terminal(text)) as progress:
        draw = progress._live._live.refresh

        def interrupted():
            progress.message("stopping")
            assert "stopping" not in text.getvalue()
            draw()

        monkeypatch.setattr(progress._live._live, "refresh", interrupted)
        progress.update("hybrid", 1)
        monkeypatch.undo()
        assert text.getvalue().count("stopping") == 1


def test_lines_that_a_run_goes_on_from_are_in_the_curves():
    with Progress([("hybrid", 90)], terminal(io.StringIO())) as progress:
        progress.record(record(1))
        progress.start_over(record(step) for step in range(1, 21))
        progress.completions(20, lambda: rows("a", "b", "c"))
        assert len(progress.state.curves["reward"].points) == 20
        assert progress.state.step == 20
        assert not progress.state.completions, "nothing is made of them before a frame is due"
    assert [shown.text for shown in progress.state.completions] == ["b", "a", "c"]
    plain = Progress([("hybrid", 90)], Console(file=io.StringIO()))
    with plain:
        plain.record(record(1))
        plain.completions(1, lambda: 1 / 0)
    assert not plain.state.completions, "where there is no view nothing is kept"


# ---- a view that fails ----


def ends_in_plain_lines(text: io.StringIO, error: str) -> None:
    said = text.getvalue()
    assert said.count("plain lines from here on, for the live view failed") == 1
    assert error in said
    assert "hybrid 3/10 (30 %) · loss 0.50" in said.split("plain lines from here on")[1]
    assert said.rstrip().endswith("the end")


def test_a_frame_that_cannot_be_drawn_ends_the_view_and_not_the_run():
    text, before = io.StringIO(), sys.stdout
    with Progress([("hybrid", 10)], terminal(text), interval=0) as progress:
        progress.completions(1, lambda: 1 / 0)
        print("a print")  # which draws a frame, too
        progress.update("hybrid", 2, loss=1.0)
        assert not progress.is_live
        assert sys.stdout is before, "what was taken over is given back"
        progress.update("hybrid", 3, loss=0.5)
        progress.message("the end")
    assert "a print\n" in text.getvalue()
    ends_in_plain_lines(text, "ZeroDivisionError: division by zero")


def test_a_terminal_that_cannot_show_a_frame_gets_plain_lines(monkeypatch):
    text = io.StringIO()
    with Progress([("hybrid", 10)], terminal(text), interval=0) as progress:

        def refuse(*_):
            raise UnicodeEncodeError("ascii", "▁", 0, 1, "ordinal not in range")

        monkeypatch.setattr(progress._live._live, "refresh", refuse)
        progress.finish("hybrid")
        progress.update("hybrid", 3, loss=0.5)
        progress.message("the end")
    ends_in_plain_lines(text, "UnicodeEncodeError")


def test_a_terminal_that_is_gone_does_not_end_the_run(monkeypatch):
    text = io.StringIO()
    with Progress([("hybrid", 10)], terminal(text)) as progress:

        def gone(*_):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(text, "write", gone)
        progress.finish("hybrid")
        progress.message("nobody is there")
        progress.update("hybrid", 3)
        monkeypatch.undo()
    assert not progress.enabled


def test_ctrl_c_while_a_frame_is_drawn_is_heard():
    def interrupted():
        raise KeyboardInterrupt

    with Progress([("hybrid", 10)], terminal(io.StringIO())) as progress:
        progress.completions(1, interrupted)
        with pytest.raises(KeyboardInterrupt):
            progress.finish("hybrid")
