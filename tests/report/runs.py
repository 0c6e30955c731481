"""Runs to make pages of: a hostile one, whose every text was written to break a page, and a long one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from posttrain.rundir.completions import write_completions
from posttrain.rundir.rundir import RunDir
from posttrain.storage import files

HOSTILE = (
    "</pre></details></main></script><script>document.title='owned';console.error('ran')</script>"
    "<img src=http://127.0.0.1:9/x onerror=alert(1)><svg onload=alert(2)><style>*{display:none}</style>"
    "<a href=javascript:alert(3)>x</a><iframe src=http://127.0.0.1:9/y></iframe><!-- {{ 7 * 7 }} {% raw %} &amp; \"'>"
)
UNSEEN = "abc\u202edcba\u2066\u2069\u200b\u200f\u2028\x1b[31m\x1b]0;owned\x07\x00\ufeff\x9b2J"
WORD = "W" * 5_000
LONG = "start of a long one\n" + "x y z " * 17_000 + "\nend of a long one"  # 100 KB
RIGHT_TO_LEFT = "\u05e9\u05dc\u05d5\u05dd " * 30
COMBINING = "Z" + "\u0310\u0352\u0345" * 400
TEXTS = [HOSTILE, UNSEEN, WORD, LONG, RIGHT_TO_LEFT, COMBINING, "", HOSTILE + UNSEEN]


def hostile_run(folder: Path, *, other: bool = False) -> Path:
    """A finished run with the texts as its completions, prompts, notes, columns, alarms, recipe and environment.

    `other` turns the final results around.
    """
    with RunDir.open(
        folder, {"model": {"name": HOSTILE}, "task": {"note": UNSEEN, WORD: LONG}}, {HOSTILE: WORD}
    ) as run:
        for stage, step, turned in (("start", 0, 0), ("warmup", 3, 0), ("final", 40, 0 if other else 1)):
            rows = [
                {"row": row, "sample": sample, "prompt": f"problem {row} {text}", "completion": text,
                 "passed": (row + turned) % 2 == 0, "score": 1.0, "note": text, "error": text if row == 3 else None,
                 "length": len(text), "truncated": row == 2}
                for row, text in enumerate(TEXTS * 2)
                for sample in (None, 0, 1)
            ]  # fmt: skip
            by = {HOSTILE: {HOSTILE: {"n": 8, "pass@1": 0.5}, UNSEEN: {"n": 1, "pass@1": 1.0}}}
            record = {"stage": stage, "step": step, "n": 16, "pass@1": 0.5, "ci95": [0.2, 0.8], "mean_length": 9.0}
            run.evaluation({**record, "pass@k": {"2": 0.75, HOSTILE: 0.5}, "by": by}, rows)
        for step in range(1, 4):
            line = {
                "stage": "warmup",
                "step": step,
                "mix": {"sft": 1.0, "grpo": 0.0},
                "sft_norm": 2.0,
                "reason": HOSTILE,
            }
            run.step({**line, "seconds": {"total": 2.0, HOSTILE: 1.5}, "tokens": {WORD: 100}})
        for step in range(1, 41):
            run.step(hybrid_step(step))
    for step in (1, 2, 3, 30, 40):
        for kind in ("kl_blow_up", HOSTILE, UNSEEN):
            line = {"step": step, "kind": kind, "evidence": HOSTILE + WORD, "advice": UNSEEN, "level": "problem"}
            files.append_line(run.path / "alarms.jsonl", line)
    return run.path


def hybrid_step(step: int) -> dict[str, Any]:
    """A line of steps.jsonl."""
    sft = step % 3 == 0
    return {
        "stage": "hybrid", "step": step, "mix": {"sft": float(sft), "grpo": float(not sft)}, "p": 0.3,
        "reward": None if sft else 0.5 + math.sin(step) / 3, "kl": 0.01 * step, "entropy": 1 / step,
        "sft_norm": 1.0 if sft else None, "grpo_norm": None if sft else 0.1, "sft_loss": 0.4 if sft else None,
        "grpo_loss": None if sft else 0.001 * step, "rollouts": 8 * step, "completion_length": 30.0,
        "truncated_share": 0.1, "zero_std_share": 0.2, "seconds": {"total": 2.0}, "skipped": False,
    }  # fmt: skip


def long_run(folder: Path, steps: int) -> Path:
    """A run of so many hybrid steps, an evaluation every 50 and an alarm every 10; its completions are gone."""
    lines = [hybrid_step(step) for step in range(1, steps + 1)]
    lines[7776]["kl"] = 55.5
    evals = [{"stage": "hybrid", "step": step, "n": 400, "pass@1": 0.3, "ci95": [0.2, 0.4],
              "by": {"id": {str(row): {"n": 1, "pass@1": 1.0} for row in range(400)}}}
             for step in range(50, steps + 1, 50)]  # fmt: skip
    alarms = [{"step": step, "kind": "truncation", "level": "warning", "change": "got worse", "about": "",
               "evidence": f"{step} cut off", "advice": f"a longer limit than at {step}"}
              for step in range(10, steps + 1, 10)]  # fmt: skip
    folder.mkdir()
    for name, content in (("steps", lines), ("eval", evals), ("alarms", alarms)):
        files.write_jsonl(folder / f"{name}.jsonl", content)
    return folder


def hostile_beside(folder: Path) -> None:
    """Rollouts of a later step beside a method, whose every text was written to break a page."""
    columns = {"step": 90, "note": HOSTILE, "truncated": False, "length": 9, "reward/right": 1.0}
    given = {"source": "rollout", "grpo_advantage": 0.0, "begun_tokens": 0, "begun_characters": 0, "credit": None}
    rows = [
        {**columns, **given, "prompt": HOSTILE, "completion": text, "advantage": 0.5}
        | ({"source": "begun", "begun_tokens": 4, "begun_characters": len(text) // 2} if number % 2 else {})
        for number, text in enumerate(TEXTS)
    ]
    whole = {"source": "demonstration", "begun_tokens": 9, "credit": 0.5, "advantage": None}
    rows.append({**columns, **given, **whole, "prompt": HOSTILE, "completion": f"shown {HOSTILE}"})
    write_completions(folder / "completions" / "step-000090.parquet", rows)
