"""The mix of a run as an SVG file that stands by itself: the share of SFT and GRPO by step, and the chance p of SFT."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 220, 46, 12, 34, 30
COLUMNS = 60  # of several steps each, so that a column shows a share and not whether a step was the one or the other
SFT, GRPO, INK, SOFT = "#9db9e8", "#f3cfae", "#1b1f24", "#59616b"


def mix_drawing(steps: Sequence[dict[str, Any]]) -> str:
    """The drawing as text; empty for a run without a step of the hybrid stage. It has its own background.

    Args:
        steps: The lines of steps.jsonl.
    """
    hybrid = [line for line in steps if line.get("stage") == "hybrid"]
    if not hybrid:
        return ""
    size = math.ceil(len(hybrid) / COLUMNS)
    groups = [hybrid[start : start + size] for start in range(0, len(hybrid), size)]
    wide = (WIDTH - LEFT - RIGHT) / len(groups)
    parts, curve = [], []
    for place, group in enumerate(groups):
        x, mixes = LEFT + place * wide, [line.get("mix") or {} for line in group]
        sft, grpo = (sum(float(mix.get(name) or 0) for mix in mixes) for name in ("sft", "grpo"))
        if sft + grpo:
            edge = _y(sft / (sft + grpo))
            parts.append(_bar(x, TOP, wide, edge - TOP, GRPO) + _bar(x, edge, wide, HEIGHT - BOTTOM - edge, SFT))
        known = [float(line["p"]) for line in group if line.get("p") is not None]
        if known:
            curve.append(f"{x + wide / 2:.1f},{_y(sum(known) / len(known)):.1f}")
    if curve:
        parts.append(f'<polyline fill="none" stroke="{INK}" stroke-width="1.6" points="{" ".join(curve)}"/>')
    for share in (0.0, 0.5, 1.0):
        parts.append(_text(LEFT - 6, _y(share) + 4, f"{share:.0%}", "end"))
    parts += [
        _text(LEFT, HEIGHT - 9, f"step {hybrid[0]['step']}"),
        _text(WIDTH - RIGHT, HEIGHT - 9, f"step {hybrid[-1]['step']}", "end"),
        _bar(LEFT, 12, 12, 12, SFT) + _text(LEFT + 18, 22, "share of SFT"),
        _bar(LEFT + 120, 12, 12, 12, GRPO) + _text(LEFT + 138, 22, "share of GRPO"),
        _text(LEFT + 250, 22, "line: p, the chance of an SFT step") if curve else "",
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="12" role="img"><title>The mix of SFT and GRPO by step</title>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _bar(x: float, y: float, wide: float, tall: float, colour: str) -> str:
    return f'<rect x="{x:.2f}" y="{y:.2f}" width="{wide:.2f}" height="{tall:.2f}" fill="{colour}"/>' if tall > 0 else ""


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{SOFT}" text-anchor="{anchor}">{text}</text>'
