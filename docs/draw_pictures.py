"""Make the README's two pictures from a finished run: `python docs/draw_pictures.py runs/quickstart`.

terminal.svg is the live view as it was at one of the run's steps, drawn again from its files; report.png is the top of
its report.html, which is written anew, in a headless Chromium (as of tests/report: `CHROMIUM`, or one on the path).
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI

from posttrain.report.report import write_report
from posttrain.rundir.completions import read_completions
from posttrain.rundir.layout import Layout
from posttrain.rundir.reading import steps as read_steps
from posttrain.watching.live import Bar, LiveState
from posttrain.watching.live_view import frame
from posttrain.watching.progress import duration

HERE = Path(__file__).parent
COLUMNS, LINES = 112, 18
WIDE, TALL, COLOURS = 1240, 1200, 64


def terminal(layout: Layout) -> str:
    """The live view at the last step of the first two thirds of the hybrid stage whose rollouts are there."""
    lines = read_steps(layout)
    warmup = [line for line in lines if line["stage"] == "warmup"]
    hybrid = [line for line in lines if line["stage"] == "hybrid"]
    kept = {int(found[1]): file for file in layout.completions_folder.iterdir()
            if (found := re.search(r"^step-(\d+)\.parquet$", file.name))}  # fmt: skip
    step = max(at for at in kept if at <= len(hybrid) * 2 // 3)
    seconds = sum(line["seconds"]["total"] for line in hybrid[:step])
    left = f"{duration(seconds / step * (len(hybrid) - step))} left"
    state = LiveState(
        [Bar("warmup", len(warmup), len(warmup), left="done"), Bar("hybrid", step, len(hybrid), left=left)]
    )
    for line in [*warmup, *hybrid[:step]]:
        state.add_record(line)
    rows: list[dict[str, Any]] = read_completions(kept[step])
    state.add_completions(step, lambda: rows)
    state.catch_up()
    console = Console(record=True, width=COLUMNS, height=LINES, file=io.StringIO(), force_terminal=True,
                      color_system="truecolor")  # fmt: skip
    console.print(frame(state, COLUMNS, LINES))
    drawn = console.export_svg(title="posttrain run recipes/quickstart.yaml", theme=MONOKAI, unique_id="terminal")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)  # they would be loaded from elsewhere


def report(layout: Layout) -> bytes:
    """The top of the report as a PNG of few colours."""
    page = write_report(layout.path).resolve()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("no Chromium: apt-get install chromium, or CHROMIUM=/path")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "report.png"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDE},{TALL}"]
        command = [chromium, *options, f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        image = Image.open(shot).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    written = io.BytesIO()
    image.save(written, "PNG", optimize=True)
    return written.getvalue()


if __name__ == "__main__":
    run = Layout(Path(sys.argv[1]))
    (HERE / "terminal.svg").write_text(terminal(run), encoding="utf-8")
    (HERE / "report.png").write_bytes(report(run))
