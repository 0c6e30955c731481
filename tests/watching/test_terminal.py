"""How wide commands print: as COLUMNS says, else as the terminal is, else wide enough for file names."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios

import pytest

from posttrain.watching.terminal import PIPED_WIDTH, console


@pytest.fixture(autouse=True)
def no_columns(monkeypatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_a_pipe_is_wide_even_where_colours_are_forced(monkeypatch) -> None:
    assert console(file=io.StringIO()).width == PIPED_WIDTH
    assert console(file=io.StringIO(), force_terminal=True).width == PIPED_WIDTH
    assert console(file=io.StringIO(), width=70).width == 70
    monkeypatch.setenv("COLUMNS", "90")
    assert console(file=io.StringIO()).width == 90


def test_a_terminal_has_its_own_width(monkeypatch) -> None:
    main, terminal = pty.openpty()
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 67, 0, 0))
        with os.fdopen(os.dup(terminal), "w") as file:
            # rich asks stdin, stdout and stderr how large they are; here these are no terminals
            monkeypatch.setattr("rich.console._STD_STREAMS", (file.fileno(),))
            assert console(file=file).width == 67
            monkeypatch.setenv("COLUMNS", "90")
            assert console(file=file).width == 90
    finally:
        os.close(main)
        os.close(terminal)
